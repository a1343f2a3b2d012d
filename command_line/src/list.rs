//! `list`: the kinds of nodes, and the operator reference, from the options structs.

use std::fmt::Write;

use engine::contract::{Inputs, Kind, Registry, Topic};
use engine::spec::{Pipeline, nearest};
use serde_json::{Map, Value, json};

use crate::schema::written_default;
use crate::{Exit, ListFormat, complain, print};

pub(crate) fn list(name: Option<&str>, format: ListFormat, registry: &Registry) -> Exit {
    let topics = topics(registry);
    let Some(name) = name else {
        return print(&match format {
            ListFormat::Text => table(registry.kinds(), &topics),
            ListFormat::Json => format!("{:#}\n", Value::Array(registry.kinds().iter().map(entry).collect())),
            ListFormat::Markdown => markdown(registry),
        });
    };
    if let Some(kind) = registry.find(name) {
        return print(&match format {
            ListFormat::Text => page(kind),
            ListFormat::Json => format!("{:#}\n", Value::Array(vec![entry(kind)])),
            ListFormat::Markdown => section(kind),
        });
    }
    if let Some(topic) = topics.iter().find(|topic| topic.name == name || topic.also.contains(&name)) {
        return print(&match format {
            ListFormat::Text => topic_page(topic),
            ListFormat::Json => format!("{:#}\n", Value::Array(vec![topic_entry(topic)])),
            ListFormat::Markdown => topic_section(topic),
        });
    }
    let known = || registry.kinds().iter().map(|k| k.name).chain(topics.iter().map(|topic| topic.name));
    let help = match nearest(name, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
    };
    complain(&format!("no kind of node and no topic is called `{name}`; {help}"));
    Exit::Refused
}

/// What there is to tell besides the kinds: the sections of a pipeline, and what the operators' crate adds.
fn topics(registry: &Registry) -> Vec<Topic> {
    let nothing: fn() -> String = String::new;
    let section = |name, also, summary, schema| Topic { name, also, summary, text: nothing, schema: Some(schema) };
    let settings: fn() -> schemars::Schema = || Pipeline::schemas()[0].clone();
    let serve: fn() -> schemars::Schema = || Pipeline::schemas()[1].clone();
    let spool: fn() -> schemars::Schema = || Pipeline::schemas()[2].clone();
    let mut topics = vec![
        Topic {
            text: || {
                "Sections beside these: `nodes`, a list of nodes; `serve` and `spool`.\n\n`from` names the node whose rows are read, \
                 by `id` or `id.port`. A list, `from: [a, b]`, makes one input of the rows of several nodes with equal columns; so it \
                 does under a name, `from: { hello: [h1, h2], request: r }`. Rows of the same `time` are in the order of their `seq`, \
                 then in that of the list: the input's `seq` is `seq * n + i` for the row of the `i`th of `n` nodes, counted from 0. \
                 Relations cannot be listed, nor can packets.\n\nDurations have a unit: `500ms`, `10s`, `5m` or `5min`, `1h 30m`, `7d`; \
                 `M` is refused, because it may mean minutes or months.\n\n`${NAME}` is an environment variable, `${NAME:-default}` one \
                 with a default, which may have variables again; `$$` is a dollar sign.\n"
                    .to_owned()
            },
            ..section("pipeline", &["tick", "name", "data_dir", "nodes", "from"], "Settings of a pipeline", settings)
        },
        section(
            "serve",
            &["tables", "hosts", "hot_rows", "listen"],
            "The section `serve`: tables and SQL over HTTP",
            serve,
        ),
        section(
            "spool",
            &["commit", "retain", "when_full"],
            "The section `spool`: what live sources receive is kept on disk, so that a run goes on where it was; `spool: off` does without",
            spool,
        ),
    ];
    topics.extend_from_slice(registry.topics());
    topics
}

fn topic_page(topic: &Topic) -> String {
    let text = (topic.text)().replace('`', "");
    let mut out = format!("{}: {}\n", topic.name, topic.summary.replace('`', ""));
    if !text.is_empty() {
        let _ = write!(out, "\n{text}");
    }
    topic_options(topic).iter().for_each(|option| out.push_str(&option_text(option)));
    out
}

fn topic_section(topic: &Topic) -> String {
    let mut out = format!("## {}\n\n{}.\n", topic.name, topic.summary);
    let text = (topic.text)();
    if !text.is_empty() {
        let _ = write!(out, "\n{}\n", text.trim_end());
    }
    out.push_str(&option_table(&topic_options(topic)));
    out
}

fn topic_entry(topic: &Topic) -> Value {
    let options: Vec<Value> = topic_options(topic).iter().map(option_entry).collect();
    json!({ "topic": topic.name, "summary": topic.summary, "text": (topic.text)(), "options": options })
}

fn topic_options(topic: &Topic) -> Vec<OptionDoc> {
    topic.schema.map(|schema| options_of(&schema().to_value())).unwrap_or_default()
}

/// The operator reference as Markdown.
pub fn markdown(registry: &Registry) -> String {
    let mut out = String::from(
        "# Operators\n\nIn the order in which data flows. Written by `ja4-engine list --format markdown` from the operators' \
         option structs.\n\nEvery node has `id`, `kind` and, unless it is a source, `from`; its options stand beside \
         them. A reference is `id` for a node's first output, or `id.port`; a list of them, `from: [a, b]`, makes one input of \
         several nodes with equal columns. If several processes run the pipeline, \
         `process` says which of them a source or a sink belongs to, from 0 (the default). \
         `durable: true`, or `durable: { retain: 7d }`, keeps the rows of a node in a log: those that stay.\n\n| kind | what it does |\n|---|---|\n",
    );
    for kind in registry.kinds() {
        let anchor: String = kind.name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
        let _ = writeln!(out, "| [`{}`](#{anchor}) | {} |", kind.name, cell(kind.summary));
    }
    let topics = topics(registry);
    out.push_str("\n| besides | |\n|---|---|\n");
    for topic in &topics {
        let _ = writeln!(out, "| [`{0}`](#{0}) | {1} |", topic.name, cell(topic.summary));
    }
    for kind in registry.kinds() {
        let _ = write!(out, "\n{}", section(kind));
    }
    for topic in &topics {
        let _ = write!(out, "\n{}", topic_section(topic));
    }
    out.push_str(&engine::functions::markdown());
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
    options_of(&(kind.schema)().to_value())
}

fn options_of(schema: &Value) -> Vec<OptionDoc> {
    let mut options = Vec::new();
    collect(schema, schema, "", 0, &mut options);
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

fn table(kinds: &[Kind], topics: &[Topic]) -> String {
    let width = kinds.iter().map(|k| k.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for kind in kinds {
        let ports: Vec<&str> = kind.outputs.iter().map(|p| p.name).collect();
        let ports = if ports.is_empty() { "nothing".to_owned() } else { ports.join(", ") };
        let _ = writeln!(out, "{:width$}  {}", kind.name, kind.summary);
        let _ = writeln!(out, "{:width$}  in: {}; out: {ports}", "", inputs(kind.inputs));
    }
    out.push_str("\nBesides:\n");
    for topic in topics {
        let _ = writeln!(out, "{:width$}  {}", topic.name, topic.summary.replace('`', ""));
    }
    out
}

/// Which columns come and go, in words; empty for what a kind does not have.
fn columns(kind: &Kind) -> [Option<&'static str>; 2] {
    [(kind.inputs != Inputs::None).then_some(kind.needs), (!kind.outputs.is_empty()).then_some(kind.gives)]
}

fn page(kind: &Kind) -> String {
    let mut out = format!("{}: {}\n\ninputs: {}\n", kind.name, kind.summary, inputs(kind.inputs));
    for port in kind.outputs {
        let _ = writeln!(out, "output {}: {}", port.name, port.summary);
    }
    for (what, columns) in ["columns in", "columns out"].into_iter().zip(columns(kind)) {
        let _ = columns.map(|columns| writeln!(out, "{what}: {}", columns.replace('`', "")));
    }
    options(kind).iter().for_each(|option| out.push_str(&option_text(option)));
    out
}

fn option_text(option: &OptionDoc) -> String {
    let default = match (&option.default, option.required) {
        (Some(default), _) => format!("; default {default}"),
        (None, true) => "; must be set".to_owned(),
        (None, false) => String::new(),
    };
    format!("\n{} ({}{default})\n    {}\n", option.name, option.ty.replace('`', ""), option.description)
}

fn section(kind: &Kind) -> String {
    let mut out = format!("## {}\n\n{}\n\nInputs: {}.\n", kind.name, kind.summary, inputs(kind.inputs));
    if !kind.outputs.is_empty() {
        out.push_str("\n| output | what leaves there |\n|---|---|\n");
        for port in kind.outputs {
            let _ = writeln!(out, "| `{}` | {} |", port.name, cell(port.summary));
        }
    }
    let said: Vec<String> = ["Columns in", "Columns out"]
        .into_iter()
        .zip(columns(kind))
        .filter_map(|(what, columns)| Some(format!("{what}: {}.", columns?)))
        .collect();
    if !said.is_empty() {
        let _ = writeln!(out, "\n{}", said.join(" "));
    }
    out.push_str(&option_table(&options(kind)));
    out
}

fn option_table(options: &[OptionDoc]) -> String {
    let mut out = String::new();
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
    let options: Vec<Value> = options(kind).iter().map(option_entry).collect();
    let [needs, gives] = columns(kind);
    json!({
        "kind": kind.name,
        "summary": kind.summary,
        "inputs": inputs,
        "outputs": outputs,
        "columns_in": needs,
        "columns_out": gives,
        "options": options,
    })
}

fn option_entry(option: &OptionDoc) -> Value {
    json!({
        "name": option.name,
        "type": option.ty.replace('`', ""),
        "default": option.default,
        "required": option.required,
        "description": option.description,
    })
}
