//! What is wrong with a pipeline is refused with its place and what was probably meant, all at once.

use crate::{plan, refused, shows};

const HEAD: &str = "name: t\nnodes:\n  - { id: a, kind: test.numbers, rows: 3 }\n";

fn with(rest: &str) -> String {
    refused(&format!("{HEAD}{rest}"))
}

#[test]
fn a_good_pipeline_is_accepted_in_any_order_of_nodes() {
    let text = "name: t\nnodes:\n  - { id: s, kind: test.collect, from: k, into: x }\n  - { id: k, kind: test.keep, from: a, where: n > 1 }\n  \
        - { id: a, kind: test.numbers, rows: 3, host: \"${HOST}\" }\nserve: { tables: { kept: k, late: a.late } }\n";
    let plan = plan(text).unwrap_or_else(|shown| panic!("{shown}"));
    assert_eq!(plan.nodes.iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["a", "k", "s"]);
    assert!(plan.is_bounded());
    let tables = plan.serve.map(|s| s.tables).unwrap_or_default();
    assert_eq!(tables, [("kept".to_owned(), 1, 0), ("late".to_owned(), 0, 1)]);
}

#[test]
fn unknown_kinds_and_options_name_the_nearest() {
    shows(
        &with("  - { id: b, kind: test.kep, from: a }\n"),
        &["p.yaml:4:20", "unknown kind `test.kep`", "did you mean `test.keep`?"],
    );
    shows(
        &with("  - id: b\n    kind: test.keep\n    from: a\n    were: n > 1\n"),
        &["p.yaml:7:5", "unknown option `were`", "did you mean `where`?", "missing field `where`"],
    );
    shows(
        &refused("name: t\nnodes:\n  - { id: a, kind: test.numbers, rows: many }\n"),
        &["p.yaml:3:40", "found `many`"],
    );
    shows(
        &refused("name: t\nnodes:\n  - { id: a, kind: test.numbers, rows: 1, breaks: plainy }\n"),
        &["did you mean `plainly`?"],
    );
}

#[test]
fn wrong_inputs_are_refused() {
    shows(
        &with("  - { id: b, kind: test.keep, from: aa, where: n > 1 }\n"),
        &["p.yaml:4:37", "no node has the id `aa`", "did you mean `a`?"],
    );
    shows(
        &with("  - { id: b, kind: test.keep, from: a.lat, where: n > 1 }\n"),
        &["has no port `lat`", "did you mean `late`?"],
    );
    shows(&with("  - { id: b, kind: test.keep, where: n > 1 }\n"), &["p.yaml:4:5", "`from` is missing"]);
    shows(
        &with("  - { id: b, kind: test.keep, from: { x: a }, where: n > 1 }\n"),
        &["`test.keep` has one input: write `from: id`"],
    );
    shows(
        &with("  - { id: b, kind: test.numbers, from: a, rows: 1 }\n"),
        &["p.yaml:4:40", "is a source: it has no input"],
    );
    shows(&with("  - { id: b, kind: test.both, from: a }\n"), &["p.yaml:4:37", "needs `from: { left: …, right: … }`"]);
    shows(&with("  - { id: b, kind: test.both, from: { left: a } }\n"), &["the input `right` is missing"]);
    shows(
        &with("  - { id: b, kind: test.both, from: { left: a, rigth: a } }\n"),
        &["p.yaml:4:48", "`test.both` has no input `rigth`", "did you mean `right`?"],
    );
    shows(
        &with(
            "  - { id: s, kind: test.collect, from: a, into: x }\n  - { id: b, kind: test.keep, from: s, where: n > 1 }\n",
        ),
        &["p.yaml:5:37", "nothing leaves it"],
    );
}

#[test]
fn a_cycle_names_its_nodes() {
    let shown = with(
        "  - { id: x, kind: test.both, from: { left: a, right: z } }\n  - { id: y, kind: test.keep, from: x, where: n > 1 }\n  \
         - { id: z, kind: test.keep, from: y, where: n > 1 }\n  - { id: s, kind: test.collect, from: z, into: q }\n",
    );
    shows(&shown, &["p.yaml:4:5", "in a circle: x -> y -> z -> x"]);
    shows(&with("  - { id: x, kind: test.keep, from: x, where: n > 1 }\n"), &["in a circle: x -> x"]);
}

#[test]
fn ids_are_unique_names() {
    shows(&with("  - { id: a, kind: test.numbers, rows: 1 }\n"), &["p.yaml:4:11", "the id `a` is taken", "in line 3"]);
    shows(&with("  - { id: a b, kind: test.numbers, rows: 1 }\n"), &["`a b` is not a name"]);
}

#[test]
fn several_faults_come_at_once_in_the_order_of_their_places() {
    let shown = refused(
        "name: t\nticks: 1s\nnodes:\n  - { id: a, kind: test.number, rows: 3 }\n  - { id: b, kind: test.numbers, rws: 3 }\n  \
         - { id: c, kind: test.numbers, rows: 3 }\n  - { id: d, kind: test.keep, from: c, where: m > 1 }\n  \
         - { id: e, kind: test.collect, from: d.x, into: 1 }\nserve: { listen: nowhere, tables: { t: nope } }\n",
    );
    let parts = [
        "unknown section `ticks`",
        "unknown kind `test.number`",
        "unknown option `rws`",
        "no column `m`",
        "has no port `x`",
        "`nowhere` is not an address",
        "no node has the id `nope`",
    ];
    shows(&shown, &parts);
    let at: Vec<_> = parts.iter().map(|part| shown.find(part)).collect();
    assert!(at.is_sorted(), "{shown}");
}

#[test]
fn a_wrong_column_is_marked_inside_the_expression() {
    let fault = ["no column `m`", "did you mean `n`?"];
    for (place, node) in [
        ("p.yaml:4:55", "  - { id: b, kind: test.keep, from: a, where: 1 < n + m }\n"),
        ("p.yaml:4:56", "  - { id: b, kind: test.keep, from: a, where: \"1 < n + m\" }\n"),
        ("p.yaml:4:56", "  - { id: b, kind: test.keep, from: a, where: '1 < n + m' }\n"),
        ("p.yaml:8:15", "  - id: b\n    kind: test.keep\n    from: a\n    where: |\n      1 < n + m\n"),
        ("p.yaml:9:9", "  - id: b\n    kind: test.keep\n    from: a\n    where: >-\n      1 < n +\n        m\n"),
        ("p.yaml:8:9", "  - id: b\n    kind: test.keep\n    from: a\n    where: 1 < n +\n        m\n"),
    ] {
        // The block scalar's first line stands below its key: lines count from the file's start.
        let shown = with(node);
        shows(&shown, &fault);
        shows(&shown, &[place]);
    }
}

#[test]
fn wrong_types_and_functions_in_expressions_are_refused() {
    shows(&with("  - { id: b, kind: test.keep, from: a, where: n + 1 }\n"), &["a condition is true or false"]);
    shows(
        &with("  - { id: b, kind: test.keep, from: a, where: lowr(host) = 'x' }\n"),
        &["p.yaml:4:47", "no function `lowr`", "lower"],
    );
    shows(&with("  - { id: b, kind: test.keep, from: a, where: \"count(*) > 1\" }\n"), &["is an aggregate function"]);
    shows(
        &with("  - { id: b, kind: test.keep, from: a, where: random() > 0.5 }\n"),
        &["does not depend on the row alone"],
    );
    shows(&with("  - { id: b, kind: test.keep, from: a, where: \"n >\" }\n"), &["p.yaml:4:47"]);
}

#[test]
fn a_relation_is_refused_where_a_stream_is_needed() {
    let shown =
        with("  - { id: r, kind: test.latest, from: a }\n  - { id: b, kind: test.keep, from: r, where: n > 1 }\n");
    shows(&shown, &["p.yaml:5:37", "this input is a relation"]);
}

#[test]
fn served_tables_are_checked() {
    let text = |serve: &str| format!("{HEAD}  - {{ id: s, kind: test.collect, from: a, into: x }}\nserve:\n{serve}");
    shows(&refused(&text("  tables: { t: b }\n")), &["p.yaml:6:16", "no node has the id `b`"]);
    shows(&refused(&text("  tables: { t: s }\n")), &["p.yaml:6:16", "nothing leaves it"]);
    shows(&refused(&text("  tables: { t: a.lte }\n")), &["did you mean `late`?"]);
    shows(&refused(&text("  tables: { \"a b\": a }\n")), &["p.yaml:6:13", "`a b` is not a table name"]);
    shows(
        &refused(&text("  listen: 8080\n  tables: { t: a }\n")),
        &["p.yaml:6:11", "`8080` is not an address and port"],
    );
    shows(&refused(&text("  table: { t: a }\n")), &["did you mean `tables`?", "missing field `tables`"]);
    shows(&refused(&text("  tables: { t: a, T: a }\n")), &["p.yaml:6:19", "the table `T` is there already"]);
}

#[test]
fn broken_files_are_refused() {
    shows(&refused(""), &["the file is empty"]);
    shows(&refused("name: t\nnodes: []\n"), &["p.yaml:2:8", "at least one node"]);
    shows(&refused("name: t\n"), &["the section `nodes` is missing"]);
    shows(&refused("- a\n"), &["a pipeline is a mapping"]);
    shows(&refused("name: t\nnodes:\n  - { id: a, kind: test.numbers, rows: 1, rows: 2 }\n"), &["p.yaml:3:", "rows"]);
    shows(&refused("name: \"t\nnodes: []\n"), &["p.yaml:"]);
    shows(&refused("name: ${NOPE}\nnodes: []\n"), &["p.yaml:1:7", "`NOPE` is not set"]);
}

#[test]
fn escapes_in_a_pipeline_do_not_reach_the_terminal() {
    let shown = refused("name: t\nnodes:\n  - { id: a, kind: \"test\\e[31m\" }\n");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn durable_needs_rows_a_live_source_and_a_spool() {
    let live = "name: t\ndata_dir: d\nnodes:\n  - { id: a, kind: test.numbers, rows: 3, live: true }\n";
    let kept = "  - { id: b, kind: test.keep, from: a, where: n > 1, durable: true }\n";
    assert!(plan(&format!("{live}{kept}")).is_ok());
    shows(&refused(&format!("spool: off\n{live}{kept}")), &["p.yaml:6:63", "needs a spool, which is off"]);
    assert!(plan(&format!("spool: off\n{live}{}", kept.replace("true }", "false }"))).is_ok());
    shows(&with(kept), &["p.yaml:4:", "`durable` needs a live source"]);
    let sink = "  - { id: s, kind: test.collect, from: a, into: x, durable: true }\n";
    shows(&refused(&format!("{live}{sink}")), &["a sink has no rows to keep"]);
    let source = live.replace("live: true", "live: true, durable: true");
    shows(&refused(&source), &["is kept in a log anyway"]);
}
