use arrow::array::{Int64Array, TimestampNanosecondArray, UInt32Array};
use arrow::datatypes::{Field, Schema};
use engine::batch::{WINDOW_START, time_type};
use engine::contract::Session;
use std::sync::atomic::Ordering::Relaxed;

use super::*;

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Schema::new(vec![
        Field::new(WINDOW_START, time_type(), true),
        text("src_ip"),
        text("ja4"),
        text("port"),
        Field::new("src_asn", DataType::UInt32, true),
        text("threat_level"),
        Field::new("hits", DataType::Int64, false),
    ])
}

fn batch() -> Batch {
    let windows = TimestampNanosecondArray::from(vec![Some(5), Some(6), None, Some(8), Some(9), Some(10)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(windows.with_timezone("UTC")),
        Arc::new(StringArray::from(vec![
            Some("192.0.2.1"),
            Some("2001:db8::7"),
            Some("192.0.2.1"),
            None,
            Some("a\u{202e}b"),
            Some("192.0.2.2"),
        ])),
        Arc::new(StringArray::from(vec![Some("t13\"x"), Some(""), None, Some("q"), Some("q"), Some("q")])),
        Arc::new(StringArray::from(vec!["443", "80", "1", "2", "x", "4"])),
        Arc::new(UInt32Array::from(vec![Some(64500), Some(64501), None, None, None, None])),
        Arc::new(StringArray::from(vec![Some("HIGH"), None, None, None, Some("odd"), Some("LOW")])),
        Arc::new(Int64Array::from(vec![5, 6, 7, 8, 9, 0])),
    ];
    Batch::new(RecordBatch::try_new(Arc::new(schema()), columns).expect("valid"))
}

fn reader(links: &[&[&str]], condition: &str, metrics: &Arc<NodeMetrics>) -> Reader {
    let session = Session::new();
    let scalar = |sql: &str| session.scalar(sql, &schema()).expect("valid");
    let link =
        |parts: &&[&str]| parts.iter().map(|sql| Expression { sql: (*sql).to_owned(), value: scalar(sql) }).collect();
    let evidence =
        Evidence { condition: Some(scalar(condition)), links: links.iter().map(link).collect::<Vec<Vec<_>>>().into() };
    let columns = Columns { member: 1, window: 0, level: Some(5), score: Some(6), system: Some(4) };
    let ages = Ages { tick: 1, look_back: 10, granularity: 10, is_relation: false };
    Reader::new(columns, evidence, ages, metrics)
}

#[test]
fn a_link_is_absent_where_a_value_is_null_or_empty_and_rows_that_belong_nowhere_are_counted() {
    let metrics: Arc<NodeMetrics> = Arc::default();
    let links: [&[&str]; 2] = [&["ja4", "src_asn"], &["ip_prefix(src_ip, 24, 64)"]];
    let mut rows = Vec::new();
    reader(&links, "hits > 0", &metrics).read(&batch(), 100, &mut rows).expect("valid");
    let texts: Vec<Vec<&str>> =
        rows.iter().map(|row| row.value.links.iter().map(|link| &*link.text).collect()).collect();
    let expected: [&[&str]; 3] = [
        &["ja4 = \"t13\\\"x\", src_asn = 64500", "ip_prefix(src_ip, 24, 64) = \"192.0.2.0/24\""],
        &["ip_prefix(src_ip, 24, 64) = \"2001:db8::/64\""],
        &[],
    ];
    assert_eq!(texts, expected);
    let counted = ["without_member", "without_window", "not_computed"].map(|name| metrics.counter(name).load(Relaxed));
    assert_eq!(counted, [1, 1, 0]);
    let outlines: Vec<_> = rows.iter().map(|row| &row.value.outline).collect();
    assert_eq!(
        outlines.iter().map(|o| (o.window, o.level, o.score)).collect::<Vec<_>>(),
        [(5, Some(2), ordered(5.0)), (6, None, ordered(6.0)), (9, None, ordered(9.0)),]
    );
    assert_eq!(
        outlines.iter().map(|o| o.name.to_string()).collect::<Vec<_>>(),
        ["192.0.2.1", "2001:db8::7", "a\\u{202e}b"]
    );
    assert_eq!(outlines.iter().map(|o| o.system.is_some()).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(rows.iter().map(|row| (row.at, row.until, row.diff)).collect::<Vec<_>>(), [(101, 10, 1); 3]);
    assert_eq!(members(batch().rows.column(1))[0], Some(rows[0].key));
}

#[test]
fn a_row_that_cannot_be_computed_does_not_hide_its_neighbours() {
    let metrics: Arc<NodeMetrics> = Arc::default();
    let mut rows = Vec::new();
    let links: [&[&str]; 1] = [&["cast(port as bigint)"]];
    reader(&links, "true", &metrics).read(&batch(), 0, &mut rows).expect("valid");
    let texts: Vec<&str> = rows.iter().map(|row| &*row.value.links[0].text).collect();
    assert_eq!(texts, ["cast(port as bigint) = 443", "cast(port as bigint) = 80", "cast(port as bigint) = 4"]);
    assert_eq!(metrics.counter("not_computed").load(Relaxed), 1);
}

#[test]
fn late_rows_do_not_count() {
    let metrics: Arc<NodeMetrics> = Arc::default();
    let (mut rows, late) = (Vec::new(), Batch { late: true, ..batch() });
    reader(&[&["ja4"]], "true", &metrics).read(&late, 0, &mut rows).expect("valid");
    assert_eq!((rows.len(), metrics.late.load(Relaxed)), (0, 6));
}

#[test]
fn networks_of_mapped_addresses_are_those_of_ipv4() {
    let network = |text: &str| Name::of(text).network();
    assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.200"));
    assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
    assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    assert_eq!(network("a client"), None);
}

#[test]
fn long_texts_are_cut_but_link_as_a_whole() {
    let long = |end: &str| format!("{}{end}", "é".repeat(SHOWN));
    assert_eq!(shown(&long("a")), format!("{}…", "é".repeat(SHOWN)));
    assert_eq!(shown(&long("")), long(""));
    assert_ne!(id::member(long("a").as_bytes()), id::member(long("b").as_bytes()));
}
