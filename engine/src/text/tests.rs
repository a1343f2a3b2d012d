use std::io::Write;

use proptest::prelude::*;

use super::*;

/// What clients send: escape sequences of both sorts, a line of ours, other directions, nothing that is seen, formulas.
const EVIL: &str = "GET /\x1b]0;owned\x07\r\nverdict none\t\u{202e}\u{9b}2J\u{200b}\u{ad}\u{e0001}\u{fe0f}\u{7f}";

#[test]
fn escape_sequences_do_not_reach_a_terminal() {
    assert_eq!(printable("GET /\x1b]0;owned\x07\r\u{202e}\u{9b}"), "GET /\\u{1b}]0;owned\\u{7}\\r\\u{202e}\\u{9b}");
    assert!(matches!(printable("a straightforward\nkäse"), Cow::Borrowed(_)));
    assert!(matches!(line("a straightforward käse 日本語 🦀"), Cow::Borrowed(_)));
    assert_eq!(
        line(EVIL),
        "GET /\\u{1b}]0;owned\\u{7}\\r\\nverdict none\\t\\u{202e}\\u{9b}2J\\u{200b}\\u{ad}\\u{e0001}\\u{fe0f}\\u{7f}"
    );
}

#[test]
fn long_values_are_cut_and_messages_set_in() {
    assert_eq!((cell("abcdef", 3), cell("abc", 3), cell("\n\n\n", 2)), ("abc…".into(), "abc".into(), "\\n\\n…".into()));
    assert_eq!(message("refused:\nrow 1\x1b"), "refused:\n  row 1\\u{1b}");
    assert!(matches!(message("one line"), Cow::Borrowed(_)));
}

#[test]
fn json_means_the_same() {
    let value = serde_json::json!({ "a": EVIL, "b": [1, null, { "\u{202e}": "\"\\" }] });
    for text in [value.to_string(), format!("{value:#}\n")] {
        let readable = json(&text);
        assert!(readable.chars().all(|c| c == '\n' || !is_hidden(c)), "{readable}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&readable).expect("JSON"), value);
    }
}

#[test]
fn formulas_are_text_and_numbers_are_numbers() {
    for formula in [
        "=cmd|x!A0",
        "+1+1",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        " =1",
        "\n=1",
        "\u{a0}=1",
        "\"=1",
        "'=1",
        "\u{ff1d}1+1",
        "\u{ff0b}1",
        "\u{ff0d}a",
        "\u{ff20}SUM(1)",
        "\u{200b}=1",
        "-",
        "+",
        "+1 ",
        "-1e",
        "-.5",
        "-1,5",
        "\u{2212}1",
        "“=1",
    ] {
        let safe = spreadsheet(formula);
        assert!(safe.starts_with('\'') && safe.ends_with(&*line(formula)), "{formula:?}: {safe:?}");
    }
    for plain in ["", "a=1", "1", "-1", "+49123", "-12.5e3", "1e-5", "-0.25E+10", "shop.example", "日本"] {
        assert_eq!(spreadsheet(plain), plain);
    }
    assert_eq!(csv_field("=a,\"b\"\n"), "\"'=a,\"\"b\"\"\\n\"");
    assert_eq!(csv_field("a b"), "a b");
}

#[test]
fn positions_stay_right_under_a_mask() {
    let text = format!("a: {EVIL}\n  b: 1\r\n");
    let shown = masked(&text);
    assert_eq!(shown.len(), text.len());
    assert_eq!((shown.lines().count(), shown.find("b: 1")), (text.lines().count(), text.find("b: 1")));
    assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{e0001}']), "{shown}");
}

proptest! {
    #[test]
    fn nothing_hidden_is_left(text in "(?s).{0,40}|\\PC{0,40}|[\\x00-\\x7f\u{80}-\u{9f}\u{2028}-\u{202e}\u{200b}]{0,40}") {
        prop_assert!(!line(&text).chars().any(is_hidden));
        prop_assert!(!cell(&text, 5).chars().any(is_hidden));
        prop_assert!(!spreadsheet(&text).chars().any(is_hidden));
        prop_assert!(printable(&text).chars().all(|c| c == '\n' || !is_hidden(c)));
        prop_assert!(message(&text).split('\n').skip(1).all(|line| line.starts_with("  ")));
        prop_assert_eq!(masked(&text).len(), text.len());
        let written = serde_json::to_string(&text).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<String>(&json(&written)).expect("JSON"), text);
    }

    #[test]
    fn json_is_readable_however_it_is_cut(text in "(?s).{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..20), size in 1usize..9) {
        let written = serde_json::to_string(&text).expect("JSON");
        let passed = |all: &[u8]| {
            let mut out = Vec::new();
            let mut to = ReadableJson::new(&mut out);
            all.chunks(size).for_each(|piece| to.write_all(piece).expect("memory"));
            out
        };
        let readable = passed(written.as_bytes());
        prop_assert_eq!(&*String::from_utf8_lossy(&readable), &*json(&written));
        // Bytes of any sort do no harm.
        let readable = passed(&bytes);
        prop_assert!(std::str::from_utf8(&readable).expect("UTF-8").chars().all(|c| c == '\n' || !is_hidden(c)));
    }
}

#[test]
fn ages_and_days() {
    let shown = [0, 1, 119, 120, 7_199, 7_200, 172_799, 172_800, 86_400 * 40].map(|s| age(Duration::from_secs(s)));
    let expected = [
        "0 seconds",
        "1 second",
        "119 seconds",
        "2 minutes",
        "119 minutes",
        "2 hours",
        "47 hours",
        "2 days",
        "40 days",
    ];
    assert_eq!(shown, expected);
    assert_eq!(day(SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_083_200)), "2026-12-01");
    assert_eq!(day(SystemTime::UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01");
    assert_eq!(day(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), "9999-12-31");
}
