//! `detect.rules`.

use engine::batch::{Batch, EdgeType};

use super::samples::{cells, faults, listed, relation, rows, schema, through};

const IN: &str = "  - { id: in, kind: test.replay, name: NAME }\n";
const OUT: &str = "  - { id: out, kind: test.collect, from: n, name: OUT }\n";
const RULES: &str = r#"
- { name: many, level: MEDIUM, when: number >= 2, reason: "{number} requests ({number:.1})" }
- { name: text, level: CRITICAL, when: "text like 'b%'", reason: "text {text}, {{{number:%}}}" }
- { name: cast, level: LOW, when: cast(text as bigint) = 5, reason: five }
"#;

fn inline(rules: &str) -> String {
    let rules: String = rules.lines().map(|line| format!("      {line}\n")).collect();
    format!("{IN}  - id: n\n    kind: detect.rules\n    from: in\n    rules:{rules}{OUT}")
}

fn given() -> Vec<(u64, Batch)> {
    let all = rows(&[(1, 1, Some("a")), (2, 2, Some("b\u{202e}")), (3, 3, None), (0, 0, Some("5"))]);
    vec![
        (100, Batch::new(all.clone())),
        (200, Batch { diff: -1, settled: false, ..Batch::new(all) }),
        (300, Batch::new(rows(&[(1, 1, Some("3"))]))),
    ]
}

#[test]
fn rows_that_match_get_level_names_and_reasons() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = inline(RULES);
    let got = through(dir.path(), &nodes, relation(), given(), 1);
    assert_eq!(
        got.iter().map(|b| (b.diff, b.settled, b.rows.num_rows())).collect::<Vec<_>>(),
        [(1, true, 3), (-1, false, 3)]
    );
    let row = |nth: usize| {
        let cells = cells(&got[0].rows, nth);
        ["threat_level", "rules", "reason"].map(|name| cells[name].clone())
    };
    assert_eq!(row(0), ["CRITICAL", "many,text", "2 requests (2.0); text b\\u{202e}, {200%}"]);
    assert_eq!(row(1), ["MEDIUM", "many", "3 requests (3.0)"]);
    assert_eq!(row(2), ["LOW", "cast", "five"]);
    let rejected = through(dir.path(), &nodes.replace("from: n,", "from: n.rejected,"), relation(), given(), 1);
    assert_eq!(listed(&rejected).len(), 4, "`a` and `b` are no numbers, in both batches");
    assert!(cells(&rejected[0].rows, 0)["reason"].starts_with("rule `cast`: "));
    for workers in [2, 4] {
        assert_eq!(listed(&through(dir.path(), &nodes, relation(), given(), workers)), listed(&got));
    }
}

#[test]
fn a_file_gives_the_same_as_a_list() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("rules.yaml"), RULES).expect("written");
    let nodes = format!("{IN}  - {{ id: n, kind: detect.rules, from: in, rules: rules.yaml }}\n{OUT}");
    let stream = || EdgeType::stream(schema());
    assert_eq!(
        listed(&through(dir.path(), &nodes, stream(), given(), 1)),
        listed(&through(dir.path(), &inline(RULES), stream(), given(), 1))
    );
}

#[test]
fn faults_are_shown_at_their_own_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = "\
- { name: a, level: LOW, when: nmber > 1, reason: x }
- { name: a, level: HIHG, when: number > 1, reason: x }
- { name: b, level: HIGH, when: number, reason: \"{txt}\" }
- { name: b, level: HIGH, when: number > 1, reason: \"{text:%}\" }
- { name: \"c,d\", level: HIGH, whn: number > 1, reason: x }
- { name: \"e,f\", level: HIGH, when: number > 1, reason: \"{number\" }
";
    std::fs::write(dir.path().join("rules.yaml"), rules).expect("written");
    let nodes = format!("{IN}  - {{ id: n, kind: detect.rules, from: in, rules: rules.yaml }}\n{OUT}");
    let shown = faults(dir.path(), &nodes, relation());
    let expected = [
        ("rules.yaml:1:32", "did you mean `number`?"),
        ("rules.yaml:2:21", "did you mean `HIGH`?"),
        ("rules.yaml:3:33", "true or false"),
        ("rules.yaml:3:51", "did you mean `text`?"),
        ("rules.yaml:4:11", "another rule `b`"),
        ("rules.yaml:4:55", "only a number"),
        ("rules.yaml:5:31", "unknown option `whn`"),
        ("rules.yaml:6:11", "without commas"),
        ("rules.yaml:6:57", "a placeholder has no `}`"),
    ];
    for (place, message) in expected {
        assert!(shown.contains(place) && shown.contains(message), "{place} {message}\n{shown}");
    }
    assert!(faults(dir.path(), &inline(" []"), relation()).contains("there are no rules"));
    let shown = faults(dir.path(), &inline(&RULES.replace("text like", "txet like")), relation());
    assert!(shown.contains("did you mean `text`?") && shown.contains(".yaml:9:"), "{shown}");
}
