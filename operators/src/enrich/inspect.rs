//! What files of reference data are, without a pipeline: for the command `data`.

use std::time::SystemTime;

use super::{asn, bots, browser, reputation};

/// What a file is.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// What is in it, for people.
    pub what: String,
    /// How many networks, patterns and the like.
    pub entries: usize,
    /// From when the data is, if the content says so.
    pub made: Option<SystemTime>,
    /// What else there is to know.
    pub note: Option<String>,
}

/// What a file is read as: the option of a kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    Asn,
    BotNetworks,
    BotJa4,
    BotAgents,
    Crawlers,
    Reputation,
    Browser,
}

impl List {
    /// Every list, with the kind of node that reads it and the option that names it.
    pub const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::Asn, "enrich.asn", "file"),
        (Self::BotNetworks, "enrich.bots", "networks"),
        (Self::BotJa4, "enrich.bots", "ja4"),
        (Self::BotAgents, "enrich.bots", "agents"),
        (Self::Crawlers, "enrich.bots", "crawlers"),
        (Self::Reputation, "enrich.reputation", "file"),
        (Self::Browser, "enrich.browser", "file"),
    ];

    /// The list that a content looks like: by its first character, or by its header.
    pub fn of(content: &[u8]) -> Self {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content).trim_ascii_start();
        if content.first() == Some(&b'[') {
            return Self::BotAgents;
        }
        let header = content.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let header = String::from_utf8_lossy(header);
        let has = |name: &str| header.split(',').any(|column| column.trim().trim_matches('"') == name);
        let by_columns = [
            (["prefix", "crawler"], Self::Crawlers),
            (["prefix", "bot_name"], Self::BotNetworks),
            (["ja4", "bot_name"], Self::BotJa4),
            (["src_asn", "label"], Self::Reputation),
            (["ja4", "browser_family"], Self::Browser),
        ];
        let found = by_columns.into_iter().find(|(columns, _)| columns.iter().all(|column| has(column)));
        // The others have several forms.
        found.map_or(Self::Asn, |(_, list)| list)
    }

    /// Reads a content.
    ///
    /// # Errors
    /// The first faults, each as `line: reason` in a line of its own.
    pub fn read(self, content: &[u8]) -> Result<About, String> {
        match self {
            Self::Asn => asn::inspect(content),
            Self::BotNetworks => bots::inspect(content, "networks"),
            Self::BotJa4 => bots::inspect(content, "ja4"),
            Self::BotAgents => bots::inspect(content, "agents"),
            Self::Crawlers => bots::inspect(content, "crawlers"),
            Self::Reputation => reputation::inspect(content),
            Self::Browser => browser::inspect(content),
        }
    }

    /// The option that names such a file, such as `enrich.bots agents`.
    pub fn option(self) -> String {
        let found = Self::ALL.iter().find(|(list, _, _)| *list == self);
        found.map_or_else(String::new, |(_, kind, option)| format!("{kind} {option}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_shows_its_content() {
        let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1";
        let files = [
            ("network,asn,country_code,name,org,domain\n10.0.0.0/8,1,,,,\n".to_owned(), List::Asn),
            ("10.0.0.0,10.0.0.1,1,x\n".to_owned(), List::Asn),
            ("bot_name,prefix\nx,10.0.0.0/8\n".to_owned(), List::BotNetworks),
            (format!("ja4, bot_name\n{ja4},x\n"), List::BotJa4),
            ("\u{feff} [{\"pattern\": \"x\"}]".to_owned(), List::BotAgents),
            ("prefix,crawler\n10.0.0.0/8,Bot\n".to_owned(), List::Crawlers),
            ("src_asn,label\n1,bot\n".to_owned(), List::Reputation),
            (format!("ja4,browser_family,tls_library,context\n{ja4},Chrome,,\n"), List::Browser),
        ];
        for (content, list) in files {
            assert_eq!(List::of(content.as_bytes()), list, "{content}");
            let about = list.read(content.trim_start_matches(['\u{feff}', ' ']).as_bytes());
            assert_eq!(about.map(|about| about.entries), Ok(1), "{content}");
        }
        assert!(List::Asn.read(b"{}").is_err() && List::of(b"").read(b"").is_err());
        assert_eq!(List::BotAgents.option(), "enrich.bots agents");
    }
}
