//! The table at the end of a run.

use std::fmt::Write;

use engine::run::Summary;

/// The summary as text: a line for each node, then totals.
pub(crate) fn text(summary: &Summary) -> String {
    let mut rows = vec![["node", "kind", "rows in", "rows out", "late", "rejected", "evicted", ""].map(str::to_owned)];
    for node in &summary.nodes {
        let own: Vec<String> =
            node.named.iter().filter(|(_, n)| *n > 0).map(|(name, n)| counter(name, *n, node.rows_out)).collect();
        let [rows_in, rows_out, late, rejected, evicted] =
            [node.rows_in, node.rows_out, node.late, node.rejected, node.evicted].map(number);
        let kind = node.kind.to_owned();
        rows.push([node.id.clone(), kind, rows_in, rows_out, late, rejected, evicted, own.join(", ")]);
    }
    let widths: Vec<usize> =
        (0..7).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column < 2 {
                true => write!(line, "{cell:<width$}  "),
                false => write!(line, "{cell:>width$}  "),
            };
        }
        line.push_str(&row[7]);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(
        out,
        "{} rows from sources in {:.2} s: {} rows/s; late {}, rejected {}",
        number(summary.source_rows()),
        summary.wall.as_secs_f64(),
        number(summary.rows_per_second() as u64),
        number(summary.late()),
        number(summary.rejected()),
    );
    out
}

/// A counter of the node's own; what it has in common with the rows that left is a share of them.
fn counter(name: &str, value: u64, rows_out: u64) -> String {
    match name {
        "correlated" if rows_out > 0 => {
            format!("{name} {} ({:.1} %)", number(value), 100.0 * value as f64 / rows_out as f64)
        }
        _ => format!("{name} {}", number(value)),
    }
}

/// A number with its thousands apart.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use engine::run::NodeSummary;

    #[test]
    fn columns_are_aligned_and_own_counters_shown() {
        let node = |id: &str, is_source, rows_out, named| NodeSummary {
            id: id.to_owned(),
            kind: "k",
            is_source,
            rows_in: 0,
            rows_out,
            bytes: 0,
            late: 1,
            rejected: 0,
            evicted: 0,
            named,
        };
        let nodes =
            vec![node("a", true, 1_234_567, vec![]), node("join", false, 10, vec![("correlated", 9), ("orphans", 1)])];
        let shown = text(&Summary { wall: Duration::from_secs(2), nodes });
        assert_eq!(
            shown,
            "node  kind  rows in   rows out  late  rejected  evicted\n\
             a     k           0  1,234,567     1         0        0\n\
             join  k           0         10     1         0        0  correlated 9 (90.0 %), orphans 1\n\
             1,234,567 rows from sources in 2.00 s: 617,283 rows/s; late 2, rejected 0\n"
        );
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1000, 1_000_000].map(number), ["0", "999", "1,000", "1,000,000"]);
    }
}
