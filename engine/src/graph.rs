//! A plan as a drawing: Mermaid for web pages and Markdown, DOT for Graphviz.

use std::fmt::Write;

use crate::plan::{Input, Plan};
use crate::text::line;

/// The plan as a Mermaid flowchart, from left to right in the direction of data flow. Islands are frames; a thick edge goes
/// through a log.
pub fn mermaid(plan: &Plan) -> String {
    let quote =
        |text: &str| line(text).replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = String::from("flowchart LR\n");
    for (at, (title, nodes)) in islands(plan).into_iter().enumerate() {
        if !title.is_empty() {
            let _ = writeln!(out, "    subgraph i{at}[\"{title}\"]");
        }
        for index in nodes {
            let node = &plan.nodes[index];
            let (open, close) = if node.inputs.is_empty() { ("([", "])") } else { ("[", "]") };
            let _ = writeln!(out, "    n{index}{open}\"{}<br/>{}\"{close}", quote(&node.id), quote(node.kind.name));
        }
        if !title.is_empty() {
            out.push_str("    end\n");
        }
    }
    for (table, (name, _, _)) in tables(plan).enumerate() {
        let _ = writeln!(out, "    t{table}[(\"{}\")]", quote(name));
    }
    for edge in edges(plan) {
        let (from, to, label) = (edge.from, &edge.to, quote(&edge.label));
        match (edge.label.is_empty(), edge.logged) {
            (true, false) => _ = writeln!(out, "    n{from} --> {to}"),
            (false, false) => _ = writeln!(out, "    n{from} -- \"{label}\" --> {to}"),
            (true, true) => _ = writeln!(out, "    n{from} ==> {to}"),
            (false, true) => _ = writeln!(out, "    n{from} == \"{label}\" ==> {to}"),
        }
    }
    out
}

/// The plan as a Graphviz digraph.
pub fn dot(plan: &Plan) -> String {
    let quote = |text: &str| line(text).replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = format!("digraph \"{}\" {{\n    rankdir=LR;\n    node [shape=box];\n", quote(&plan.name));
    for (at, (title, nodes)) in islands(plan).into_iter().enumerate() {
        if !title.is_empty() {
            let _ = writeln!(out, "    subgraph cluster_{at} {{\n    label=\"{title}\";");
        }
        for index in nodes {
            let node = &plan.nodes[index];
            let shape = if node.inputs.is_empty() { ", style=rounded" } else { "" };
            let _ = writeln!(out, "    n{index} [label=\"{}\\n{}\"{shape}];", quote(&node.id), quote(node.kind.name));
        }
        if !title.is_empty() {
            out.push_str("    }\n");
        }
    }
    for (table, (name, _, _)) in tables(plan).enumerate() {
        let _ = writeln!(out, "    t{table} [label=\"{}\", shape=cylinder];", quote(name));
    }
    for edge in edges(plan) {
        let label = format!("label=\"{}\"", quote(&edge.label));
        let label = (!edge.label.is_empty()).then_some(label.as_str());
        let marks: Vec<&str> = label.into_iter().chain(edge.logged.then_some("penwidth=3")).collect();
        let marks = if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join(", ")) };
        let _ = writeln!(out, "    n{} -> {}{marks};", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}

struct Line {
    from: usize,
    to: String,
    label: String,
    /// Whether the rows go through a log.
    logged: bool,
}

/// The nodes by island, each with a title; without logs they are one group without.
fn islands(plan: &Plan) -> Vec<(&'static str, Vec<usize>)> {
    if !plan.is_spooled() {
        return vec![("", (0..plan.nodes.len()).collect())];
    }
    let (receiving, computing) = plan.islands();
    let receiving = receiving.into_iter().map(|island| ("up to a log", island.nodes));
    let computing = computing.into_iter().map(|island| ("island", island.nodes));
    receiving.chain(computing).filter(|(_, nodes)| !nodes.is_empty()).collect()
}

fn tables(plan: &Plan) -> impl Iterator<Item = &(String, usize, usize)> {
    plan.serve.iter().flat_map(|serve| &serve.tables)
}

fn edges(plan: &Plan) -> impl Iterator<Item = Line> {
    let between = plan.nodes.iter().enumerate().flat_map(move |(to, node)| {
        node.inputs.iter().map(move |input| Line {
            from: input.node,
            to: format!("n{to}"),
            label: label(plan, input),
            logged: input.logged,
        })
    });
    let served = tables(plan).enumerate().map(move |(table, (_, node, port))| {
        let input = Input { name: String::new(), slot: 0, node: *node, port: *port, logged: false };
        Line { from: *node, to: format!("t{table}"), label: label(plan, &input), logged: false }
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
