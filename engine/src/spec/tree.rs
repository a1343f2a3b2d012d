//! YAML as a tree in which every node knows its place, with `${VAR}` filled in.

use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Diagnostic, Located, Sources, Span};

/// A YAML node and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// What it is.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
}

/// What a YAML node is. Scalars stay text until an option's type asks for a number or a truth value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// A scalar; `plain` if it is neither quoted nor a block, so that it may be a number.
    Scalar {
        /// The text, with variables filled in.
        text: String,
        /// Written without quotes.
        plain: bool,
        /// A variable has been filled in, whose value may be a secret.
        filled: bool,
    },
    /// A sequence.
    List(Vec<Tree>),
    /// A mapping in the order as written.
    Map(Vec<(Located<String>, Tree)>),
}

impl Tree {
    /// Reads a file's text, which becomes part of `sources`. Environment variables come from `variable`.
    pub fn parse(
        path: &Path,
        text: String,
        sources: &mut Sources,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Tree, Vec<Diagnostic>> {
        let source = sources.add(path, text);
        let text = sources.text(source);
        if text.trim().is_empty() {
            return Err(vec![Diagnostic::new(Span { source, start: 0, end: 0 }, "the file is empty")]);
        }
        Self::parse_added(source, text, variable)
    }

    /// Reads a text of which each byte stands at the same place as in the source of that index.
    pub(super) fn parse_added(
        source: u32,
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Tree, Vec<Diagnostic>> {
        let raw: Spanned<Raw> = match serde_saphyr::from_str(text) {
            Ok(raw) => raw,
            Err(error) => return Err(vec![syntax(source, text, &error)]),
        };
        let mut reader = Reader { source, text, variable, problems: Vec::new() };
        let tree = reader.tree(raw);
        if reader.problems.is_empty() { Ok(tree) } else { Err(reader.problems) }
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> Option<&[(Located<String>, Tree)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.entries()?.iter().find(|(name, _)| name.value == key).map(|(_, value)| value)
    }

    /// A scalar's text and place.
    pub fn text(&self) -> Option<Located<String>> {
        match &self.value {
            Value::Scalar { text, .. } => Some(Located::new(text.clone(), self.span)),
            _ => None,
        }
    }

    /// What the node is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

fn syntax(source: u32, text: &str, error: &serde_saphyr::Error) -> Diagnostic {
    let at = error.location().map_or(0, |l| byte_offset(text, l));
    let end = text[at..].find('\n').map_or(text.len(), |n| at + n).max(at);
    let message = error.without_snippet().to_string();
    let message = message.lines().next().unwrap_or("not valid YAML");
    // The place is shown, and what a programmer could call is of no use here.
    let message = message.split("; use from_str").next().unwrap_or(message);
    let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or(message);
    Diagnostic::new(Span { source, start: at as u32, end: end as u32 }, message)
}

fn byte_offset(text: &str, location: serde_saphyr::Location) -> usize {
    if let Some(at) = location.span().byte_offset() {
        let at = (at as usize).min(text.len());
        return (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    }
    let at = location.span().offset() as usize;
    text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
}

/// The tree as serde gives it: places as line and column, scalars already typed.
enum Raw {
    Null,
    Scalar(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a YAML node")
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
                Raw::deserialize(deserializer)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
                Ok(Raw::Scalar(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
                Ok(Raw::Scalar(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
                Ok(Raw::Scalar(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
                Ok(Raw::Scalar(v.to_string()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
                Ok(Raw::Scalar(v.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(RawVisitor)
    }
}

struct Reader<'a> {
    source: u32,
    text: &'a str,
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn tree(&mut self, raw: Spanned<Raw>) -> Tree {
        let mut span = self.span(&raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Scalar(typed) => {
                // Through an alias or `<<` a value is what stands at the anchor.
                let defined = self.span(&raw.defined);
                let written = content(self.text.get(defined.start as usize..defined.end as usize).unwrap_or_default());
                let plain = !written.starts_with(['"', '\'', '|', '>']);
                // A plain scalar as written: serde has turned `0x1F` and `1e3` into numbers already.
                let as_written = plain && !written.is_empty() && !written.contains('\n') && !written.starts_with('*');
                let text = if as_written { written.trim_end().to_owned() } else { typed };
                let (text, filled) = self.interpolate(&text, span, 0);
                Value::Scalar { text, plain, filled }
            }
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.tree(item)).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (Located::new(key.value, self.span(&key.referenced)), self.tree(value)))
                    .collect(),
            ),
        };
        if let (Value::Map(entries), true) = (&value, span.start == span.end)
            && let Some((first, _)) = entries.first()
        {
            span = first.span;
        }
        Tree { value, span }
    }

    fn span(&self, location: &serde_saphyr::Location) -> Span {
        let start = byte_offset(self.text, *location);
        let len = match location.span().byte_len() {
            Some(len) => len as usize,
            None => self.text[start..].chars().take(location.span().len() as usize).map(char::len_utf8).sum(),
        };
        let end = (start + len).min(self.text.len());
        Span { source: self.source, start: start as u32, end: end as u32 }
    }

    /// Fills in `${NAME}` and `${NAME:-default}`, whose default may have variables again; `$$` is one dollar sign. Tells
    /// whether there was a variable.
    fn interpolate(&mut self, text: &str, span: Span, depth: usize) -> (String, bool) {
        let mut filled = false;
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let Some(body) = rest.strip_prefix('{') else {
                out.push('$');
                continue;
            };
            let Some(end) = closing(body) else {
                self.problems.push(Diagnostic::new(span, "`${` without `}`").help("write `$$` for a dollar sign"));
                return (out, filled);
            };
            filled = true;
            out.push_str(&self.variable(&body[..end], span, depth));
            rest = &body[end + 1..];
        }
        out.push_str(rest);
        (out, filled)
    }

    /// The value of `NAME` or `NAME:-default`. As in a shell, `:-` also stands in for a variable that is set but empty,
    /// and a default that is not needed is not looked at.
    fn variable(&mut self, body: &str, span: Span, depth: usize) -> String {
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        let set = (self.variable)(name).filter(|value| default.is_none() || !value.is_empty());
        match (set, default) {
            (Some(value), _) => value,
            (None, Some(_)) if depth >= MAX_DEFAULTS => {
                self.problems.push(Diagnostic::new(span, "too many defaults within defaults"));
                String::new()
            }
            (None, Some(default)) => self.interpolate(default, span, depth + 1).0,
            (None, None) => {
                self.problems.push(
                    Diagnostic::new(span, format!("the environment variable `{name}` is not set"))
                        .help(format!("give a default with `${{{name}:-…}}`")),
                );
                String::new()
            }
        }
    }
}

/// How deep defaults may stand in defaults.
const MAX_DEFAULTS: usize = 16;

/// Where the `}` is that ends a variable whose `${` is just before `body`.
fn closing(body: &str) -> Option<usize> {
    let mut open = 0;
    let mut bytes = body.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'$', Some((_, b'{'))) => {
                open += 1;
                bytes.next();
            }
            // Two of them are one that begins no variable.
            (b'$', Some((_, b'$'))) => _ = bytes.next(),
            (b'}', _) if open == 0 => return Some(at),
            (b'}', _) => open -= 1,
            _ => {}
        }
    }
    None
}

/// A scalar without the anchor and the tag before it.
fn content(mut written: &str) -> &str {
    while written.starts_with(['&', '!']) {
        let end = written.find(char::is_whitespace).unwrap_or(written.len());
        written = written[end..].trim_start();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Result<Tree, Vec<Diagnostic>>, Sources) {
        let mut sources = Sources::default();
        let variable = |name: &str| (name == "PORT").then(|| "8443".to_owned());
        let tree = Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &variable);
        (tree, sources)
    }

    #[test]
    fn every_node_knows_its_place() {
        let text = "a: 1\nb:\n  - { käse: 0x1F, e: \"q\" }\n";
        let (tree, sources) = parse(text);
        let tree = tree.expect("valid");
        let list = tree.get("b").expect("b");
        let Value::List(items) = &list.value else { panic!("{list:?}") };
        let number = items[0].get("käse").expect("key");
        assert_eq!(number.value, Value::Scalar { text: "0x1F".into(), plain: true, filled: false });
        assert_eq!(sources.position(number.span), (3, 13));
        assert_eq!(&text[number.span.start as usize..number.span.end as usize], "0x1F");
        let quoted = items[0].get("e").expect("e");
        assert_eq!(quoted.value, Value::Scalar { text: "q".into(), plain: false, filled: false });
    }

    #[test]
    fn variables_are_filled_in() {
        let (tree, _) = parse("port: ${PORT}\nhost: \"${HOST:-a b}\"\ncost: $$5\n");
        let tree = tree.expect("valid");
        let text = |key| tree.get(key).and_then(Tree::text).map(|t| t.value);
        assert_eq!(text("port").as_deref(), Some("8443"));
        assert_eq!(text("host").as_deref(), Some("a b"));
        assert_eq!(text("cost").as_deref(), Some("$5"));
    }

    #[test]
    fn a_default_may_have_variables_itself() {
        for (written, filled) in [
            ("${A:-${B:-x}}", "x"),
            ("${A:-${B:-${C:-y}}z}", "yz"),
            ("${A:-${PORT}}", "8443"),
            ("${PORT:-${NOT_SET}}", "8443"),
            ("a${A:-}b${B:-${C:-}}", "ab"),
            ("${A:-$$${B:-c}}", "$c"),
            ("${A:-{x}", "{x"),
        ] {
            let (tree, _) = parse(&format!("a: '{written}'\n"));
            let tree = tree.unwrap_or_else(|faults| panic!("{written}: {faults:?}"));
            assert_eq!(tree.get("a").and_then(Tree::text).map(|t| t.value).as_deref(), Some(filled), "{written}");
        }
        assert!(parse("a: '${A:-${B}}'\n").0.is_err(), "B is not set");
        assert!(parse("a: '${A:-${B:-x}'\n").0.is_err(), "not closed");
        assert!(parse(&format!("a: '{}{}'\n", "${A:-".repeat(100_000), "}".repeat(100_000))).0.is_err(), "too deep");
    }

    #[test]
    fn through_an_alias_or_a_merge_a_value_is_what_stands_at_the_anchor() {
        for value in [
            "0o640",
            "0640",
            "0x1F",
            "1.10",
            "1e3",
            "007",
            "1_000",
            "2026-11-23",
            "12:30",
            ".5",
            "+5",
            "'1.10'",
            "\"0x1F\"",
            "12345678901234567890123",
            "True",
            "true",
            "no",
            "1.0",
            "käse",
            "a b",
            "'0640'",
            "!!str 0o17",
        ] {
            let text = format!(
                "o: &o {{ v: &v {value} }}\nb: *v\nc: {{ <<: *o, x: 1 }}\nd: *o\ne: {{ <<: [*o] }}\nf: {value}\n"
            );
            let (tree, _) = parse(&text);
            let tree = tree.unwrap_or_else(|faults| panic!("{value}: {faults:?}"));
            let wanted = &tree.get("f").expect("f").value;
            let found = ["o", "c", "d", "e"].map(|key| tree.get(key).and_then(|o| o.get("v")).map(|v| &v.value));
            assert_eq!(found, [Some(wanted); 4], "{value}");
            assert_eq!(tree.get("b").map(|b| &b.value), Some(wanted), "{value}");
        }
        let (tree, _) = parse("a: &p ${PORT}\nb: *p\nc: &t |\n  1e3\nd: *t\n");
        let tree = tree.expect("valid");
        let text = |key| tree.get(key).and_then(Tree::text).map(|t| t.value);
        assert_eq!((text("b").as_deref(), text("d").as_deref()), (Some("8443"), Some("1e3\n")));
    }

    #[test]
    fn a_variable_that_is_not_set_is_a_fault_at_its_place() {
        let (tree, sources) = parse("name: x\nport: ${NOPE}\n");
        let faults = tree.expect_err("not set");
        assert_eq!(sources.position(faults[0].span.expect("placed")), (2, 7));
    }

    #[test]
    fn broken_yaml_is_a_fault_with_a_place() {
        let (tree, sources) = parse("a: [1, 2\nb: 3\n");
        let faults = tree.expect_err("broken");
        assert!(sources.position(faults[0].span.expect("placed")).0 >= 1);
        assert!(parse("").0.is_err());
    }
}
