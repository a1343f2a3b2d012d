//! What is generated from the options structs: the schema for editors and the operator reference.

use command_line::{list, schema};
use serde_json::Value;

use crate::kinds;

fn document() -> Value {
    schema::document(&kinds::registry())
}

fn node<'a>(document: &'a Value, kind: &str) -> &'a Value {
    let nodes = document["properties"]["nodes"]["items"]["oneOf"].as_array().unwrap();
    nodes.iter().find(|n| n["properties"]["kind"]["const"] == kind).unwrap()
}

#[test]
fn every_reference_leads_to_a_definition() {
    fn walk(root: &Value, value: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    assert!(root.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                }
                map.values().for_each(|v| walk(root, v));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(root, v)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
    assert_eq!(document["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(document["$defs"]["test.numbers.Breaks"].is_object());
}

#[test]
fn a_node_has_its_options_beside_id_kind_and_from() {
    let document = document();
    let numbers = node(&document, "test.numbers");
    assert_eq!(numbers["additionalProperties"], false);
    assert_eq!(numbers["properties"]["rows"]["description"], "How many numbers.");
    assert_eq!(numbers["properties"]["lateness"]["default"], "1s");
    assert!(numbers["properties"].get("from").is_none(), "a source has no input");
    let required = |kind: &str| -> Vec<String> {
        node(&document, kind)["required"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(required("test.numbers"), ["rows", "id", "kind"]);
    assert_eq!(required("test.keep"), ["where", "from", "id", "kind"]);
    assert_eq!(node(&document, "test.both")["properties"]["from"]["required"], serde_json::json!(["left", "right"]));
    assert_eq!(node(&document, "test.both")["properties"]["from"]["additionalProperties"], false);
}

#[test]
fn sections_are_closed_and_described() {
    let document = document();
    assert_eq!(document["additionalProperties"], false);
    assert_eq!(document["required"], serde_json::json!(["name", "nodes"]));
    for key in ["name", "tick", "data_dir", "nodes", "serve"] {
        let section = &document["properties"][key];
        assert!(section["description"].is_string(), "{key}: {section}");
    }
    assert_eq!(document["properties"]["tick"]["default"], "100ms");
    assert_eq!(document["properties"]["serve"]["additionalProperties"], false);
}

#[test]
fn options_are_listed_with_type_default_and_meaning() {
    let registry = kinds::registry();
    let options = list::options(registry.find("test.numbers").unwrap());
    let option = |name: &str| options.iter().find(|o| o.name == name).unwrap();
    assert_eq!(options[0].name, "rows", "what must be set comes first");
    assert!(option("rows").required && !option("batch").required);
    assert_eq!((option("batch").ty.as_str(), option("batch").default.as_deref()), ("whole number", Some("10")));
    assert_eq!(option("lateness").default.as_deref(), Some("1s"));
    assert_eq!(option("breaks").ty, "`plainly` or `for_want_of_rights`");
    assert_eq!((option("host").ty.as_str(), option("host").default.as_deref()), ("text", None));
}

#[test]
fn the_reference_covers_every_kind_and_port() {
    let text = list::markdown(&kinds::registry());
    for part in [
        "## test.numbers",
        "| `late` | Nothing. |",
        "| `rows` | whole number | must be set | How many numbers. |",
        "Inputs: left, right.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}
