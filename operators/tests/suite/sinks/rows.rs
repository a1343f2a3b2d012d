//! The operators that work row by row.

use engine::batch::{Batch, EdgeType};

use super::samples::{cells, faults, listed, relation, rows, schema, through};

const CHAIN: &str = "  - { id: in, kind: test.replay, name: NAME }\n";

/// A late batch, a retraction and an insertion that is not settled: the marks that must be kept.
fn marked() -> Vec<(u64, Batch)> {
    let first = rows(&[(1, 1, Some("7")), (2, 2, Some("x")), (3, 3, None), (4, 4, Some("40"))]);
    let other = rows(&[(5, 5, Some("50")), (6, 6, Some("y")), (7, 7, Some("70"))]);
    vec![
        (100, Batch { late: true, ..Batch::new(first.clone()) }),
        (100, Batch { settled: false, ..Batch::new(other.clone()) }),
        (200, Batch { settled: false, diff: -1, ..Batch::new(other.clone()) }),
        (300, Batch::new(rows(&[(8, 8, Some("1"))]))),
        (300, Batch::new(other)),
    ]
}

#[test]
fn a_filter_keeps_marks_and_rejects_the_rows_that_cannot_be_judged() {
    let dir = tempfile::tempdir().expect("a directory");
    let filter = "  - { id: f, kind: filter, from: in, where: \"cast(text as bigint) >= 40\" }\n";
    for (port, expected) in [
        ("f", vec![(1, 4), (1, 5), (1, 7), (-1, 5), (-1, 7), (1, 5), (1, 7)]),
        ("f.rejected", vec![(1, 2), (1, 6), (-1, 6), (1, 6)]),
    ] {
        let nodes = format!("{CHAIN}{filter}  - {{ id: out, kind: test.collect, from: {port}, name: OUT }}\n");
        let got = through(dir.path(), &nodes, relation(), marked(), 1);
        let mut seen: Vec<(i8, u64)> = Vec::new();
        for batch in &got {
            assert!(batch.rows.num_rows() > 0, "empty results are not sent");
            assert_eq!(batch.rows.schema().index_of("reason").is_ok(), port == "f.rejected");
            let first = batch.seqs().expect("seq").value(0);
            assert_eq!((batch.late, batch.settled), (first < 5, first < 5 || batch_is_final(&got, batch)));
            seen.extend(batch.seqs().expect("seq").values().iter().map(|seq| (batch.diff, *seq)));
        }
        assert_eq!(seen, expected);
        for workers in [2, 4] {
            assert_eq!(listed(&through(dir.path(), &nodes, relation(), marked(), workers)), listed(&got));
        }
    }
}

/// Whether the batch is the last, which is settled.
fn batch_is_final(all: &[Batch], batch: &Batch) -> bool {
    all.last().is_some_and(|last| std::ptr::eq(last, batch))
}

#[test]
fn derived_columns_build_on_each_other_and_replace() {
    let dir = tempfile::tempdir().expect("a directory");
    let derive = "  - id: d\n    kind: derive\n    from: in\n    columns:\n      - { name: value, expr: cast(text as bigint) }\n      \
        - { name: number, expr: value * 2 + number }\n      - { name: upper, expr: \"upper(case when text is null then 'none' else text end)\" }\n    drop: [text]\n";
    let nodes = format!("{CHAIN}{derive}  - {{ id: out, kind: test.collect, from: d, name: OUT }}\n");
    let ty = EdgeType::stream(schema());
    let got = through(dir.path(), &nodes, ty.clone(), marked(), 1);
    let names: Vec<String> = got[0].rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["time", "seq", "number", "value", "upper"]);
    let of = |seq: &str| {
        got.iter().flat_map(|b| (0..b.rows.num_rows()).map(|r| cells(&b.rows, r))).find(|c| c["seq"] == seq)
    };
    let four = of("4").expect("kept");
    assert_eq!((four["value"].as_str(), four["number"].as_str(), four["upper"].as_str()), ("40", "84", "40"));
    let three = of("3").expect("kept");
    assert_eq!((three.get("value"), three["upper"].as_str()), (None, "NONE"));
    assert_eq!(of("2"), None, "rejected");
    let nodes = nodes.replace("from: d,", "from: d.rejected,");
    let rejected = through(dir.path(), &nodes, ty, marked(), 2);
    assert_eq!(listed(&rejected).len(), 4);
    assert!(cells(&rejected[0].rows, 0)["reason"].contains("Int64"), "{:?}", cells(&rejected[0].rows, 0));
}

#[test]
fn wrong_options_are_shown_where_they_stand() {
    let dir = tempfile::tempdir().expect("a directory");
    let collect = "  - { id: out, kind: test.collect, from: n, name: OUT }\n";
    let shown = |node: &str| faults(dir.path(), &format!("{CHAIN}{node}{collect}"), relation());
    let cases = [
        ("  - { id: n, kind: filter, from: in, where: number }\n", "true or false", 4),
        ("  - { id: n, kind: filter, from: in, where: \"txt = 'a'\" }\n", "did you mean `text`?", 4),
        (
            "  - { id: n, kind: derive, from: in, columns: [{ name: text, expr: \"'a'\" }] }\n",
            "`text` cannot be replaced",
            4,
        ),
        ("  - { id: n, kind: derive, from: in, drop: [seq] }\n", "`seq` cannot be dropped", 4),
        ("  - { id: n, kind: derive, from: in, drop: [nmber] }\n", "did you mean `number`?", 4),
        ("  - { id: n, kind: derive, from: in, columns: [{ name: a, expr: \"null\" }] }\n", "has no type", 4),
    ];
    for (node, wanted, line) in cases {
        let text = shown(node);
        assert!(text.contains(wanted) && text.contains(&format!(".yaml:{line}:")), "{text}");
    }
}

#[test]
fn every_option_is_described() {
    for kind in operators::registry().kinds() {
        let schema = serde_json::Value::from((kind.schema)());
        let options = schema["properties"].as_object().expect("options");
        for (name, option) in options {
            assert!(option["description"].is_string(), "{} {name}: {option}", kind.name);
        }
    }
}
