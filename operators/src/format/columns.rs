//! Columns that a user declares for lines of another program.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::schema::Kind;

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
    /// RFC 3339 text, or nanoseconds since 1970.
    Time,
    /// An IP address.
    Ip,
}

impl Type {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Text => Kind::Text,
            Self::Integer => Kind::I64,
            Self::Float => Kind::F64,
            Self::Boolean => Kind::Bool,
            Self::Time => Kind::Time,
            Self::Ip => Kind::Ip,
        }
    }
}

/// Declared columns in the order as written: name, which is also the key in a line, and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(pub Vec<(String, Type)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of column names to types")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns: Vec<(String, Type)> = Vec::new();
                while let Some((name, ty)) = map.next_entry::<String, Type>()? {
                    if columns.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("the column `{name}` is declared twice")));
                    }
                    columns.push((name, ty));
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
        std::collections::BTreeMap::<String, Type>::json_schema(generator)
    }
}
