//! `plan-diff`: what differs between two pipelines, and what becomes of a running one.

use std::fmt::Write;
use std::path::Path;

use engine::contract::Registry;
use engine::plan::diff::{Diff, Fate, State, rebuild};
use engine::spec::Change;
use engine::text::{cell, line as plain};

use crate::{Exit, Overrides, ReportFormat, load, load_with, print, print_json};

/// Longer values are cut in the middle of a line for people.
const SHOWN: usize = 60;

pub(crate) fn plan_diff(
    old: &Path,
    new: &Path,
    format: ReportFormat,
    overrides: &Overrides,
    registry: &Registry,
) -> Exit {
    // Both are checked before either is refused: one run shows what is wrong with both.
    let (old, new) = (load(old, registry), load_with(new, overrides, registry));
    let (Ok(old), Ok(new)) = (old, new) else { return Exit::Refused };
    let diff = rebuild(&old, &new);
    match format {
        ReportFormat::Text => print(&text(&diff)),
        ReportFormat::Json => print_json(&format!("{}\n", json(&diff))),
    }
}

fn json(diff: &Diff) -> serde_json::Value {
    serde_json::json!({
        "nodes": diff.nodes,
        "sections": diff.sections,
        "kept": diff.ids(Fate::Kept),
        "started": diff.ids(Fate::Started),
        "rebuilt": diff.ids(Fate::Rebuilt),
        "stopped": diff.ids(Fate::Stopped),
        "windows": diff.windows,
        "look_back": diff.look_back,
        "restart": diff.restart,
    })
}

fn text(diff: &Diff) -> String {
    let mut out = format!("{}\n", diff.summary());
    if diff.is_empty() {
        return out;
    }
    let width = diff.nodes.iter().map(|node| node.id.len()).max().unwrap_or_default().min(40);
    for node in &diff.nodes {
        let (id, kind) = (&node.id, node.kind);
        match &node.state {
            State::Unchanged => {}
            State::Added => _ = writeln!(out, "  + {id:width$}  added ({kind})"),
            State::Removed => _ = writeln!(out, "  - {id:width$}  removed ({kind})"),
            State::Affected { because } => _ = writeln!(out, "    {id:width$}  because of {}", because.join(", ")),
            State::Changed { changes } => {
                for (nth, change) in changes.iter().enumerate() {
                    let (mark, id) = if nth == 0 { ('~', id.as_str()) } else { (' ', "") };
                    let _ = writeln!(out, "  {mark} {id:width$}  {}", line(change));
                }
            }
        }
    }
    for change in &diff.sections {
        let _ = writeln!(out, "  ~ {}", line(change));
    }
    if let Some(what) = &diff.restart {
        let _ = writeln!(out, "{what}: cannot be changed while the pipeline runs, stop it and start it again");
        return out;
    }
    for (fate, what) in [
        (Fate::Kept, "goes on"),
        (Fate::Started, "starts"),
        (Fate::Rebuilt, "rebuilt from the spool"),
        (Fate::Stopped, "ends"),
    ] {
        let ids = diff.ids(fate);
        if !ids.is_empty() {
            let _ = writeln!(out, "{what}: {}", ids.join(", "));
        }
    }
    if !diff.windows.is_empty() {
        let _ = writeln!(out, "open windows end, what they have shown is taken back: {}", diff.windows.join(", "));
    }
    if !diff.look_back.is_empty() {
        let _ = writeln!(
            out,
            "look back further, at first on a part of the rows unless the logs reach back as far: {}",
            diff.look_back.join(", ")
        );
    }
    out
}

fn line(change: &Change) -> String {
    let value = |value: &Option<String>| match value {
        None => "not set".to_owned(),
        Some(text) => cell(text, SHOWN).into_owned(),
    };
    format!("{}: {} -> {}", plain(&change.path), value(&change.old), value(&change.new))
}
