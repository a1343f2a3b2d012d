//! Messages of RFC 5424.

use chrono::{DateTime, SecondsFormat, Utc};

/// The most characters of a host's name.
pub(super) const HOSTNAME: usize = 255;
/// The most characters of a program's name.
pub(super) const APP: usize = 48;
/// The most characters of a kind of messages.
const KIND: usize = 32;

/// What the headers of all messages have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    before: String,
    after: String,
}

impl Head {
    /// `priority` is eight times the facility, and the severity; the node's name is the kind of the messages.
    pub fn new(priority: usize, hostname: &str, app: &str, node: &str) -> Self {
        let kind: String = node.chars().filter(char::is_ascii_graphic).take(KIND).collect();
        let kind = if kind.is_empty() { "-".to_owned() } else { kind };
        Self { before: format!("<{priority}>1 "), after: format!(" {hostname} {app} - {kind} - ") }
    }

    /// A message that is sent at a time in ns since 1970.
    pub fn message(&self, now: i64, text: &[u8]) -> Vec<u8> {
        let time = DateTime::<Utc>::from_timestamp_nanos(now).to_rfc3339_opts(SecondsFormat::Millis, true);
        [self.before.as_bytes(), time.as_bytes(), self.after.as_bytes(), text].concat()
    }
}

/// Whether a header can have such a name.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The name of this machine; `-` if it is not known.
pub(super) fn this_machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if is_name(name, HOSTNAME) { name.to_owned() } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_of_rfc_5424() {
        let head = Head::new(16 * 8 + 4, "host.example.test", "ja4-engine", "alerts");
        let message = head.message(1_795_448_127_143_731_829, br#"{"a":1}"#);
        let expected = r#"<132>1 2026-11-23T15:35:27.143Z host.example.test ja4-engine - alerts - {"a":1}"#;
        assert_eq!(String::from_utf8_lossy(&message), expected);
        assert!(Head::new(0, "-", "-", "né").message(0, b"").ends_with(b" - - - n - "));
    }

    #[test]
    fn names_have_no_blanks() {
        assert!(is_name("a-b", 3) && !is_name("a b", 9) && !is_name("", 9) && !is_name("abcd", 3) && !is_name("é", 9));
        assert!(is_name(&this_machine(), HOSTNAME));
    }
}
