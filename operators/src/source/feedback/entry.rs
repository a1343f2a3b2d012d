//! One word of an analyst: about whom, what, by whom and when.

use std::net::IpAddr;

use engine::text::is_hidden;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a host name or a fingerprint.
const MAX_NAME: usize = 255;

/// Bytes of who says it.
const MAX_WHO: usize = 100;

/// Bytes of a note.
const MAX_NOTE: usize = 2000;

/// What an analyst says of what the pipeline found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Label {
    /// It is no bot, whatever was found.
    FalsePositive,
    /// It is one.
    TruePositive,
}

impl Label {
    /// The word of the column `label`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FalsePositive => "false_positive",
            Self::TruePositive => "true_positive",
        }
    }

    /// The label of a word.
    pub fn of(name: &str) -> Option<Self> {
        [Self::FalsePositive, Self::TruePositive].into_iter().find(|label| label.name() == name)
    }
}

/// Whom it is about: values of `src_ip`, `host` and `ja4`, each `None` for any.
pub(crate) type About = [Option<String>; 3];

/// The columns that say whom it is about, in the order of [`About`].
pub(crate) const ABOUT: [&str; 3] = ["src_ip", "host", "ja4"];

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub id: String,
    /// When it was received, in ns.
    pub given_at: i64,
    /// When it ends, in ns.
    pub until: i64,
    pub about: About,
    /// `None` takes back what was said before. Such an entry stays as long as that would have, so that nothing that has heard
    /// the one misses the other.
    pub label: Option<Label>,
    pub who: String,
    pub note: Option<String>,
}

/// What comes by the API. Others may have written it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    src_ip: Option<String>,
    host: Option<String>,
    ja4: Option<String>,
    label: String,
    who: String,
    note: Option<String>,
}

impl Entry {
    /// Reads a document that was received at a time, in ns, and counts until another.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(document: Value, id: String, (given_at, until): (i64, i64)) -> Result<Self, String> {
        if !document.is_object() {
            return Err(
                "feedback is a JSON object, such as {\"src_ip\": \"192.0.2.1\", \"label\": \"false_positive\", \
                        \"who\": \"ada\"}"
                    .to_owned(),
            );
        }
        let document: Document = serde_json::from_value(document).map_err(|error| error.to_string())?;
        let src_ip = document.src_ip.map(|text| match text.parse::<IpAddr>() {
            // As the formats of requests write addresses.
            Ok(ip) => Ok(ip.to_canonical().to_string()),
            Err(_) => Err("`src_ip` is no IP address".to_owned()),
        });
        let about =
            [src_ip.transpose()?, checked("host", document.host, MAX_NAME)?, checked("ja4", document.ja4, MAX_NAME)?];
        if about.iter().all(Option::is_none) {
            return Err("whom it is about is missing: give `src_ip`, `host` or `ja4`, or several of them".to_owned());
        }
        let label = match document.label.as_str() {
            "undo" => None,
            name => Some(Label::of(name).ok_or("`label` is `false_positive`, `true_positive` or `undo`")?),
        };
        let who = checked("who", Some(document.who), MAX_WHO)?.unwrap_or_default();
        let note = checked("note", document.note.filter(|note| !note.is_empty()), MAX_NOTE)?;
        Ok(Self { id, given_at, until, about, label, who, note })
    }
}

/// Text that is there, is not too long, and has nothing that a terminal obeys.
fn checked(name: &str, text: Option<String>, most: usize) -> Result<Option<String>, String> {
    match &text {
        Some(text) if text.trim().is_empty() => Err(format!("`{name}` is empty")),
        Some(text) if text.len() > most => Err(format!("`{name}` is longer than {most} bytes")),
        Some(text) if text.chars().any(char::is_control) => Err(format!("`{name}` has control characters")),
        // A name with something invisible in it would pass for another. A note may have emoji, which are made of such characters.
        Some(text) if name != "note" && text.chars().any(is_hidden) => {
            Err(format!("`{name}` has characters that do not show"))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: Value) -> Result<Entry, String> {
        Entry::of(document, "1".to_owned(), (5, 9))
    }

    #[test]
    fn a_document_says_whom_what_and_by_whom() {
        let document = json!({ "src_ip": "::ffff:192.0.2.7", "ja4": "t13d", "label": "true_positive", "who": "ada" });
        let entry = read(document).expect("valid");
        assert_eq!(entry.about, [Some("192.0.2.7".to_owned()), None, Some("t13d".to_owned())]);
        assert_eq!((entry.label, entry.who.as_str(), entry.note), (Some(Label::TruePositive), "ada", None));
        let undo = read(json!({ "host": "Shop.example", "label": "undo", "who": "ada", "note": "" })).expect("valid");
        assert_eq!((undo.label, undo.about[1].as_deref()), (None, Some("Shop.example")));
    }

    #[test]
    fn what_is_wrong_with_a_document_is_said() {
        let long = "x".repeat(300);
        for (document, says) in [
            (json!([]), "a JSON object"),
            (json!({}), "missing field `label`"),
            (json!({ "label": "undo", "who": "a" }), "whom it is about is missing"),
            (json!({ "src_ip": "192.0.2", "label": "undo", "who": "a" }), "no IP address"),
            (json!({ "src_ip": 7, "label": "undo", "who": "a" }), "invalid type"),
            (json!({ "host": "h", "label": "good", "who": "a" }), "`label` is `false_positive`"),
            (json!({ "host": "h", "label": null, "who": "a" }), "invalid type: null"),
            (json!({ "host": "h", "label": "undo" }), "missing field `who`"),
            (json!({ "host": "h", "label": "undo", "who": " " }), "`who` is empty"),
            (json!({ "host": long, "label": "undo", "who": "a" }), "longer than 255 bytes"),
            (json!({ "host": "h\u{1b}[2J", "label": "undo", "who": "a" }), "control characters"),
            (json!({ "host": "h\u{200b}", "label": "undo", "who": "a" }), "`host` has characters that do not show"),
            (json!({ "host": "h", "label": "undo", "who": "a\u{202e}da" }), "`who` has characters that do not show"),
            (json!({ "host": "h", "label": "undo", "who": "a", "asn": 7 }), "unknown field `asn`"),
        ] {
            let said = read(document.clone()).expect_err("refused");
            assert!(said.contains(says), "{document}: {said}");
        }
    }

    #[test]
    fn an_entry_comes_back_from_its_line() {
        let document = json!({ "src_ip": "2001:db8::1", "label": "false_positive", "who": "ada", "note": "\"ü\"" });
        let entry = read(document).expect("valid");
        let line = serde_json::to_string(&entry).expect("text");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Entry>(&line).expect("an entry"), entry);
    }
}
