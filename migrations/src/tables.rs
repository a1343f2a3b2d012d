//! The tables that the migrations make, with their columns, as the files say; and what of them a server lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::Migration;
use crate::sql::{Parameters, identifier, statements};

/// A column as a migration makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    /// Its type, default and codec.
    pub definition: String,
}

/// A table as migrations make it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// In order.
    pub columns: Vec<Column>,
    /// The statements that make it, in order. Each can be run again at any time.
    pub statements: Vec<String>,
}

/// The tables that migrations make, by name.
///
/// # Errors
/// If a parameter has no value.
pub(crate) fn tables<'m>(
    migrations: impl IntoIterator<Item = &'m Migration>,
    parameters: &Parameters,
) -> Result<BTreeMap<String, Table>, String> {
    let mut found = BTreeMap::new();
    for migration in migrations.into_iter().filter(|migration| !migration.is_about_users()) {
        for statement in statements(migration.up, parameters)? {
            add(&mut found, &statement.sql);
        }
    }
    Ok(found)
}

/// Adds what a statement makes of tables.
fn add(found: &mut BTreeMap<String, Table>, sql: &str) {
    if let Some(rest) = sql.strip_prefix("CREATE TABLE IF NOT EXISTS ") {
        let (name, rest) = name(rest);
        let columns = match rest.strip_prefix("AS ") {
            Some(like) => found.get(self::name(like).0).map(|table: &Table| table.columns.clone()).unwrap_or_default(),
            None => parts(within(rest)).into_iter().filter_map(column).map(|(column, _)| column).collect(),
        };
        found.insert(name.to_owned(), Table { columns, statements: vec![sql.to_owned()] });
    } else if let Some(rest) = sql.strip_prefix("ALTER TABLE ") {
        let (name, rest) = name(rest);
        let Some(table) = found.get_mut(name) else { return };
        table.statements.push(sql.to_owned());
        for part in parts(rest) {
            let Some((column, after)) = part.strip_prefix("ADD COLUMN IF NOT EXISTS ").and_then(column) else {
                continue;
            };
            let at = after.and_then(|after| table.columns.iter().position(|other| other.name == after));
            table.columns.insert(at.map_or(table.columns.len(), |at| at + 1), column);
        }
    }
}

/// The last part of a table's name, and what follows it.
fn name(text: &str) -> (&str, &str) {
    let (name, rest) = text.trim_start().split_once(|c: char| c.is_whitespace() || c == '(').unwrap_or((text, ""));
    let rest = if text[name.len()..].starts_with('(') { &text[name.len()..] } else { rest };
    (name.rsplit('.').next().unwrap_or(name), rest.trim_start())
}

/// What is between the parenthesis that begins here and its end.
fn within(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return &text[1..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    ""
}

/// The parts of a list, between the commas that are in no parenthesis.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut from) = (0usize, 0);
    let mut found = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[from..].trim());
    found
}

/// A column, and the one that it is behind if that is said. Indices and the like are none.
fn column(text: &str) -> Option<(Column, Option<&str>)> {
    let (name, definition) = text.split_once(char::is_whitespace)?;
    if matches!(name, "INDEX" | "PROJECTION" | "CONSTRAINT" | "PRIMARY") {
        return None;
    }
    let (definition, after) = match definition.rsplit_once(" AFTER ") {
        Some((definition, after)) => (definition, Some(after.trim())),
        None => (definition, None),
    };
    Some((Column { name: name.trim_matches('`').to_owned(), definition: definition.trim().to_owned() }, after))
}

/// What a server lacks of what was applied, and the SQL that makes it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// What is missing, for people.
    pub what: String,
    pub sql: Vec<String>,
}

/// The tables and columns of `wanted` that a database does not have: `there` are its columns, by table.
pub(crate) fn missing(
    database: &str,
    wanted: BTreeMap<String, Table>,
    there: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<Drift> {
    let mut found = Vec::new();
    for (name, table) in wanted {
        let Some(columns) = there.get(&name) else {
            found.push(Drift { what: format!("the table {name}"), sql: table.statements });
            continue;
        };
        for (nth, column) in table.columns.iter().enumerate().filter(|(_, column)| !columns.contains(&column.name)) {
            // The one before is there by then, or made again by the statement before this one.
            let before = nth.checked_sub(1).map(|before| identifier(&table.columns[before].name));
            let place = before.map_or_else(|| "FIRST".to_owned(), |before| format!("AFTER {before}"));
            let sql = format!(
                "ALTER TABLE {}.{} ADD COLUMN IF NOT EXISTS {} {} {place}",
                identifier(database),
                identifier(&name),
                identifier(&column.name),
                column.definition
            );
            found.push(Drift { what: format!("the column `{}` of {name}", column.name), sql: vec![sql] });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MIGRATIONS;

    fn all() -> BTreeMap<String, Table> {
        let pairs = [("database", "d"), ("dictionary_user", "u"), ("dictionary_password", "")];
        let parameters = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        tables(MIGRATIONS, &parameters).expect("valid")
    }

    #[test]
    fn columns_are_read_with_their_types_and_places() {
        let tables = all();
        let logs = &tables["http_logs"];
        let at = |name: &str| logs.columns.iter().position(|column| column.name == name).expect("there");
        assert_eq!(at("ambiguous"), at("post_quantum") + 1);
        assert_eq!(logs.columns[at("time")].definition, "DateTime CODEC(DoubleDelta, ZSTD(1))");
        assert_eq!(logs.columns.last().map(|column| column.name.as_str()), Some("tick"));
        assert!(!logs.columns.iter().any(|column| column.name.contains("bloom") || column.name == "INDEX"));
        assert_eq!(logs.statements.len(), 6, "made, columns four times, a setting");
        let (features, detections) = (&tables["features"].columns, &tables["detections"].columns);
        assert_eq!(detections.len(), features.len() + 3);
        let first_seen = features.iter().find(|column| column.name == "first_seen").expect("there");
        assert_eq!(first_seen.definition, "Nullable(DateTime64(9, 'UTC')) CODEC(ZSTD(1))");
    }
}
