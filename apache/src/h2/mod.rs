//! What a client of HTTP/2 begins a connection with (RFC 9113): its settings, the window and the priorities that it asks for, and
//! the order of its first request's pseudo-headers. Libraries and browsers differ in these, and programs that pretend to be a
//! browser often forget them.

mod frames;
mod hpack;

use std::fmt::Write;

pub use frames::{Progress, Watch};

/// How a connection began, as far as the frames before the first request's end tell. What was not sent is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Parameters of the first SETTINGS frame in their order: identifier and value. `None` without such a frame.
    pub settings: Option<Vec<(u16, u32)>>,
    /// The increment of the first WINDOW_UPDATE frame of the connection.
    pub window_update: Option<u32>,
    /// PRIORITY frames in their order.
    pub priorities: Vec<Priority>,
    /// The priority within the first HEADERS frame.
    pub headers_priority: Option<Priority>,
    /// The pseudo-headers of the first request in their order: `m` method, `a` authority, `s` scheme, `p` path, `o` protocol, `?`
    /// another one. `None` if they could not be read.
    pub pseudo_order: Option<String>,
}

/// A priority of RFC 7540, section 5.3, which browsers still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// The stream that it is of.
    pub stream: u32,
    /// Whether all others depend on it.
    pub exclusive: bool,
    /// The stream that it depends on.
    pub depends_on: u32,
    /// From 1 to 256.
    pub weight: u16,
}

/// Settings that have a key of their own, by their identifier (IANA, HTTP/2 Settings).
pub const SETTINGS: [(u16, &str); 8] = [
    (1, "h2_header_table_size"),
    (2, "h2_enable_push"),
    (3, "h2_max_concurrent_streams"),
    (4, "h2_initial_window_size"),
    (5, "h2_max_frame_size"),
    (6, "h2_max_header_list_size"),
    (8, "h2_enable_connect_protocol"),
    (9, "h2_no_rfc7540_priorities"),
];

impl Signature {
    /// The last value of a setting, which is the one that counts (RFC 9113, section 6.5.3).
    pub fn setting(&self, id: u16) -> Option<u32> {
        let settings = self.settings.iter().flatten();
        settings.filter(|(other, _)| *other == id).map(|(_, value)| *value).next_back()
    }

    /// The settings as they came: `1:65536,2:0`. `None` without a SETTINGS frame.
    pub fn settings_text(&self) -> Option<String> {
        let settings = self.settings.as_ref()?;
        Some(joined(settings.iter().map(|(id, value)| format!("{id}:{value}")), ","))
    }

    /// The PRIORITY frames: stream, whether exclusive, the stream it depends on, weight: `3:0:0:201,5:0:0:101`. `None` without.
    pub fn priorities_text(&self) -> Option<String> {
        (!self.priorities.is_empty()).then(|| joined(self.priorities.iter().map(Priority::text), ","))
    }

    /// All in one: settings, window, priorities, pseudo-headers: `1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p`. What is not
    /// there is `00` as a window, `0` as priorities and nothing elsewhere. The same as in published lists (Shuster et al.,
    /// "Passive Fingerprinting of HTTP/2 Clients", 2017), but that a setting of a reserved identifier, which is another one each
    /// time, is `GREASE`.
    pub fn text(&self) -> String {
        let settings = self.settings.iter().flatten().map(|(id, value)| match id & 0x0f0f {
            0x0a0a => "GREASE".to_owned(),
            _ => format!("{id}:{value}"),
        });
        let mut text = joined(settings, ";");
        match self.window_update {
            Some(increment) => _ = write!(text, "|{increment}|"),
            None => text += "|00|",
        }
        text += self.priorities_text().as_deref().unwrap_or("0");
        text.push('|');
        text += &joined(self.pseudo_order.iter().flat_map(|order| order.chars()).map(String::from), ",");
        text
    }
}

impl Priority {
    /// As in [`Signature::priorities_text`].
    pub fn text(&self) -> String {
        format!("{}:{}:{}:{}", self.stream, u8::from(self.exclusive), self.depends_on, self.weight)
    }
}

fn joined(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_published_lists() {
        let chrome = Signature {
            settings: Some(vec![(1, 65_536), (2, 0), (4, 6_291_456), (6, 262_144)]),
            window_update: Some(15_663_105),
            priorities: vec![],
            headers_priority: Some(Priority { stream: 1, exclusive: true, depends_on: 0, weight: 256 }),
            pseudo_order: Some("masp".into()),
        };
        assert_eq!(chrome.text(), "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p");
        assert_eq!(chrome.settings_text().as_deref(), Some("1:65536,2:0,4:6291456,6:262144"));
        assert_eq!((chrome.setting(6), chrome.setting(3)), (Some(262_144), None));
        let priority = |stream, weight| Priority { stream, exclusive: false, depends_on: 0, weight };
        let firefox = Signature {
            settings: Some(vec![(1, 65_536), (4, 131_072), (5, 16_384)]),
            window_update: Some(12_517_377),
            priorities: vec![priority(3, 201), priority(5, 101)],
            headers_priority: None,
            pseudo_order: Some("mpas".into()),
        };
        assert_eq!(firefox.text(), "1:65536;4:131072;5:16384|12517377|3:0:0:201,5:0:0:101|m,p,a,s");
    }

    #[test]
    fn what_was_not_sent_is_absent() {
        let nothing = Signature::default();
        assert_eq!(nothing.text(), "|00|0|");
        assert_eq!((nothing.settings_text(), nothing.priorities_text()), (None, None));
        let empty = Signature { settings: Some(vec![]), ..Signature::default() };
        assert_eq!(empty.settings_text().as_deref(), Some(""));
    }

    #[test]
    fn a_reserved_setting_is_always_the_same() {
        let of = |id| Signature { settings: Some(vec![(1, 2), (id, 77)]), ..Signature::default() }.text();
        assert_eq!(of(0x1a2a), "1:2;GREASE|00|0|");
        assert_eq!(of(0x1a2a), of(0xfafa));
    }

    #[test]
    fn of_a_setting_that_comes_twice_the_last_counts() {
        let twice = Signature { settings: Some(vec![(4, 1), (4, 2)]), ..Signature::default() };
        assert_eq!(twice.setting(4), Some(2));
    }
}
