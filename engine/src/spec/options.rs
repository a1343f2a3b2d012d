//! From a YAML tree to an options struct: unknown and missing keys are collected, not only the first is reported.

use std::cell::RefCell;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::beside::BESIDE;
use super::fault::Fault;
use super::located::LOCATED;
use super::{Diagnostic, Located, Tree, Value, nearest};

/// What every node may say, besides the options of its kind.
const NODE_KEYS: [&str; 5] = ["id", "kind", "from", "process", "durable"];

/// Reads `T` from a tree. What is wrong goes to `problems`; `None` only if something was.
pub fn read<T: DeserializeOwned>(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<T> {
    let shared = RefCell::new(Vec::new());
    let result = T::deserialize(Reader { tree, problems: &shared, others: None });
    let found = shared.into_inner();
    let failed = !found.is_empty();
    problems.extend(found);
    match result {
        Ok(value) if !failed => Some(value),
        Ok(_) => None,
        Err(fault) => {
            problems.extend(fault.into_diagnostic(tree.span));
            None
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    tree: &'a Tree,
    problems: &'a RefCell<Vec<Diagnostic>>,
    /// Names of fields so far, where a mapping has those of several structs.
    others: Option<&'a RefCell<Vec<&'static str>>>,
}

impl Reader<'_> {
    fn fault(&self, message: String) -> Fault {
        Fault::Placed(Diagnostic::new(self.tree.span, message))
    }

    fn scalar(&self, wanted: &str) -> Result<&str, Fault> {
        match &self.tree.value {
            Value::Scalar { text, .. } => Ok(text),
            _ => Err(self.fault(format!("expected {wanted}, found {}", self.tree.kind()))),
        }
    }

    /// Reports the keys of a mapping that none of its structs has.
    fn report_unknown(&self, fields: &[&'static str]) {
        let Value::Map(entries) = &self.tree.value else { return };
        let others = entries.iter().map(|(key, _)| key).filter(|key| !fields.contains(&key.value.as_str()));
        self.problems.borrow_mut().extend(others.map(|key| unknown(key, fields)));
    }

    fn number<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, Fault> {
        let text = self.scalar(wanted)?;
        let digits = text.replace('_', "");
        digits.parse().map_err(|_| self.fault(format!("expected {wanted}, found `{text}`")))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty, $wanted:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.number::<$ty>($wanted)?;
            visitor.$visit(number).map_err(|fault: Fault| fault.at(self.tree.span))
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    numbers! {
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number, 0 or more";
        deserialize_u64 visit_u64 u64, "a whole number, 0 or more";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree.value {
            Value::Null => visitor.visit_unit(),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Scalar { text, plain, .. } => {
                let result = match text.as_str() {
                    "true" if *plain => visitor.visit_bool(true),
                    "false" if *plain => visitor.visit_bool(false),
                    text if *plain && text.parse::<i64>().is_ok() => {
                        visitor.visit_i64(text.parse().unwrap_or_default())
                    }
                    text if *plain && text.parse::<f64>().is_ok() => {
                        visitor.visit_f64(text.parse().unwrap_or_default())
                    }
                    text => visitor.visit_str(text),
                };
                result.map_err(|fault: Fault| fault.at(self.tree.span))
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.scalar("true or false")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(self.fault(format!("expected true or false, found `{other}`"))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.scalar("text")?).map_err(|fault: Fault| fault.at(self.tree.span))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tree.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree.value {
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), problems: self.problems }),
            _ => Err(self.fault(format!("expected a list, found {}", self.tree.kind()))),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == LOCATED {
            return visitor.visit_seq(Place { reader: self, part: 0 });
        }
        if name == BESIDE {
            let names = RefCell::new(Vec::new());
            let result = visitor.visit_seq(Parts { reader: Reader { others: Some(&names), ..self } });
            self.report_unknown(&names.into_inner());
            return result;
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.tree.value {
            Value::Map(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                fields: None,
                value: None,
                problems: self.problems,
                reports: true,
            }),
            _ => Err(self.fault(format!("expected a mapping, found {}", self.tree.kind()))),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = match &self.tree.value {
            Value::Map(entries) => entries.as_slice(),
            // A node that sets no option at all.
            Value::Null => &[],
            _ => return Err(self.fault(format!("expected a mapping, found {}", self.tree.kind()))),
        };
        if let Some(others) = self.others {
            others.borrow_mut().extend(fields);
        }
        let access = Entries {
            entries: entries.iter(),
            fields: Some(fields),
            value: None,
            problems: self.problems,
            reports: self.others.is_none(),
        };
        visitor.visit_map(access).map_err(|fault: Fault| fault.at(self.tree.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.tree.value {
            Value::Scalar { text, .. } if variants.contains(&text.as_str()) => {
                let name: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Scalar { text, .. } => Err(Fault::Placed(
                Diagnostic::new(self.tree.span, format!("`{text}` is not one of the values allowed here"))
                    .nearest(text, variants.iter().copied()),
            )),
            Value::Map(entries) if entries.len() == 1 => visitor.visit_enum(MapAccessDeserializer::new(Entries {
                entries: entries.iter(),
                fields: None,
                value: None,
                problems: self.problems,
                reports: true,
            })),
            _ => Err(self.fault(format!("expected one of {}, found {}", variants.join(", "), self.tree.kind()))),
        }
    }

    serde::forward_to_deserialize_any! { i128 u128 bytes byte_buf unit_struct }
}

/// Answers [`Located`]: source, start, end, then the value.
struct Place<'a> {
    reader: Reader<'a>,
    part: u8,
}

impl<'de> de::SeqAccess<'de> for Place<'_> {
    type Error = Fault;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let span = self.reader.tree.span;
        self.part += 1;
        match self.part {
            1 => seed.deserialize(span.source.into_deserializer()).map(Some),
            2 => seed.deserialize(span.start.into_deserializer()).map(Some),
            3 => seed.deserialize(span.end.into_deserializer()).map(Some),
            4 => seed.deserialize(self.reader).map(Some),
            _ => Ok(None),
        }
    }
}

/// Answers [`super::Beside`]: each of its structs reads the same mapping.
struct Parts<'a> {
    reader: Reader<'a>,
}

impl<'de> de::SeqAccess<'de> for Parts<'_> {
    type Error = Fault;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        seed.deserialize(self.reader).map(Some)
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Tree>,
    problems: &'a RefCell<Vec<Diagnostic>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Fault;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(tree) = self.items.next() else { return Ok(None) };
        let result = seed.deserialize(Reader { tree, problems: self.problems, others: None });
        result.map(Some).map_err(|fault| fault.at(tree.span))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (Located<String>, Tree)>,
    fields: Option<&'static [&'static str]>,
    value: Option<&'a Tree>,
    problems: &'a RefCell<Vec<Diagnostic>>,
    /// Whether it says which keys are unknown.
    reports: bool,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        while let Some((key, tree)) = self.entries.next() {
            if !self.knows(key) {
                continue;
            }
            self.value = Some(tree);
            let name: StrDeserializer<'_, Fault> = key.value.as_str().into_deserializer();
            return seed.deserialize(name).map(Some).map_err(|fault| fault.at(key.span));
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some(tree) = self.value.take() else { return Err(Fault::Reported) };
        seed.deserialize(Reader { tree, problems: self.problems, others: None }).map_err(|fault| {
            // A wrong value ends the reading; unknown keys behind it are faults all the same.
            while let Some((key, _)) = self.entries.next() {
                self.knows(key);
            }
            fault.at(tree.span)
        })
    }
}

impl Entries<'_> {
    /// Whether a struct has a field for the key; reports it if not.
    fn knows(&self, key: &Located<String>) -> bool {
        let Some(fields) = self.fields else { return true };
        let known = fields.contains(&key.value.as_str());
        if !known && self.reports {
            self.problems.borrow_mut().push(unknown(key, fields));
        }
        known
    }
}

fn unknown(key: &Located<String>, fields: &[&'static str]) -> Diagnostic {
    let problem = Diagnostic::new(key.span, format!("unknown option `{}`", key.value));
    let of_node = NODE_KEYS.iter().copied().filter(|_| nearest(&key.value, fields.iter().copied()).is_none());
    match nearest(&key.value, of_node) {
        Some(near) => problem.nearest(&key.value, [near]),
        None => problem.nearest(&key.value, fields.iter().copied()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::super::{Beside, Sources};
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Options {
        ports: Vec<u16>,
        #[serde(default)]
        mode: Mode,
        filter: Option<Located<String>>,
        #[serde(default)]
        live: bool,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        OneToMany,
        OneToOne,
    }

    fn options(text: &str) -> Result<Options, String> {
        let mut sources = Sources::default();
        let tree = Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &|_| None).expect("valid YAML");
        let mut problems = Vec::new();
        read(&tree, &mut problems).ok_or_else(|| sources.render(&problems, false))
    }

    #[test]
    fn a_value_brings_its_place() {
        let read = options("ports: [443, 8443]\nmode: one_to_one\nfilter: tcp\n").expect("valid");
        assert_eq!((read.ports, read.mode), (vec![443, 8443], Mode::OneToOne));
        let filter = read.filter.expect("there");
        assert_eq!((filter.value.as_str(), filter.span.start), ("tcp", 44));
    }

    #[test]
    fn all_unknown_keys_are_reported_with_the_nearest_name() {
        let shown = options("ports: [443]\ndurabel: true\n").expect_err("an unknown key");
        assert!(shown.contains("did you mean `durable`?"), "{shown}");
        let shown = options("prots: [1]\nports: [443]\nmod: one_to_one\n").expect_err("unknown keys");
        assert!(shown.contains("unknown option `prots`") && shown.contains("did you mean `ports`?"), "{shown}");
        assert!(shown.contains("p.yaml:3:1") && shown.contains("did you mean `mode`?"), "{shown}");
    }

    #[test]
    fn wrong_types_and_values_are_placed() {
        let shown = options("ports: [443, 70000]\n").expect_err("too large");
        assert!(shown.contains("p.yaml:1:14") && shown.contains("0 to 65535"), "{shown}");
        let shown = options("ports: [1]\nmode: one_to_on\n").expect_err("unknown value");
        assert!(shown.contains("did you mean `one_to_one`?"), "{shown}");
        let shown = options("ports: [x]\nmod: one_to_one\n").expect_err("two faults");
        assert!(shown.contains("found `x`") && shown.contains("unknown option `mod`"), "{shown}");
        let shown = options("live: maybe\nports: []\n").expect_err("not a truth value");
        assert!(shown.contains("expected true or false, found `maybe`"), "{shown}");
        let shown = options("live: true\n").expect_err("missing");
        assert!(shown.contains("missing field `ports`"), "{shown}");
    }

    #[test]
    fn shared_options_stand_beside_a_kinds_own() {
        #[derive(Debug, Deserialize, PartialEq, schemars::JsonSchema)]
        struct Own {
            path: Located<String>,
        }
        #[derive(Debug, Deserialize, PartialEq, schemars::JsonSchema)]
        struct Shared {
            unit: Located<String>,
            #[serde(default)]
            most: u16,
        }
        let options = |text: &str| {
            let mut sources = Sources::default();
            let tree = Tree::parse(Path::new("p.yaml"), text.to_owned(), &mut sources, &|_| None).expect("valid YAML");
            let mut problems = Vec::new();
            read::<Beside<Own, Shared>>(&tree, &mut problems).ok_or_else(|| sources.render(&problems, false))
        };
        let both = options("unit: ms\npath: a.log\nmost: 7\n").expect("valid");
        assert_eq!((both.own.path.value.as_str(), both.own.path.span.start), ("a.log", 15));
        assert_eq!((both.shared.unit.value.as_str(), both.shared.unit.span.start, both.shared.most), ("ms", 6, 7));
        let shown = options("pth: b\npath: a.log\nunit: s\nmots: 1\n").expect_err("unknown keys");
        assert!(shown.contains("did you mean `path`?") && shown.contains("did you mean `most`?"), "{shown}");
        let shown = options("path: a.log\nunit: s\nmost: x\n").expect_err("no number");
        assert!(shown.contains("p.yaml:3:7") && !shown.contains("unknown"), "{shown}");
        let shown = options("path: a.log\n").expect_err("missing");
        assert!(shown.contains("missing field `unit`"), "{shown}");
        let schema = schemars::schema_for!(Beside<Own, Shared>).to_value();
        assert_eq!(schema["required"], serde_json::json!(["path", "unit"]));
        assert!(schema["properties"]["most"].is_object() && schema["properties"]["path"].is_object(), "{schema}");
    }
}
