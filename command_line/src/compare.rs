//! `compare`: what is different between the tables of two runs.

use std::collections::BTreeSet;
use std::fmt::Write;

use ::compare::stored::{StoredError, StoredTable, compare_stored, tables};
use ::compare::{Alone, Changed, Columns, Comparison};
use engine::spec::Diagnostic;
use engine::text::line;
use serde_json::{Map, Value, json};

use crate::{CompareArgs, Exit, ReportFormat, complain, print, print_json};

pub(crate) fn compare(args: &CompareArgs) -> Exit {
    let (before, after) = match (tables(&args.before), tables(&args.after)) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(error), _) | (_, Err(error)) => {
            complain(&error.to_string());
            return Exit::Refused;
        }
    };
    let both: BTreeSet<&str> = before.keys().filter(|name| after.contains_key(*name)).map(String::as_str).collect();
    let asked: Vec<&str> = match args.table.as_slice() {
        [] => both.iter().copied().collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    if let Some(missing) = asked.iter().find(|name| !both.contains(*name)) {
        let help = Diagnostic::new(Default::default(), "").nearest(missing, both.iter().copied()).help;
        let help = help.map(|help| format!(" ({help})")).unwrap_or_default();
        complain(&format!("the table `{missing}` is not in both directories{help}"));
        return Exit::Refused;
    }
    if asked.is_empty() {
        complain("there is no table that both directories have");
        return Exit::Refused;
    }
    for name in asked {
        match table(name, (&before[name], &after[name]), args.key.as_deref(), args.examples, args.format) {
            Exit::Ok => {}
            failed => return failed,
        }
    }
    // Without a choice, what could not be compared is said too.
    if args.table.is_empty() && args.format == ReportFormat::Text {
        let alone = before.keys().chain(after.keys()).filter(|name| !both.contains(name.as_str()));
        let alone: Vec<String> =
            alone.map(|name| format!("{}: only in one of the directories\n", line(name))).collect();
        return print(&alone.concat());
    }
    Exit::Ok
}

/// Compares one table and prints what differs.
pub(crate) fn table(
    name: &str,
    (before, after): (&StoredTable, &StoredTable),
    key: Option<&[String]>,
    examples: usize,
    format: ReportFormat,
) -> Exit {
    let found = match compare_stored(before, after, key, examples) {
        Ok(found) => found,
        Err(error) => {
            complain(&error.to_string());
            return match error {
                StoredError::NoKey(_) | StoredError::Compare { .. } => Exit::Refused,
                StoredError::File { .. } | StoredError::Directory { .. } => Exit::Failed,
            };
        }
    };
    match format {
        ReportFormat::Text => print(&text(name, &found)),
        ReportFormat::Json => print_json(&lines(name, &found)),
    }
}

fn text(table: &str, found: &Comparison) -> String {
    let mut out = format!("{}: {} before, {} after; ", line(table), found.before, found.after);
    if found.is_same() {
        out.push_str("no difference\n");
        return out;
    }
    let _ = writeln!(out, "{} new, {} gone, {} changed", found.new, found.gone, found.changed);
    for (columns, what) in [(&found.columns_gone, "before"), (&found.columns_new, "after")] {
        if !columns.is_empty() {
            let _ = writeln!(out, "  columns only {what}, not compared: {}", line(&columns.join(", ")));
        }
    }
    if !found.columns.is_empty() {
        let counts: Vec<String> = found.columns.iter().map(|(name, count)| format!("{} {count}", line(name))).collect();
        let _ = writeln!(out, "  changed by column: {}", counts.join(", "));
    }
    for (rows, count, mark, what) in
        [(&found.new_rows, found.new, '+', "new"), (&found.gone_rows, found.gone, '-', "gone")]
    {
        rows.iter().for_each(|row| _ = writeln!(out, "  {mark} {}", flat(&row.key)));
        more(&mut out, count, rows.len(), what);
    }
    for Changed { key, columns } in &found.changed_rows {
        let _ = writeln!(out, "  ~ {}", flat(key));
        for (name, old, new) in columns {
            let _ = writeln!(out, "      {}: {} -> {}", line(name), value(old), value(new));
        }
    }
    more(&mut out, found.changed, found.changed_rows.len(), "changed");
    out
}

fn more(out: &mut String, count: u64, shown: usize, what: &str) {
    let rest = count.saturating_sub(shown as u64);
    if rest > 0 {
        let _ = writeln!(out, "  … and {rest} more {what}; see --examples");
    }
}

fn flat(columns: &Columns) -> String {
    columns.iter().map(|(name, of)| format!("{} {}", line(name), value(of))).collect::<Vec<_>>().join(", ")
}

/// A value in one line.
fn value(value: &Value) -> String {
    match value {
        Value::String(text) => line(text).into_owned(),
        other => line(&other.to_string()).into_owned(),
    }
}

/// One object for the table, then one for each example.
fn lines(table: &str, found: &Comparison) -> String {
    let object = |columns: &Columns| columns.iter().cloned().collect::<Map<String, Value>>();
    let mut out = vec![json!({
        "table": table, "before": found.before, "after": found.after,
        "new": found.new, "gone": found.gone, "changed": found.changed,
        "columns": found.columns, "columns_gone": found.columns_gone, "columns_new": found.columns_new,
    })];
    for (rows, what) in [(&found.new_rows, "new"), (&found.gone_rows, "gone")] {
        out.extend(
            rows.iter()
                .map(|Alone { key, values }| json!({ "table": table, "row": what, "key": object(key), "values": object(values) })),
        );
    }
    out.extend(found.changed_rows.iter().map(|Changed { key, columns }| {
        let both = |(name, old, new): &(String, Value, Value)| (name.clone(), json!({ "before": old, "after": new }));
        let columns: Map<String, Value> = columns.iter().map(both).collect();
        json!({ "table": table, "row": "changed", "key": object(key), "columns": columns })
    }));
    out.iter().map(|line| format!("{line}\n")).collect()
}
