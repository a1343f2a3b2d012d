//! Options that several kinds share, beside a kind's own.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A kind's own options, and beside them, in the same mapping, those that it shares with other kinds. Unlike with
/// `serde(flatten)` values keep their places, and unknown options are reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside<O, S> {
    /// The kind's own.
    pub own: O,
    /// Those of several kinds. No name is among both.
    pub shared: S,
}

/// The name by which [`Beside`] asks the options deserializer for both.
pub(super) const BESIDE: &str = "__ja4_engine_beside";

impl<'de, O: Deserialize<'de>, S: Deserialize<'de>> Deserialize<'de> for Beside<O, S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both<O, S>(PhantomData<(O, S)>);
        impl<'de, O: Deserialize<'de>, S: Deserialize<'de>> Visitor<'de> for Both<O, S> {
            type Value = Beside<O, S>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let missing = || A::Error::custom("options are missing");
                let own = parts.next_element()?.ok_or_else(missing)?;
                Ok(Beside { own, shared: parts.next_element()?.ok_or_else(missing)? })
            }
        }
        deserializer.deserialize_tuple_struct(BESIDE, 2, Both(PhantomData))
    }
}

impl<O: JsonSchema, S: JsonSchema> JsonSchema for Beside<O, S> {
    fn inline_schema() -> bool {
        O::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        O::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        O::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (mut schema, shared) = (O::json_schema(generator), S::json_schema(generator));
        for part in ["properties", "required"] {
            let Some(more) = shared.get(part) else { continue };
            match (schema.get_mut(part), more) {
                (Some(serde_json::Value::Object(own)), serde_json::Value::Object(more)) => own.extend(more.clone()),
                (Some(serde_json::Value::Array(own)), serde_json::Value::Array(more)) => own.extend(more.clone()),
                _ => drop(schema.insert(part.to_owned(), more.clone())),
            }
        }
        schema
    }
}
