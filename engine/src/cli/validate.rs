//! `validate`: checks pipelines without running them.

use std::path::PathBuf;

use super::{Exit, Overrides, load_with, print};
use crate::registry::Registry;
use crate::text::printable;

/// What [`crate::plan::Plan::load`] covers; said once at the end, so that "ok" is not taken for more.
const CHECKED: &str = "checked: YAML, variables, kinds, options, ports and cycles, columns and types in expressions, \
    served tables, files that the plan reads; not checked: whether inputs can be opened and outputs written";

pub(super) fn validate(files: &[PathBuf], overrides: &Overrides, registry: &Registry) -> Exit {
    let mut exit = Exit::Ok;
    let mut lines = String::new();
    for file in files {
        let shown = file.display().to_string();
        let verdict = match load_with(file, overrides, registry) {
            Ok(plan) => {
                let tables = plan.serve.as_ref().map_or(0, |serve| serve.tables.len());
                format!("ok ({}, {})", count(plan.nodes.len(), "node"), count(tables, "table"))
            }
            Err(faults) => {
                exit = Exit::Refused;
                count(faults, "fault")
            }
        };
        lines.push_str(&format!("{}: {verdict}\n", printable(&shown)));
    }
    match print(&format!("{lines}{CHECKED}\n")) {
        Exit::Ok => exit,
        failed => failed,
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
