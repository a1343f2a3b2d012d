//! Columns of rows, with all lists and with some.

use arrow::array::Array;
use proptest::prelude::*;

use super::*;

const JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

fn all() -> Vec<Arc<List>> {
    let parse = |list: Result<List, String>| Arc::new(list.unwrap_or_else(|faults| panic!("{faults}")));
    let fingerprints = format!("ja4,bot_name\n{JA4},probe\n");
    vec![
        parse(list(Networks::read(b"prefix,bot_name\n198.51.100.0/24,net\n"), List::Networks)),
        parse(list(Fingerprints::read(fingerprints.as_bytes()), List::Fingerprints)),
        parse(list(Agents::read(b"[{\"pattern\": \"ExampleBot\\\\/\", \"tags\": [\"seo\", \"ai\"]}]"), List::Agents)),
        parse(list(Crawlers::read(b"prefix,crawler,agent\n192.0.2.0/24,Example,examplebot\n"), List::Crawlers)),
    ]
}

/// The columns for rows of an address, a JA4 and a User-Agent: each row as text.
fn labelled(columns: Columns, parts: &[Arc<List>], rows: &[[Option<&str>; 3]]) -> Vec<String> {
    let column = |nth: usize| Arc::new(rows.iter().map(|row| row[nth]).collect::<StringArray>()) as ArrayRef;
    let batch = RecordBatch::try_from_iter_with_nullable(
        ["src_ip", "ja4", "header_user_agent"].into_iter().enumerate().map(|(nth, name)| (name, column(nth), true)),
    );
    let added = columns.label(&batch.expect("rows"), parts).expect("labels");
    assert_eq!(added.iter().map(|column| column.data_type().clone()).collect::<Vec<_>>(), ADDED.map(|(_, ty)| ty));
    let cell = |column: &ArrayRef, row: usize| match column.as_boolean_opt() {
        _ if column.is_null(row) => "-".to_owned(),
        Some(values) => values.value(row).to_string(),
        None => column.as_string::<i32>().value(row).to_owned(),
    };
    (0..rows.len()).map(|row| added.iter().map(|column| cell(column, row)).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn every_column_of_a_row() {
    let columns = Columns { address: Some(0), ja4: Some(1), agent: Some(2) };
    let bot = Some("Mozilla/5.0 (compatible; ExampleBot/1.0)");
    let late = format!("{}ExampleBot/1.0", "x".repeat(512));
    let rows = [
        [Some("192.0.2.1"), Some(JA4), bot],
        [Some("::ffff:192.0.2.1"), None, bot],
        [Some("198.51.100.1"), Some(JA4), bot],
        [Some("203.0.113.1"), None, bot],
        [Some("203.0.113.1"), Some("t13"), Some("curl/8")],
        [Some("no address"), None, bot],
        [None, Some(JA4), None],
        [Some("2001:db8::1"), None, Some(&late)],
        [None, None, None],
    ];
    // bot_ip, bot_ja4, bot_agent, bot_tags, bot_crawler, bot_verified, bot_name.
    let expected = [
        "- probe ExampleBot seo,ai Example true Example",
        "- - ExampleBot seo,ai Example true Example",
        "net probe ExampleBot seo,ai - false net",
        "- - ExampleBot seo,ai - false -",
        "- - - - - - -",
        "- - ExampleBot seo,ai - - ExampleBot",
        "- probe - - - - probe",
        "- - - - - - -",
        "- - - - - - -",
    ];
    assert_eq!(labelled(columns, &all(), &rows), expected);
}

#[test]
fn one_list_alone() {
    let row = [[Some("198.51.100.1"), Some(JA4), Some("ExampleBot/1.0")]];
    let parts = all();
    let none = Columns::default();
    let alone = |part: usize, columns| labelled(columns, &parts[part..=part], &row).remove(0);
    assert_eq!(alone(0, Columns { address: Some(0), ..none }), "net - - - - - net");
    assert_eq!(alone(1, Columns { ja4: Some(1), ..none }), "- probe - - - - probe");
    assert_eq!(alone(2, Columns { agent: Some(2), ..none }), "- - ExampleBot seo,ai - - ExampleBot");
    assert_eq!(alone(3, Columns { address: Some(0), agent: Some(2), ..none }), "- - - - - false -");
}

#[test]
fn no_rows() {
    let columns = Columns { address: Some(0), ja4: Some(1), agent: Some(2) };
    assert!(labelled(columns, &all(), &[]).is_empty());
}

/// Reads a list in each of the four ways, and asks those that are accepted.
fn ask(content: &[u8], agent: &str) {
    let lists = [
        list(Networks::read(content), List::Networks),
        list(Fingerprints::read(content), List::Fingerprints),
        list(Agents::read(content), List::Agents),
        list(Crawlers::read(content), List::Crawlers),
    ];
    let refused = lists.iter().filter_map(|list| list.as_ref().err()).flat_map(|faults| faults.lines());
    for fault in refused {
        let line = fault.split_once(": ").and_then(|(line, _)| line.parse::<usize>().ok());
        let lines = content.iter().filter(|byte| **byte == b'\n').count() + 1;
        assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{fault}");
    }
    let parts: Vec<_> = lists.into_iter().filter_map(Result::ok).map(Arc::new).collect();
    let columns = Columns { address: Some(0), ja4: Some(1), agent: Some(2) };
    assert_eq!(labelled(columns, &parts, &[[Some("192.0.2.1"), Some(JA4), Some(agent)]]).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: proptest::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_pattern_is_it_is_read_or_refused(pattern in r"[a-c\\/\[\](){}|^$.*+?<>0-9é-]{1,16}", agent in "[a-c/.<>0-9é-]{0,40}") {
        ask(serde_json::json!([{ "pattern": pattern }]).to_string().as_bytes(), &agent);
        // A pattern that needs no regular expression matches as it would with one.
        let reading = pattern::Reading::new(&pattern);
        if reading.is_text && let Ok(alone) = regex::Regex::new(&pattern) {
            prop_assert_eq!(agent.contains(&reading.text), alone.is_match(&agent), "{}", pattern);
        }
    }

    #[test]
    fn damaged_lists_are_read_or_refused(
        which in 0usize..4,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let lists = [
            "prefix,bot_name\n192.0.2.0/24,net\n2001:db8::/32,\"n,et\"\n".to_owned(),
            format!("ja4,bot_name\n{JA4},probe\n"),
            "[\n{\"pattern\": \"[eE]xample\\\\/\", \"tags\": [\"a\"]},\n{\"pattern\": \"b\"}\n]\n".to_owned(),
            "prefix,crawler,agent\n192.0.2.0/24,Example,examplebot\n::ffff:192.0.2.0/120,Other,other\n".to_owned(),
        ];
        let mut content = lists[which].clone().into_bytes();
        for (at, byte, is_new) in edits {
            let at = at.index(content.len());
            if is_new { content.insert(at, byte) } else { content[at] = byte }
        }
        content.truncate(cut.index(content.len() * 2).max(1));
        ask(&content, "Example/1.0 examplebot");
    }
}
