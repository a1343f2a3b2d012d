//! `list`: the kinds of nodes, and the operator reference, from the options structs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::schema::written_default;
use super::{Exit, ListFormat, complain, print};
use crate::registry::{Inputs, Kind, Registry};
use crate::spec::nearest;

pub(super) fn list(name: Option<&str>, format: ListFormat, registry: &Registry) -> Exit {
    let kinds: Vec<&Kind> = match name {
        None => registry.kinds().iter().collect(),
        Some(name) => match registry.find(name) {
            Some(kind) => vec![kind],
            None => {
                let near = nearest(name, registry.kinds().iter().map(|k| k.name));
                let help = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                complain(&format!("unknown kind `{name}`{help}"));
                return Exit::Refused;
            }
        },
    };
    print(&match (format, name) {
        (ListFormat::Text, None) => table(&kinds),
        (ListFormat::Text, Some(_)) => kinds.iter().map(|kind| page(kind)).collect(),
        (ListFormat::Json, _) => format!("{:#}\n", Value::Array(kinds.iter().map(|kind| entry(kind)).collect())),
        (ListFormat::Markdown, None) => markdown(registry),
        (ListFormat::Markdown, Some(_)) => kinds.iter().map(|kind| section(kind)).collect(),
    })
}

/// The operator reference as Markdown.
pub fn markdown(registry: &Registry) -> String {
    let mut out = String::from(
        "# Operators\n\nIn the order in which data flows. Written by `ja4-engine list --format markdown` from the operators' \
         option structs.\n\nEvery node has `id`, `kind` and, unless it is a source, `from`; its options stand beside \
         them. A reference is `id` for a node's first output, or `id.port`. If several processes run the pipeline, \
         `process` says which of them a source or a sink belongs to, from 0 (the default).\n\n| kind | what it does |\n|---|---|\n",
    );
    for kind in registry.kinds() {
        let anchor: String = kind.name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
        let _ = writeln!(out, "| [`{}`](#{anchor}) | {} |", kind.name, cell(kind.summary));
    }
    for kind in registry.kinds() {
        let _ = write!(out, "\n{}", section(kind));
    }
    out.push_str(&crate::functions::markdown());
    out
}

/// One option of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    /// Its key; `outer.inner` for a key of a mapping, `outer[].inner` for a key of a list's items.
    pub name: String,
    /// What may be written.
    pub ty: String,
    /// Its default as written in YAML; `None` if there is none.
    pub default: Option<String>,
    /// Whether it must be set.
    pub required: bool,
    /// Its doc comment.
    pub description: String,
}

/// The options of a kind: those that must be set first, then by name.
pub fn options(kind: &Kind) -> Vec<OptionDoc> {
    let schema = (kind.schema)().to_value();
    let mut options = Vec::new();
    collect(&schema, &schema, "", 0, &mut options);
    options
}

/// How deep mappings in mappings are described.
const DEPTH: usize = 3;

fn collect(root: &Value, schema: &Value, prefix: &str, depth: usize, options: &mut Vec<OptionDoc>) {
    if depth >= DEPTH {
        return;
    }
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort_by_key(|name| (!required.contains(&name.as_str()), *name));
    for name in names {
        let property = &properties[name];
        let full = format!("{prefix}{name}");
        options.push(OptionDoc {
            name: full.clone(),
            ty: type_text(root, property),
            default: property.get("default").and_then(written_default).map(|value| yaml(&value)),
            required: required.contains(&name.as_str()),
            description: property.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " "),
        });
        let inner = resolve(root, property);
        if let Some(items) = inner.get("items") {
            collect(root, resolve(root, items), &format!("{full}[]."), depth + 1, options);
        } else {
            collect(root, inner, &format!("{full}."), depth + 1, options);
        }
    }
    // A struct that is flattened into this one.
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        collect(root, resolve(root, part), prefix, depth + 1, options);
    }
}

/// Follows a reference, and looks through "this or null".
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?)) {
        return target;
    }
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    let mut present =
        alternatives.into_iter().flatten().filter(|s| s.get("type").and_then(Value::as_str) != Some("null"));
    match (present.next(), present.next()) {
        (Some(only), None) => resolve(root, only),
        _ => schema,
    }
}

fn type_text(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(value) = schema.get("const") {
        return format!("`{}`", yaml(value));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return alternatives(values.iter().filter(|v| !v.is_null()).map(|v| format!("`{}`", yaml(v))));
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(parts) = schema.get(key).and_then(Value::as_array) {
            return alternatives(parts.iter().map(|part| type_text(root, part)));
        }
    }
    let name = match schema.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|n| *n != "null").unwrap_or("null"),
        _ => "",
    };
    match name {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "number" => "number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "null" => "nothing".to_owned(),
        "array" => match schema.get("items") {
            Some(items) => format!("list of {}", type_text(root, items)),
            None => "list".to_owned(),
        },
        "object" => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => format!("mapping of names to {}", type_text(root, values)),
            _ => "mapping".to_owned(),
        },
        _ => "any value".to_owned(),
    }
}

fn alternatives(parts: impl Iterator<Item = String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for part in parts {
        if !seen.contains(&part) {
            seen.push(part);
        }
    }
    seen.join(" or ")
}

/// A value in YAML's flow style; JSON is YAML, and plain text needs no quotes here.
fn yaml(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn inputs(inputs: Inputs) -> String {
    match inputs {
        Inputs::None => "none: a source".to_owned(),
        Inputs::One => "one".to_owned(),
        Inputs::Named(ports) => ports.join(", "),
        Inputs::Any => "one, or several under names of your own".to_owned(),
    }
}

fn table(kinds: &[&Kind]) -> String {
    let width = kinds.iter().map(|k| k.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for kind in kinds {
        let ports: Vec<&str> = kind.outputs.iter().map(|p| p.name).collect();
        let ports = if ports.is_empty() { "nothing".to_owned() } else { ports.join(", ") };
        let _ = writeln!(out, "{:width$}  {}", kind.name, kind.summary);
        let _ = writeln!(out, "{:width$}  in: {}; out: {ports}", "", inputs(kind.inputs));
    }
    out
}

fn page(kind: &Kind) -> String {
    let mut out = format!("{}: {}\n\ninputs: {}\n", kind.name, kind.summary, inputs(kind.inputs));
    for port in kind.outputs {
        let _ = writeln!(out, "output {}: {}", port.name, port.summary);
    }
    for option in options(kind) {
        let default = match (&option.default, option.required) {
            (Some(default), _) => format!("; default {default}"),
            (None, true) => "; must be set".to_owned(),
            (None, false) => String::new(),
        };
        let _ =
            writeln!(out, "\n{} ({}{default})\n    {}", option.name, option.ty.replace('`', ""), option.description);
    }
    out
}

fn section(kind: &Kind) -> String {
    let mut out = format!("## {}\n\n{}\n\nInputs: {}.\n", kind.name, kind.summary, inputs(kind.inputs));
    if !kind.outputs.is_empty() {
        out.push_str("\n| output | what leaves there |\n|---|---|\n");
        for port in kind.outputs {
            let _ = writeln!(out, "| `{}` | {} |", port.name, cell(port.summary));
        }
    }
    let options = options(kind);
    if !options.is_empty() {
        out.push_str("\n| option | value | default | meaning |\n|---|---|---|---|\n");
        for option in options {
            let default = match (&option.default, option.required) {
                (Some(default), _) => format!("`{}`", cell(default)),
                (None, true) => "must be set".to_owned(),
                (None, false) => String::new(),
            };
            let (ty, description) = (cell(&option.ty), cell(&option.description));
            let _ = writeln!(out, "| `{}` | {ty} | {default} | {description} |", option.name);
        }
    }
    out
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn entry(kind: &Kind) -> Value {
    let inputs = match kind.inputs {
        Inputs::None => json!([]),
        Inputs::One => json!(["from"]),
        Inputs::Named(ports) => json!(ports),
        Inputs::Any => json!("any"),
    };
    let outputs: Vec<Value> = kind.outputs.iter().map(|p| json!({ "name": p.name, "summary": p.summary })).collect();
    let options: Vec<Value> = options(kind)
        .into_iter()
        .map(|o| {
            json!({ "name": o.name, "type": o.ty.replace('`', ""), "default": o.default, "required": o.required, "description": o.description })
        })
        .collect();
    json!({ "kind": kind.name, "summary": kind.summary, "inputs": inputs, "outputs": outputs, "options": options })
}
