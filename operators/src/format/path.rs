//! Where in a line's object a value stands.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// The most steps of a path; it bounds how deep a line is looked into.
const MAX_STEPS: usize = 16;

/// The number that stands for every element of a list, one after the other.
pub(super) const EACH: usize = usize::MAX;

/// A step from an object or a list to one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the member of an object with this key.
    Key(String),
    /// To an element of a list, from 0. The greatest number is every element: of columns that take several texts.
    Index(usize),
}

/// The way from a line's object to a value. It begins with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// A key of the line's object, whatever characters it has.
    pub fn key(key: impl Into<String>) -> Self {
        Self(vec![Step::Key(key.into())])
    }

    /// The keys of objects within each other; `each` if the last has a list, all of whose elements are taken.
    pub(super) fn keys(keys: &[&str], each: bool) -> Self {
        let steps = keys.iter().map(|key| Step::Key((*key).to_owned()));
        Self(steps.chain(each.then_some(Step::Index(EACH))).collect())
    }

    /// Whether it leads to every element of a list.
    pub(super) fn takes_each(&self) -> bool {
        self.0.last() == Some(&Step::Index(EACH))
    }

    /// The steps, at least one.
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    fn new(steps: Vec<Step>) -> Result<Self, String> {
        if steps.contains(&Step::Index(EACH)) {
            return Err(format!("the number of an element is less than {EACH}"));
        }
        match steps.first() {
            Some(Step::Key(_)) if steps.len() <= MAX_STEPS => Ok(Self(steps)),
            Some(Step::Key(_)) => Err(format!("a key has at most {MAX_STEPS} steps")),
            _ => Err("a line is an object: its key must begin with a name".to_owned()),
        }
    }

    /// Reads `request.headers.User-Agent[0]`.
    fn parse(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "`{text}` is not a key such as request.headers.Host[0]; one with dots or brackets is written as a list: [\"a.b\"]"
            )
        };
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
            if name.is_empty() {
                return Err(fault());
            }
            steps.push(Step::Key(name.to_owned()));
            let mut rest = indices;
            while !rest.is_empty() {
                let (index, behind) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(fault)?;
                if index.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(fault());
                }
                steps.push(Step::Index(index.parse().map_err(|_| fault())?));
                rest = behind;
            }
        }
        Self::new(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(EACH) => f.write_str("[*]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Step;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key, or the number of an element from 0")
            }
            fn visit_str<E>(self, key: &str) -> Result<Step, E> {
                Ok(Step::Key(key.to_owned()))
            }
            fn visit_u64<E: Error>(self, index: u64) -> Result<Step, E> {
                usize::try_from(index).map(Step::Index).map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, index: i64) -> Result<Step, E> {
                usize::try_from(index).map(Step::Index).map_err(|_| E::custom("an element's number is 0 or more"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Path;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key such as request.headers.Host[0], or a list of its steps")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Path, E> {
                Path::parse(text).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Path, A::Error> {
                let mut steps = Vec::new();
                while let Some(step) = list.next_element()? {
                    steps.push(step);
                }
                Path::new(steps).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Path {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] } },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_and_shown_alike() {
        for text in ["host", "request.headers.User-Agent[0]", "a[12][0].b", "a b.ü"] {
            assert_eq!(Path::parse(text).map(|path| path.to_string()), Ok(text.to_owned()));
        }
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(Path::parse("a.b[1]"), Ok(Path(vec![key("a"), key("b"), Step::Index(1)])));
        for text in ["", ".", "a.", ".a", "a..b", "[0]", "a[", "a[]", "a[x]", "a[-1]", "a[+1]", "a[0]b"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&["a"; 17].join(".")).is_err());
    }
}
