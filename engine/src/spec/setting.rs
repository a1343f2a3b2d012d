//! What was configured, whatever way it was written: without the order of keys, quotes, comments and layout.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Tree, Value};

/// A configured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Nothing.
    Null,
    /// A single value.
    Scalar {
        /// The text, with variables filled in.
        text: String,
        /// Text that would be a number or a truth value without its quotes.
        quoted: bool,
        /// It comes from a variable and may be a secret: it is compared, but not shown.
        hidden: bool,
    },
    /// A list.
    List(Vec<Setting>),
    /// A mapping.
    Map(BTreeMap<String, Setting>),
}

/// A difference between two settings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// Where, as words between dots: `orphans.emit_after`. Items of lists that have a `name` are found by it.
    pub path: String,
    /// The value before; `None` if there was none.
    pub old: Option<String>,
    /// The value after; `None` if there is none.
    pub new: Option<String>,
}

impl Setting {
    /// What a tree says.
    pub fn of(tree: &Tree) -> Self {
        match &tree.value {
            Value::Null => Self::Null,
            Value::Scalar { text, plain, filled } => {
                let typed = matches!(text.as_str(), "true" | "false") || text.parse::<f64>().is_ok();
                Self::Scalar { text: text.clone(), quoted: !plain && typed, hidden: *filled }
            }
            Value::List(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Map(entries) => Self::map(entries.iter().map(|(key, value)| (key.value.as_str(), value))),
        }
    }

    /// A mapping of these entries; the first of equal keys counts.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, &'a Tree)>) -> Self {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            map.entry(key.to_owned()).or_insert_with(|| Self::of(value));
        }
        Self::Map(map)
    }

    /// A text that is not a secret.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Scalar { text: text.into(), quoted: false, hidden: false }
    }

    /// An unambiguous encoding: equal for equal settings, different for different ones.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let part = |out: &mut Vec<u8>, tag: u8, len: usize| {
            out.push(tag);
            out.extend_from_slice(&(len as u64).to_le_bytes());
        };
        match self {
            Self::Null => out.push(b'-'),
            Self::Scalar { text, quoted, .. } => {
                part(out, if *quoted { b'q' } else { b's' }, text.len());
                out.extend_from_slice(text.as_bytes());
            }
            Self::List(items) => {
                part(out, b'l', items.len());
                items.iter().for_each(|item| item.encode(out));
            }
            Self::Map(entries) => {
                part(out, b'm', entries.len());
                for (key, value) in entries {
                    part(out, b'k', key.len());
                    out.extend_from_slice(key.as_bytes());
                    value.encode(out);
                }
            }
        }
    }

    /// Whether it means the same; where it came from does not count.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar { text: a, quoted: b, .. }, Self::Scalar { text: c, quoted: d, .. }) => (a, b) == (c, d),
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && a.same(b))
            }
            (a, b) => a == b,
        }
    }

    /// What has changed from `self` to `new`, beneath `path`; nothing if it means the same.
    pub fn changes(&self, new: &Self, path: &str, out: &mut Vec<Change>) {
        if self.same(new) {
            return;
        }
        match (self, new) {
            (Self::Map(old), Self::Map(new)) => {
                let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
                entries(keys.map(|key| (key.as_str(), old.get(key), new.get(key))), path, out);
            }
            (Self::List(a), Self::List(b)) => match (named(a), named(b)) {
                (Some(old), Some(new)) => {
                    let before = out.len();
                    let find = |list: &[(&str, &'_ Self)], name: &str| list.iter().position(|(n, _)| *n == name);
                    let added = new.iter().filter(|(name, _)| find(&old, name).is_none());
                    let names: Vec<&str> = old.iter().chain(added).map(|(name, _)| *name).collect();
                    let pairs = names.iter().map(|name| {
                        (*name, find(&old, name).map(|at| old[at].1), find(&new, name).map(|at| new[at].1))
                    });
                    entries(pairs, path, out);
                    if out.len() == before {
                        let order = |list: &[(&str, &Self)]| {
                            Some(list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
                        };
                        out.push(Change { path: format!("{path} (order)"), old: order(&old), new: order(&new) });
                    }
                }
                _ => out.push(self.change(new, path)),
            },
            _ => out.push(self.change(new, path)),
        }
    }

    fn change(&self, new: &Self, path: &str) -> Change {
        let (old, mut shown) = (self.shown(), new.shown());
        if old == shown {
            shown.push_str(" (another)");
        }
        Change { path: path.to_owned(), old: Some(old), new: Some(shown) }
    }

    /// The value in one line, as it could be written; what may be a secret is not shown.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        self.show(&mut out);
        out
    }

    fn show(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("nothing"),
            Self::Scalar { hidden: true, .. } => out.push_str("${…}"),
            Self::Scalar { text, quoted, .. } => {
                let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
                match quoted {
                    true => _ = write!(out, "\"{words}\""),
                    false => out.push_str(&words),
                }
            }
            Self::List(items) => {
                for (nth, item) in items.iter().enumerate() {
                    out.push_str(if nth == 0 { "[" } else { ", " });
                    item.show(out);
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Self::Map(entries) => {
                for (nth, (key, value)) in entries.iter().enumerate() {
                    let _ = write!(out, "{}{key}: ", if nth == 0 { "{ " } else { ", " });
                    value.show(out);
                }
                out.push_str(if entries.is_empty() { "{}" } else { " }" });
            }
        }
    }
}

/// The changes of entries that are there before, after, or both.
fn entries<'a>(
    pairs: impl Iterator<Item = (&'a str, Option<&'a Setting>, Option<&'a Setting>)>,
    path: &str,
    out: &mut Vec<Change>,
) {
    for (key, old, new) in pairs {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match (old, new) {
            (Some(old), Some(new)) => old.changes(new, &path, out),
            (old, new) => out.push(Change { path, old: old.map(Setting::shown), new: new.map(Setting::shown) }),
        }
    }
}

/// The items by their names, if each is a mapping with a `name` of its own.
fn named(items: &[Setting]) -> Option<Vec<(&str, &Setting)>> {
    let mut found: Vec<(&str, &Setting)> = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    for item in items {
        let Setting::Map(entries) = item else { return None };
        let Some(Setting::Scalar { text, hidden: false, .. }) = entries.get("name") else { return None };
        if !seen.insert(text) {
            return None;
        }
        found.push((text, item));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Sources;
    use super::*;

    fn setting(text: &str) -> Setting {
        let mut sources = Sources::default();
        let variable = |name: &str| Some(format!("value of {name}"));
        Setting::of(&Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &variable).expect("valid YAML"))
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        let (old, new) = (setting(old), setting(new));
        let mut out = Vec::new();
        old.changes(&new, "", &mut out);
        let encoded = |setting: &Setting| {
            let mut bytes = Vec::new();
            setting.encode(&mut bytes);
            bytes
        };
        assert_eq!(encoded(&old) == encoded(&new), out.is_empty());
        let value = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        out.into_iter()
            .map(|change| format!("{}: {} -> {}", change.path, value(change.old), value(change.new)))
            .collect()
    }

    #[test]
    fn layout_and_order_of_keys_are_no_change() {
        let block = "# a\nb: [1, 2]\na:\n  x: '10s' # why\n  y: >-\n    p\n    q\n";
        assert_eq!(changes(block, "{ a: { y: p q, x: 10s }, b: [ 1,2 ] }"), Vec::<String>::new());
        assert_eq!(changes("a: 1", "a: '1'"), ["a: 1 -> \"1\""]);
        assert_eq!(changes("a: [1, 2]", "a: [2, 1]"), ["a: [1, 2] -> [2, 1]"]);
        assert_eq!(changes("a: ['1, 2']", "a: [1, 2]"), ["a: [1, 2] -> [1, 2] (another)"]);
    }

    #[test]
    fn a_change_is_found_by_key_and_by_name() {
        assert_eq!(changes("a: { x: 1, y: 2 }", "a: { x: 3, z: {} }"), ["a.x: 1 -> 3", "a.y: 2 -> -", "a.z: - -> {}"]);
        let old = "f: [{ name: n, expr: a }, { name: m, expr: b }]";
        assert_eq!(
            changes(old, "f: [{ name: m, expr: c }, { name: o }]"),
            ["f.n: { expr: a, name: n } -> -", "f.m.expr: b -> c", "f.o: - -> { name: o }"]
        );
        assert_eq!(changes(old, "f: [{ name: m, expr: b }, { name: n, expr: a }]"), ["f (order): n, m -> m, n"]);
    }

    #[test]
    fn what_comes_from_a_variable_is_compared_but_not_shown() {
        assert_eq!(changes("url: \"${A}\"", "url: \"${B}\""), ["url: ${…} -> ${…} (another)"]);
        assert_eq!(changes("url: \"${A}\"", "url: value of A"), Vec::<String>::new());
        assert_eq!(changes("url: { x: '${A}' }", "url: 1"), ["url: { x: ${…} } -> 1"]);
    }
}
