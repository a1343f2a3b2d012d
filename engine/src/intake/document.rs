//! Documents as bytes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads a JSON document, such as the body of a request. A key that is there twice is refused (RFC 8259, section 4, leaves open
/// which one counts): who looks at the document must see what is taken.
///
/// # Errors
/// What is wrong with it.
pub fn document(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice::<Strict>(bytes).map(|Strict(value)| value).map_err(|error| error.to_string())
}

/// A value in which no key is there twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if all.contains_key(&key) {
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        for text in [r#"{"who":"a","who":"b"}"#, r#"[{"a":{"b":1,"c":2,"\u0062":1}}]"#] {
            assert!(document(text.as_bytes()).is_err_and(|why| why.contains("twice")), "{text}");
        }
        assert_eq!(document(br#"{"a":{"a":[{"a":1}]}}"#), Ok(json!({"a": {"a": [{"a": 1}]}})));
        for wrong in ["", "{", "nul", "1 2", "\u{feff}{}", "{\"a\":\"\\ud800\"}"] {
            assert!(document(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(document(&[0xff, 0xfe]).is_err() && document("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn all_else_is_as_serde_json_reads_it(text in "[\\[\\]{}:,\"a1.e\\- ]{0,12}|-?[0-9]{1,25}(\\.[0-9]{1,3})?(e[0-9])?|\"\\PC{0,9}\"|true|null") {
            let plain = serde_json::from_str::<Value>(&text);
            match document(text.as_bytes()) {
                Ok(value) => prop_assert_eq!(plain.ok(), Some(value)),
                Err(why) => prop_assert!(plain.is_err() || why.contains("twice"), "{}", why),
            }
        }
    }
}
