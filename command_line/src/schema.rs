//! `schema`: one JSON Schema (draft 2020-12) for whole pipeline files, put together from the options structs.

use serde_json::{Map, Value, json};

use engine::contract::{Inputs, Kind, Registry};
use engine::spec::Pipeline;

/// What an id looks like; as the reader of pipelines has it.
const ID: &str = "^[A-Za-z0-9_-]+$";
/// A reference to a node's output: `id` or `id.port`.
const REFERENCE: &str = "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_]+)?$";
/// Text that holds a variable.
const VARIABLE: &str = "\\$\\{.+\\}";

/// The schema as text.
pub fn text(registry: &Registry) -> String {
    format!("{:#}\n", document(registry))
}

/// The schema.
pub fn document(registry: &Registry) -> Value {
    let mut definitions = Map::new();
    let [settings, serve, spool] = Pipeline::schemas();
    let mut root = adopt("settings", settings.to_value(), &mut definitions);
    let mut serve = adopt("serve", serve.to_value(), &mut definitions);
    serve.insert("additionalProperties".into(), false.into());
    let mut spool = adopt("spool", spool.to_value(), &mut definitions);
    spool.insert("additionalProperties".into(), false.into());
    let nodes: Vec<Value> = registry.kinds().iter().map(|kind| node(kind, &mut definitions)).collect();
    property(&mut root, "serve", Value::Object(serve));
    property(&mut root, "spool", json!({ "anyOf": [Value::Object(spool), { "const": "off" }] }));
    let nodes = json!({
        "description": "The nodes of the dataflow, in any order.",
        "type": "array",
        "minItems": 1,
        "items": { "oneOf": nodes },
    });
    property(&mut root, "nodes", nodes);
    require(&mut root, &["nodes"]);
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "ja4-engine pipeline".into());
    root.insert("additionalProperties".into(), false.into());
    root.insert("$defs".into(), Value::Object(definitions));
    Value::Object(root)
}

/// The schema of a node of one kind: id, kind, from, and the kind's own options beside them.
fn node(kind: &Kind, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = adopt(kind.name, (kind.schema)().to_value(), definitions);
    schema.insert("title".into(), kind.name.into());
    schema.insert("description".into(), kind.summary.into());
    schema.insert("type".into(), "object".into());
    let id =
        json!({ "type": "string", "pattern": ID, "description": "The name by which other nodes refer to this one." });
    property(&mut schema, "id", id);
    property(&mut schema, "kind", json!({ "const": kind.name, "description": kind.summary }));
    if let Some(from) = from(kind.inputs) {
        property(&mut schema, "from", from);
        require(&mut schema, &["from"]);
    }
    if kind.inputs == Inputs::None || kind.outputs.is_empty() {
        property(&mut schema, "process", process());
        property(&mut schema, "durable", durable());
    }
    require(&mut schema, &["id", "kind"]);
    // Options that come in variants are alternatives beside `properties`, which `additionalProperties` does not see.
    let variants = ["oneOf", "anyOf", "allOf", "$ref"].iter().any(|key| schema.contains_key(*key));
    let closed = if variants { "unevaluatedProperties" } else { "additionalProperties" };
    schema.remove("additionalProperties");
    schema.insert(closed.into(), false.into());
    Value::Object(schema)
}

fn durable() -> Value {
    json!({
        "description": "Whether the node's rows are kept in a log, from which those behind it start; `{ retain: 7d }` keeps more.",
        "anyOf": [
            { "type": "boolean" },
            {
                "type": "object",
                "properties": { "retain": { "type": "string" } },
                "required": ["retain"],
                "additionalProperties": false,
            },
        ],
    })
}

fn process() -> Value {
    json!({
        "description": "The process that reads or writes, if several run the pipeline.",
        "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": VARIABLE }],
        "default": 0,
    })
}

fn from(inputs: Inputs) -> Option<Value> {
    let single = json!({ "type": "string", "pattern": REFERENCE });
    let several = json!({ "type": "array", "items": single, "minItems": 1, "uniqueItems": true });
    let reference = json!({ "anyOf": [single, several] });
    let one = json!({
        "description": "Where the rows come from: `id` or `id.port`, or a list of them with equal columns.",
        "anyOf": [single, several],
    });
    match inputs {
        Inputs::None => None,
        Inputs::One => Some(one),
        Inputs::Named(ports) => {
            let properties: Map<String, Value> = ports.iter().map(|port| ((*port).into(), reference.clone())).collect();
            Some(json!({
                "description": "Where the rows come from, by input.",
                "type": "object",
                "properties": properties,
                "required": ports,
                "additionalProperties": false,
            }))
        }
        Inputs::Any => Some(json!({
            "description": "Where the rows come from: `id`, `id.port` or a list of them, or several under names of your own.",
            "anyOf": [single, several, { "type": "object", "minProperties": 1, "additionalProperties": reference }],
        })),
    }
}

/// Takes a schema in: its definitions move to the document's under `owner.name`, so that two kinds can use one name.
fn adopt(owner: &str, schema: Value, definitions: &mut Map<String, Value>) -> Map<String, Value> {
    let Value::Object(mut schema) = schema else { return Map::new() };
    schema.remove("$schema");
    if let Some(Value::Object(own)) = schema.remove("$defs") {
        for (name, mut definition) in own {
            tidy(owner, &mut definition);
            definitions.insert(format!("{owner}.{name}"), definition);
        }
    }
    let mut schema = Value::Object(schema);
    tidy(owner, &mut schema);
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// Points references to the document's definitions, writes durations as a user does, closes objects, drops formats that
/// JSON Schema does not know, and lets a variable stand where a number or a truth value is wanted.
fn tidy(owner: &str, schema: &mut Value) {
    let Value::Object(map) = schema else {
        if let Value::Array(items) = schema {
            items.iter_mut().for_each(|item| tidy(owner, item));
        }
        return;
    };
    if let Some(Value::String(reference)) = map.get_mut("$ref")
        && let Some(name) = reference.strip_prefix("#/$defs/")
    {
        *reference = format!("#/$defs/{owner}.{name}");
    }
    if let Some(default) = map.get_mut("default") {
        match written_default(default) {
            Some(written) => *default = written,
            None => _ = map.remove("default"),
        }
    }
    map.remove("format");
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("properties" | "patternProperties", Value::Object(properties)) => {
                properties.values_mut().for_each(|property| tidy(owner, property));
            }
            ("items" | "additionalProperties" | "oneOf" | "anyOf" | "allOf" | "prefixItems", value) => {
                tidy(owner, value)
            }
            _ => {}
        }
    }
    if map.contains_key("properties") && !map.contains_key("additionalProperties") {
        map.insert("additionalProperties".into(), false.into());
    }
    let types: Vec<&str> = match map.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if types.iter().any(|name| ["integer", "number", "boolean"].contains(name)) {
        let mut strict = Map::new();
        for key in ["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
            strict.extend(map.remove(key).map(|value| (key.to_owned(), value)));
        }
        map.insert("anyOf".into(), json!([strict, { "type": "string", "pattern": VARIABLE }]));
    }
}

/// A default as a user would write it: a duration with its unit; nothing if the default is that there is no value.
pub(crate) fn written_default(default: &Value) -> Option<Value> {
    let duration = || {
        let parts = default.as_object().filter(|parts| parts.len() == 2)?;
        let (seconds, nanos) = (parts.get("secs")?.as_u64()?, parts.get("nanos")?.as_u64()?);
        let duration = std::time::Duration::new(seconds, u32::try_from(nanos).ok()?);
        Some(Value::String(humantime::format_duration(duration).to_string()))
    };
    match default {
        Value::Null => None,
        other => Some(duration().unwrap_or_else(|| other.clone())),
    }
}

fn property(schema: &mut Map<String, Value>, name: &str, value: Value) {
    if let Value::Object(properties) = schema.entry("properties").or_insert_with(|| json!({})) {
        properties.insert(name.to_owned(), value);
    }
}

fn require(map: &mut Map<String, Value>, names: &[&str]) {
    if let Value::Array(required) = map.entry("required").or_insert_with(|| json!([])) {
        required.extend(names.iter().map(|name| Value::from(*name)));
    }
}
