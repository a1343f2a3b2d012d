//! `validate`: checks pipelines without running them.

use std::io::Write;
use std::path::PathBuf;

use engine::contract::{Registry, ServerFault};
use engine::plan::Plan;
use engine::text::{line, message};

use crate::{Exit, Overrides, load_with, print};

/// What [`engine::plan::Plan::load`] covers; said once at the end, so that "ok" is not taken for more.
const CHECKED: &str = "checked: YAML, variables, kinds, options, ports and cycles, columns and types in expressions, \
    served tables, files that the plan reads";

const NOT_CHECKED: &str = "not checked: whether inputs can be opened and outputs written";

/// What `--connect` covers besides.
const SERVERS: &str = ", tables of servers";

pub(crate) fn validate(files: &[PathBuf], overrides: &Overrides, connect: bool, registry: &Registry) -> Exit {
    let mut exit = Exit::Ok;
    let mut lines = String::new();
    for file in files {
        let shown = file.display().to_string();
        let loaded = load_with(file, overrides, registry);
        for warning in loaded.iter().flat_map(|plan| &plan.warnings) {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "warning: {}", message(warning));
        }
        let verdict = match loaded {
            Ok(plan) if connect && !servers(&shown, &plan, &mut exit) => "its servers do not fit".to_owned(),
            Ok(plan) => {
                let tables = plan.serve.as_ref().map_or(0, |serve| serve.tables.len());
                format!("ok ({}, {})", count(plan.nodes.len(), "node"), count(tables, "table"))
            }
            Err(faults) => {
                exit = Exit::Refused;
                count(faults, "fault")
            }
        };
        lines.push_str(&format!("{}: {verdict}\n", line(&shown)));
    }
    let (checked, not_checked) = if connect { (SERVERS, "") } else { ("", SERVERS) };
    match print(&format!("{lines}{CHECKED}{checked}; {NOT_CHECKED}{not_checked}\n")) {
        Exit::Ok => exit,
        failed => failed,
    }
}

/// Asks the servers of all nodes; says on standard error what does not fit. A server that does not answer is a failure,
/// one that has not what is needed a fault of the pipeline or of the server.
fn servers(file: &str, plan: &Plan, exit: &mut Exit) -> bool {
    let mut fit = true;
    for node in &plan.nodes {
        for fault in node.node.check_servers() {
            let said = match fault {
                ServerFault::Unfit(said) => {
                    if *exit == Exit::Ok {
                        *exit = Exit::Refused;
                    }
                    said
                }
                ServerFault::Unreachable(said) => {
                    *exit = Exit::Failed;
                    said
                }
            };
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "{}: {}: {}", line(file), line(&node.id), message(&said));
            fit = false;
        }
    }
    fit
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
