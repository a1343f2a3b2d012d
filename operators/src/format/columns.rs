//! Columns that a user declares for lines of another program.

use std::borrow::Cow;
use std::fmt;

use engine::spec::nearest;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::path::Path;
use super::schema::Kind;
use super::time::Unit;

/// The type of a declared column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Float,
    /// True or false.
    Boolean,
    /// A date with its zone, or a number of `time_unit` since 1970.
    Time,
    /// An IP address.
    Ip,
}

impl Type {
    /// By their names in a pipeline.
    const ALL: [(&str, Self); 6] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("float", Self::Float),
        ("boolean", Self::Boolean),
        ("time", Self::Time),
        ("ip", Self::Ip),
    ];

    /// What it is read as; numbers that are times are of `unit`.
    pub(super) fn kind(self, unit: Unit) -> Kind {
        match self {
            Self::Text => Kind::Text,
            Self::Integer => Kind::I64,
            Self::Float => Kind::F64,
            Self::Boolean => Kind::Bool,
            Self::Time => Kind::Time(unit),
            Self::Ip => Kind::Ip,
        }
    }
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// What it holds.
    #[serde(rename = "type")]
    pub ty: Type,
    /// Where its value stands in a line, such as `request.headers.User-Agent[0]`: names of keys, and numbers of a list's
    /// elements from 0. A list of the same steps if a key has dots or brackets itself: `["http.method"]`. Default: the
    /// key that is named as the column.
    #[serde(default)]
    pub key: Option<Path>,
    /// What a number that is a time counts since 1970. Default: the source's `time_unit`.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Texts that stand for no value; the column is null. Default: none for `text`, `["-", ""]` for the others, and for
    /// `ip` `unix:` and `unknown` as well.
    #[serde(default)]
    pub absent: Option<Vec<String>>,
}

impl From<Type> for Declared {
    fn from(ty: Type) -> Self {
        Self { ty, key: None, unit: None, absent: None }
    }
}

/// A column as it is written: its type, or all of it.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its JSON Schema is used: reading it would lose the places of faults")]
enum Written {
    Type(Type),
    Declared(Declared),
}

/// Reads [`Written`].
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Declared;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's type, or a mapping with `type` and `key`")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<Declared, E> {
        let names = || Type::ALL.iter().map(|(name, _)| *name);
        match Type::ALL.iter().find(|(known, _)| *known == name) {
            Some((_, ty)) => Ok((*ty).into()),
            None => Err(E::custom(match nearest(name, names()) {
                Some(near) => format!("`{name}` is no type of a column; did you mean `{near}`?"),
                None => format!("`{name}` is no type of a column: {}", names().collect::<Vec<_>>().join(", ")),
            })),
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Declared, A::Error> {
        Declared::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> DeserializeSeed<'de> for Either {
    type Value = Declared;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Declared, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Declared columns by name, in the order as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(pub Vec<(String, Declared)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of column names to types")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns: Vec<(String, Declared)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if columns.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("the column `{name}` is declared twice")));
                    }
                    columns.push((name, map.next_value_seed(Either)?));
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl JsonSchema for Columns {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Columns".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        std::collections::BTreeMap::<String, Written>::json_schema(generator)
    }
}
