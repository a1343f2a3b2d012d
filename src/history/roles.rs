//! Which table is which, told by their columns: pipelines name tables as they like.

use super::{History, Table};

/// The tables that commands read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// A row for each request.
    pub requests: Option<Table>,
    /// A row for each group and window, whether it was flagged or not.
    pub features: Option<Table>,
    /// What was said of groups: levels, verdicts, scores.
    pub judgements: Vec<Table>,
    /// A row for each hello.
    pub hellos: Option<Table>,
}

/// The most tables of judgements that are read.
const MAX_JUDGEMENTS: usize = 8;

/// Columns of which a table of judgements has one.
pub const JUDGEMENT: [&str; 4] = ["verdict", "threat_level", "anomaly_level", "anomaly_score"];

/// What `--table` may name.
const NAMES: [&str; 4] = ["requests", "features", "detections", "hellos"];

impl Roles {
    /// The tables by their columns, or as `named` says: `requests=NAME`. Of several that fit, the one with the most rows is
    /// taken, then the one with the most columns, then the first.
    ///
    /// # Errors
    /// If a role or a table that is named does not exist.
    pub fn find(history: &History, named: &[String]) -> Result<Self, String> {
        let mut roles = Self::of(&history.tables);
        let mut detections = Vec::new();
        for given in named {
            let (role, name) = given.split_once('=').unwrap_or((given, ""));
            let found = history.tables.iter().find(|table| table.name == name);
            let table = || {
                let none = || format!("there is no table `{name}`; there are: {}", history.table_names());
                found.cloned().ok_or_else(none)
            };
            match role {
                "requests" => roles.requests = Some(table()?),
                "features" => roles.features = Some(table()?),
                "detections" => detections.push(table()?),
                "hellos" => roles.hellos = Some(table()?),
                _ => return Err(format!("`{given}` names no table: ROLE=NAME, where a role is {}", NAMES.join(", "))),
            }
        }
        if !detections.is_empty() {
            roles.judgements = detections;
        }
        Ok(roles)
    }

    fn of(tables: &[Table]) -> Self {
        let has = |table: &Table, names: &[&str]| names.iter().all(|name| table.has(name));
        let judges = |table: &Table| table.has("src_ip") && JUDGEMENT.iter().any(|name| table.has(name));
        let groups = |table: &Table| has(table, &["window_start", "hits", "src_ip"]);
        // A table of verdicts may have every group, or only those that were flagged; one without verdicts has all.
        let all_groups = |table: &Table| groups(table) && !table.has("threat_level") && !table.has("verdict");
        let is_request = |table: &Table| has(table, &["method", "path", "src_ip"]);
        let is_hello = |table: &Table| has(table, &["ja4", "src_ip", "src_port"]) && !table.has("method");
        Self {
            requests: largest(tables, |table| is_request(table) && table.has("ja4"))
                .or_else(|| largest(tables, is_request)),
            features: largest(tables, all_groups).or_else(|| largest(tables, groups)),
            judgements: tables
                .iter()
                .filter(|table| judges(table) && !is_request(table))
                .take(MAX_JUDGEMENTS)
                .cloned()
                .collect(),
            hellos: largest(tables, is_hello),
        }
    }
}

fn largest(tables: &[Table], fits: impl Fn(&Table) -> bool) -> Option<Table> {
    // Of equal ones `max_by_key` takes the last.
    tables.iter().rev().filter(|table| fits(table)).max_by_key(|table| (table.rows(), table.columns.len())).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::Column;
    use super::*;

    fn table(name: &str, rows: u64, columns: &str) -> Table {
        let column = |name: &str| Column { name: name.to_owned(), ty: "Utf8".to_owned() };
        Table {
            name: name.to_owned(),
            columns: columns.split(' ').map(column).collect(),
            stored_rows: rows,
            ..Table::default()
        }
    }

    #[test]
    fn tables_are_told_by_their_columns() {
        let tables = [
            table("late", 2, "time src_ip method path ja4"),
            table("log", 9, "time src_ip method path ja4"),
            table("scored", 5, "window_start src_ip hits anomaly_score"),
            table("groups", 5, "window_start src_ip hits"),
            table("found", 9, "window_start src_ip hits threat_level"),
            table("seen", 7, "time src_ip src_port ja4"),
        ];
        let roles = Roles::of(&tables);
        let name = |table: &Option<Table>| table.as_ref().map(|table| table.name.clone()).unwrap_or_default();
        assert_eq!((name(&roles.requests), name(&roles.features), name(&roles.hellos)).0, "log");
        assert_eq!((name(&roles.features), name(&roles.hellos)), ("scored".to_owned(), "seen".to_owned()));
        assert_eq!(roles.judgements.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["scored", "found"]);
        assert_eq!(name(&Roles::of(&tables[4..]).features), "found", "better than none");
        assert_eq!(Roles::of(&[]), Roles::default());
    }
}
