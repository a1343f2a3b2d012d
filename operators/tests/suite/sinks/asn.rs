//! `enrich.asn`.

use engine::batch::{Batch, EdgeType};

use super::samples::{cells, faults, listed, relation, rows, schema, through};

const CHAIN: &str = "  - { id: in, kind: test.replay, name: NAME }\n  - { id: n, kind: enrich.asn, from: in, file: asn.csv, address: text }\n  - { id: out, kind: test.collect, from: n, name: OUT }\n";
const FILE: &str = "network,asn,country_code,name,org,domain\n192.0.2.0/24,AS64500,FR,WIDE,Wide,wide.test\n192.0.2.128/25,64501,DE,NARROW,,\n";

#[test]
fn the_most_specific_network_counts_and_marks_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("asn.csv"), FILE).expect("written");
    let given =
        [(1, 1, Some("192.0.2.1")), (2, 2, Some("::ffff:192.0.2.200")), (3, 3, Some("no address")), (4, 4, None)];
    let batches = vec![
        (100, Batch::new(rows(&given))),
        (200, Batch { diff: -1, late: true, settled: false, ..Batch::new(rows(&given)) }),
    ];
    let got = through(dir.path(), CHAIN, relation(), batches.clone(), 1);
    let marks: Vec<_> = got.iter().map(|b| (b.diff, b.late, b.settled, b.rows.num_rows())).collect();
    assert_eq!(marks, [(1, false, true, 4), (-1, true, false, 4)]);
    let first = cells(&got[0].rows, 0);
    assert_eq!(
        (first["src_asn"].as_str(), first["src_as_name"].as_str(), first["src_domain"].as_str()),
        ("64500", "WIDE", "wide.test")
    );
    let second = cells(&got[0].rows, 1);
    assert_eq!(
        (second["src_asn"].as_str(), second["src_country_code"].as_str(), second.get("src_org")),
        ("64501", "DE", None)
    );
    assert!(!cells(&got[0].rows, 2).contains_key("src_asn") && !cells(&got[0].rows, 3).contains_key("src_asn"));
    for workers in [2, 4] {
        assert_eq!(listed(&through(dir.path(), CHAIN, relation(), batches.clone(), workers)), listed(&got));
    }
}

#[test]
fn a_bad_file_is_refused_with_its_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = faults(dir.path(), CHAIN, EdgeType::stream(schema()));
    assert!(shown.contains("asn.csv cannot be read"), "{shown}");
    std::fs::write(dir.path().join("asn.csv"), format!("{FILE}x,1,,,,\n10.0.0.0/8,y,,,,\n")).expect("written");
    let shown = faults(dir.path(), CHAIN, EdgeType::stream(schema()));
    assert!(
        shown.contains("asn.csv:4: `x` is not a network") && shown.contains("asn.csv:5: `y` is not an AS number"),
        "{shown}"
    );
    let shown = faults(dir.path(), &CHAIN.replace("address: text", "address: number"), EdgeType::stream(schema()));
    assert!(shown.contains("an address is text; `number` is Int64"), "{shown}");
    let shown = faults(dir.path(), &CHAIN.replace(", address: text", ""), EdgeType::stream(schema()));
    assert!(shown.contains("no column `src_ip`"), "{shown}");
}
