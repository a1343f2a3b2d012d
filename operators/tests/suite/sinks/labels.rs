//! `enrich.bots`, `enrich.reputation`, `enrich.browser`.

use std::path::Path;

use engine::batch::{Batch, EdgeType};

use super::samples::{cells, faults, listed, relation, rows, schema, through};

const JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

/// Nodes between the recording and the collection.
fn chain(nodes: &str) -> String {
    format!(
        "  - {{ id: in, kind: test.replay, name: NAME }}\n{nodes}  - {{ id: out, kind: test.collect, from: n, name: OUT }}\n"
    )
}

fn write(dir: &Path, name: &str, content: &str) {
    std::fs::write(dir.join(name), content).expect("written");
}

#[test]
fn bots_are_named_and_marks_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "bot_ip.csv", "prefix,bot_name\n192.0.2.0/24,net\n");
    write(dir.path(), "agents.json", r#"[{ "pattern": "[eE]xampleBot", "tags": ["seo"], "instances": [] }]"#);
    write(dir.path(), "crawlers.csv", "prefix,crawler,agent\n198.51.100.0/24,Example,ExampleBot\n");
    let nodes = "  - { id: d, kind: derive, from: in, columns: [{ name: agent, expr: \"'ExampleBot/' || number\" }] }\n  - { id: n, kind: enrich.bots, from: d, networks: bot_ip.csv, agents: agents.json, crawlers: crawlers.csv, address: text, user_agent: agent }\n";
    let given =
        [(1, 1, Some("192.0.2.1")), (2, 2, Some("::ffff:198.51.100.9")), (3, 3, Some("no address")), (4, 4, None)];
    let batches = vec![
        (100, Batch::new(rows(&given))),
        (200, Batch { diff: -1, late: true, settled: false, ..Batch::new(rows(&given)) }),
    ];
    let got = through(dir.path(), &chain(nodes), relation(), batches.clone(), 1);
    let marks: Vec<_> = got.iter().map(|b| (b.diff, b.late, b.settled, b.rows.num_rows())).collect();
    assert_eq!(marks, [(1, false, true, 4), (-1, true, false, 4)]);
    let found = |row, name: &str| cells(&got[0].rows, row).get(name).cloned();
    let column = |name| [0, 1, 2, 3].map(|row| found(row, name)).map(|value| value.unwrap_or_default());
    assert_eq!(column("bot_ip"), ["net", "", "", ""]);
    assert_eq!(column("bot_agent"), ["exampleBot"; 4]);
    assert_eq!(column("bot_tags"), ["seo"; 4]);
    assert_eq!(column("bot_crawler"), ["", "Example", "", ""]);
    assert_eq!((found(0, "bot_verified"), found(2, "bot_verified")), (Some("false".to_owned()), None));
    assert_eq!(column("bot_name"), ["net", "Example", "exampleBot", "exampleBot"]);
    for workers in [2, 4] {
        assert_eq!(listed(&through(dir.path(), &chain(nodes), relation(), batches.clone(), workers)), listed(&got));
    }
}

#[test]
fn bots_need_a_list_and_its_columns() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "bot_ip.csv", "prefix,bot_name\n192.0.2.0/24,net\n");
    write(dir.path(), "bad.json", "[\n{\"pattern\": \"a\"},\n{\"pattern\": \"(\"}]");
    let shown = |options: &str| {
        let node = format!("  - {{ id: n, kind: enrich.bots, from: in{options} }}\n");
        faults(dir.path(), &chain(&node), EdgeType::stream(schema()))
    };
    let none = shown("");
    assert!(none.contains("it needs a list: `networks`, `ja4`, `agents` or `crawlers`"), "{none}");
    let no_column = shown(", networks: bot_ip.csv");
    assert!(no_column.contains("no column `src_ip`") && !no_column.contains("header_user_agent"), "{no_column}");
    let bad = shown(", agents: bad.json, user_agent: number");
    assert!(bad.contains("bad.json:3: `(` cannot be used"), "{bad}");
    assert!(bad.contains("a User-Agent is text; `number` is Int64"), "{bad}");
    let twice = shown(", networks: bot_ip.csv, crawlers: bot_ip.csv, address: text, user_agent: text");
    assert!(twice.contains("another list of this node is in the same file"), "{twice}");
    let missing = shown(", ja4: nothing.csv, ja4_column: text");
    assert!(missing.contains("nothing.csv cannot be read"), "{missing}");
}

#[test]
fn systems_have_a_reputation() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        "asn.csv",
        "network,asn,country_code,name,org,domain\n192.0.2.0/24,64500,FR,,,\n198.51.100.0/24,64501,FR,,,\n",
    );
    write(dir.path(), "reputation.csv", "src_asn,label\n64500,bot\n");
    let nodes = "  - { id: a, kind: enrich.asn, from: in, file: asn.csv, address: text }\n  - { id: n, kind: enrich.reputation, from: a, file: reputation.csv }\n";
    let given = [(1, 1, Some("192.0.2.1")), (2, 2, Some("198.51.100.1")), (3, 3, None)];
    let got = through(dir.path(), &chain(nodes), relation(), vec![(100, Batch::new(rows(&given)))], 1);
    let labels = [0, 1, 2].map(|row| cells(&got[0].rows, row).get("asn_label").cloned());
    assert_eq!(labels, [Some("bot".to_owned()), None, None]);
    let shown = |node: &str| faults(dir.path(), &chain(node), EdgeType::stream(schema()));
    let wrong = shown("  - { id: n, kind: enrich.reputation, from: in, file: reputation.csv, asn: number }\n");
    assert!(wrong.contains("the number of an autonomous system is UInt32; `number` is Int64"), "{wrong}");
    write(dir.path(), "reputation.csv", "src_asn,label\n64500,good\n");
    let bad = shown("  - { id: n, kind: enrich.reputation, from: in, file: reputation.csv }\n");
    assert!(bad.contains("no column `src_asn`"), "{bad}");
    assert!(bad.contains("reputation.csv:2: `good` is no label"), "{bad}");
}

#[test]
fn browsers_are_compared_with_user_agents() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "browsers.csv", &format!("ja4,browser_family,tls_library,context\n{JA4},Chrome,BoringSSL,\n"));
    let nodes = "  - { id: d, kind: derive, from: in, columns: [{ name: header_user_agent, expr: \"case when number = 1 then 'Chrome/150.0' else 'Firefox/140.0' end\" }] }\n  - { id: n, kind: enrich.browser, from: d, file: browsers.csv, ja4: text }\n";
    let given = [(1, 1, Some(JA4)), (2, 2, Some(JA4)), (3, 3, None)];
    let got = through(dir.path(), &chain(nodes), relation(), vec![(100, Batch::new(rows(&given)))], 1);
    let column = |name: &str| [0, 1, 2].map(|row| cells(&got[0].rows, row).get(name).cloned().unwrap_or_default());
    assert_eq!(column("browser_family"), ["Chrome", "Chrome", ""]);
    assert_eq!(column("browser_tls_library"), ["BoringSSL", "BoringSSL", ""]);
    assert_eq!(column("ua_family"), ["Chrome", "Firefox", "Firefox"]);
    assert_eq!(column("browser_matches"), ["true", "false", ""]);
    let shown = faults(
        dir.path(),
        &chain("  - { id: n, kind: enrich.browser, from: in, file: browsers.csv }\n"),
        EdgeType::stream(schema()),
    );
    assert!(shown.contains("no column `ja4`") && shown.contains("no column `header_user_agent`"), "{shown}");
}

/// What is shipped can be used: the demo's clients have all these columns.
#[test]
fn the_samples_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/reference");
    let path = |name: &str| samples.join(name).display().to_string();
    let nodes = format!(
        "  - {{ id: d, kind: derive, from: in, columns: [{{ name: src_asn, expr: \"arrow_cast(64500, 'UInt32')\" }}] }}\n  - {{ id: r, kind: enrich.reputation, from: d, file: {} }}\n  - {{ id: b, kind: enrich.browser, from: r, file: {}, ja4: text, user_agent: text }}\n  - {{ id: n, kind: enrich.bots, from: b, networks: {}, ja4: {}, agents: {}, crawlers: {}, address: text, ja4_column: text, user_agent: text }}\n",
        path("asn_reputation.csv"),
        path("browser_ja4.csv"),
        path("bot_ip.csv"),
        path("bot_ja4.csv"),
        path("crawler-user-agents.json"),
        path("crawlers.csv"),
    );
    let given = [
        (1, 1, Some("203.0.113.250")),
        (2, 2, Some("t13d4312h1_c7886603b240_b26ce05bbdd6")),
        (3, 3, Some("Mozilla/5.0 (compatible; bingbot/2.0)")),
        (4, 4, Some("203.0.113.200")),
    ];
    let got = through(dir.path(), &chain(&nodes), relation(), vec![(100, Batch::new(rows(&given)))], 1);
    let column = |name: &str| [0, 1, 2, 3].map(|row| cells(&got[0].rows, row).get(name).cloned().unwrap_or_default());
    assert_eq!(column("asn_label"), ["bot"; 4]);
    assert_eq!(column("browser_family"), ["", "python-requests", "", ""]);
    assert_eq!(column("bot_name"), ["example-proxy", "python-requests", "bingbot", "ExampleBot"]);
    assert_eq!(column("bot_tags"), ["", "", "search-engine", ""]);
}
