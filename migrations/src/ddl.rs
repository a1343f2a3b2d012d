//! `migrate ddl`: the SQL that makes the tables of a pipeline's own.

use std::collections::BTreeMap;
use std::path::Path;

use command_line::{Exit, print};
use engine::contract::{Registry, ServerTable};

use crate::MIGRATIONS;
use crate::sql::{Parameters, identifier};
use crate::tables::{Table, tables};

/// Prints the SQL; no server is asked.
pub(crate) fn ddl(pipeline: &Path, registry: &Registry) -> Exit {
    let Ok(plan) = command_line::load(pipeline, registry) else { return Exit::Refused };
    let wanted: Vec<ServerTable> = plan.nodes.iter().flat_map(|node| node.node.server_tables()).collect();
    if wanted.is_empty() {
        command_line::complain("the pipeline writes to no table of a server");
        return Exit::Refused;
    }
    let parameters = ["database", "dictionary_user", "dictionary_password"];
    let parameters: Parameters = parameters.into_iter().map(|name| (name.to_owned(), String::new())).collect();
    let known = match tables(MIGRATIONS, &parameters) {
        Ok(known) => known,
        Err(fault) => {
            command_line::complain(&fault);
            return Exit::Failed;
        }
    };
    let mut out = String::new();
    for (nth, table) in wanted.iter().enumerate() {
        let first = wanted[..nth].iter().find(|other| (&other.database, &other.name) == (&table.database, &table.name));
        // Two nodes may write to one table; then it needs the columns of both.
        let made = first.map(|first| first.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
        out.push_str(&match made {
            Some(made) => more(table, &made, "written by another node too; its further columns"),
            None => statement(table, &known),
        });
    }
    print(&out)
}

fn statement(table: &ServerTable, known: &BTreeMap<String, Table>) -> String {
    if let Some(made) = known.get(&table.name) {
        let made: Vec<&str> = made.columns.iter().map(|column| column.name.as_str()).collect();
        let by = format!("made by `ja4-engine migrate up --database {}`; its further columns", table.database);
        return more(table, &made, &by);
    }
    let columns: Vec<String> =
        table.columns.iter().map(|(name, ty)| format!("    {} {ty}", identifier(name))).collect();
    format!(
        "CREATE DATABASE IF NOT EXISTS {};\nCREATE TABLE IF NOT EXISTS {}.{}\n(\n{}\n)\n{};\n\n",
        identifier(&table.database),
        identifier(&table.database),
        identifier(&table.name),
        columns.join(",\n"),
        table.ending
    )
}

/// The columns that a table lacks which is made elsewhere.
fn more(table: &ServerTable, made: &[&str], by: &str) -> String {
    let mut out = format!("-- {} is {by}:\n", table.name);
    let further: Vec<_> = table.columns.iter().filter(|(name, _)| !made.contains(&name.as_str())).collect();
    if further.is_empty() {
        out.push_str("-- none\n");
    }
    for (name, ty) in further {
        let (database, table) = (identifier(&table.database), identifier(&table.name));
        out.push_str(&format!("ALTER TABLE {database}.{table} ADD COLUMN IF NOT EXISTS {} {ty};\n", identifier(name)));
    }
    out.push('\n');
    out
}
