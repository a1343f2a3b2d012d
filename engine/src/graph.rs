//! A plan as a drawing: Mermaid for web pages and Markdown, DOT for Graphviz.

use std::fmt::Write;

use crate::plan::{Input, Plan};

/// The plan as a Mermaid flowchart, from left to right in the direction of data flow.
pub fn mermaid(plan: &Plan) -> String {
    let quote =
        |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = String::from("flowchart LR\n");
    for (index, node) in plan.nodes.iter().enumerate() {
        let (open, close) = if node.inputs.is_empty() { ("([", "])") } else { ("[", "]") };
        let _ = writeln!(out, "    n{index}{open}\"{}<br/>{}\"{close}", quote(&node.id), quote(node.kind.name));
    }
    for (table, (name, _, _)) in tables(plan).enumerate() {
        let _ = writeln!(out, "    t{table}[(\"{}\")]", quote(name));
    }
    for edge in edges(plan) {
        match edge.label.is_empty() {
            true => _ = writeln!(out, "    n{} --> {}", edge.from, edge.to),
            false => _ = writeln!(out, "    n{} -- \"{}\" --> {}", edge.from, quote(&edge.label), edge.to),
        }
    }
    out
}

/// The plan as a Graphviz digraph.
pub fn dot(plan: &Plan) -> String {
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    let mut out = format!("digraph \"{}\" {{\n    rankdir=LR;\n    node [shape=box];\n", quote(&plan.name));
    for (index, node) in plan.nodes.iter().enumerate() {
        let shape = if node.inputs.is_empty() { ", style=rounded" } else { "" };
        let _ = writeln!(out, "    n{index} [label=\"{}\\n{}\"{shape}];", quote(&node.id), quote(node.kind.name));
    }
    for (table, (name, _, _)) in tables(plan).enumerate() {
        let _ = writeln!(out, "    t{table} [label=\"{}\", shape=cylinder];", quote(name));
    }
    for edge in edges(plan) {
        let label = if edge.label.is_empty() { String::new() } else { format!(" [label=\"{}\"]", quote(&edge.label)) };
        let _ = writeln!(out, "    n{} -> {}{label};", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}

struct Line {
    from: usize,
    to: String,
    label: String,
}

fn tables(plan: &Plan) -> impl Iterator<Item = &(String, usize, usize)> {
    plan.serve.iter().flat_map(|serve| &serve.tables)
}

fn edges(plan: &Plan) -> impl Iterator<Item = Line> {
    let between = plan.nodes.iter().enumerate().flat_map(move |(to, node)| {
        node.inputs.iter().map(move |input| Line { from: input.node, to: format!("n{to}"), label: label(plan, input) })
    });
    let served = tables(plan).enumerate().map(move |(table, (_, node, port))| {
        let input = Input { name: String::new(), slot: 0, node: *node, port: *port, logged: false };
        Line { from: *node, to: format!("t{table}"), label: label(plan, &input) }
    });
    between.chain(served)
}

/// The output port if it is not the first, and the input's name if it has one.
fn label(plan: &Plan, input: &Input) -> String {
    let port = if input.port == 0 { "" } else { plan.nodes[input.node].kind.outputs[input.port].name };
    match (port, input.name.as_str()) {
        (port, "") => port.to_owned(),
        ("", name) => name.to_owned(),
        (port, name) => format!("{port} → {name}"),
    }
}
