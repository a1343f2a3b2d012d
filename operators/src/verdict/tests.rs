//! Schemes over rows that are written by hand.

use arrow::array::{Array, AsArray, Float64Array, StringArray};
use engine::contract::Session;
use proptest::prelude::*;

use super::*;
use crate::entries::Template;

type Row = (Option<&'static str>, Option<&'static str>, f64, Option<&'static str>);

/// Columns `threat_level`, `reason`, `share` and `text`.
fn rows(rows: &[Row]) -> RecordBatch {
    let text =
        |of: fn(&Row) -> Option<&'static str>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let shares: Float64Array = rows.iter().map(|row| Some(row.2)).collect();
    let columns = vec![text(|row| row.0), text(|row| row.1), Arc::new(shares), text(|row| row.3)];
    RecordBatch::try_new(schema(), columns).expect("valid")
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let share = Field::new("share", DataType::Float64, true);
    Arc::new(Schema::new(vec![text("threat_level"), text("reason"), share, text("text")]))
}

/// A scheme of verdict, condition and reason; the last entry is NORMAL.
fn judge(scheme: &[(&str, &str, &str)], keep: Option<&str>) -> Judge {
    let (session, input) = (Session::new(), schema());
    let output = output_schema(&input);
    let compile =
        |sql: &str, schema: &Schema| session.scalar(sql, schema).expect("valid").truth().expect("a condition");
    let entry = |(verdict, when, reason): &(&str, &str, &str)| Entry {
        verdict: (*verdict).to_owned(),
        when: Some(compile(when, &input)),
        reason: (!reason.is_empty()).then(|| Template::parse(reason, &input).expect("valid")),
    };
    let mut scheme: Vec<Entry> = scheme.iter().map(entry).collect();
    scheme.push(Entry { verdict: scheme::NORMAL.to_owned(), when: None, reason: None });
    Judge {
        scheme: scheme.into(),
        reasons: [1].into(),
        keep: keep.map(|keep| compile(keep, &output)),
        rejected: rejected_schema(&input),
        output,
    }
}

/// Verdict and reasons of each row, and the reasons of those that were rejected.
fn judged(judge: &Judge, rows: &RecordBatch) -> (Vec<(String, Option<String>)>, Vec<String>) {
    let [out, rejected] = judge.apply(rows).expect("judged");
    let texts = |rows: &RecordBatch, name: &str| -> Vec<Option<String>> {
        let column = rows.column_by_name(name).expect("there").as_string::<i32>();
        column.iter().map(|text| text.map(str::to_owned)).collect()
    };
    let out = out.map_or_else(Vec::new, |out| {
        assert_eq!(out.column_by_name(VERDICT).expect("there").null_count(), 0);
        let verdicts = texts(&out, VERDICT).into_iter().map(Option::unwrap_or_default);
        verdicts.zip(texts(&out, VERDICT_REASONS)).collect()
    });
    let rejected = rejected.map_or_else(Vec::new, |rows| texts(&rows, "reject_reason"));
    (out, rejected.into_iter().flatten().collect())
}

#[test]
fn the_first_entry_that_holds_counts() {
    let scheme = [
        ("HIGH", "threat_level = 'HIGH'", ""),
        ("VERIFIED_BOT", "share > 0.9", "verified in {share:%} of requests"),
        ("MEDIUM", "threat_level = 'MEDIUM'", "by rules"),
    ];
    let given = rows(&[
        (Some("HIGH"), Some("scans"), 1.0, None),
        (Some("MEDIUM"), Some("fast"), 1.0, None),
        (Some("MEDIUM"), Some("fast; odd"), 0.5, None),
        (None, None, 0.5, None),
        (Some("LOW"), Some(""), 0.0, None),
        (Some("LOW"), Some("a\u{202e}b"), f64::NAN, None),
    ]);
    let (got, rejected) = judged(&judge(&scheme, None), &given);
    let said = |verdict: &str, reasons: &str| (verdict.to_owned(), Some(reasons.to_owned()));
    let expected = [
        said("HIGH", "scans"),
        said("VERIFIED_BOT", "verified in 100% of requests; fast"),
        said("MEDIUM", "by rules; fast; odd"),
        ("NORMAL".to_owned(), None),
        ("NORMAL".to_owned(), None),
        // SQL has NaN behind all numbers.
        said("VERIFIED_BOT", "verified in NaN% of requests; a\\u{202e}b"),
    ];
    assert_eq!(got, expected);
    assert!(rejected.is_empty());
    let (got, _) = judged(&judge(&scheme, Some("verdict <> 'NORMAL' and verdict_reasons like '%fast%'")), &given);
    assert_eq!(got, expected[1..3]);
}

#[test]
fn what_cannot_be_computed_is_rejected_and_judged_by_the_rest() {
    let scheme = [
        ("LOW", "threat_level = 'LOW'", ""),
        ("ODD", "cast(text as bigint) = 5", ""),
        ("MEDIUM", "threat_level = 'MEDIUM'", ""),
    ];
    let given = rows(&[
        (Some("MEDIUM"), None, 0.0, Some("x")),
        (Some("LOW"), None, 0.0, Some("x")),
        (Some("MEDIUM"), None, 0.0, Some("5")),
        (None, None, 0.0, None),
    ]);
    let (got, rejected) = judged(&judge(&scheme, None), &given);
    let verdicts: Vec<&str> = got.iter().map(|(verdict, _)| verdict.as_str()).collect();
    assert_eq!(verdicts, ["MEDIUM", "LOW", "ODD", "NORMAL"]);
    assert_eq!(rejected.len(), 1, "the second row was decided before");
    assert!(rejected[0].starts_with("entry 2 of the scheme, `ODD`: "), "{}", rejected[0]);
    let (got, rejected) = judged(&judge(&scheme, Some("cast(text as bigint) > 0")), &given);
    assert_eq!(got, [("ODD".to_owned(), None)]);
    assert_eq!(rejected.len(), 2);
    assert!(rejected[0].contains("; `keep`: "), "{}", rejected[0]);
}

const LEVELS: [Option<&str>; 4] = [None, Some("LOW"), Some("MEDIUM"), Some("HIGH")];
const TEXTS: [Option<&str>; 4] = [None, Some("5"), Some("7"), Some("x")];

proptest! {
    /// Against a loop over rows, and over batches that are cut anywhere.
    #[test]
    fn a_row_is_judged_alone(picks in prop::collection::vec((0..4usize, 0..4usize, 0..4u32), 1..40), cut in 0..40usize) {
        let given: Vec<Row> = picks.iter().map(|(level, text, share)| (LEVELS[*level], None, f64::from(*share), TEXTS[*text])).collect();
        let scheme = [
            ("FIRST", "share = 3", ""),
            ("SECOND", "cast(text as bigint) = 5", ""),
            ("THIRD", "threat_level = 'HIGH' or share = 2", ""),
        ];
        let expected: Vec<&str> = given.iter().map(|(level, _, share, text)| match (level, *share, text) {
            (_, 3.0, _) => "FIRST",
            (_, _, Some("5")) => "SECOND",
            (Some("HIGH"), ..) | (_, 2.0, _) => "THIRD",
            _ => "NORMAL",
        }).collect();
        let failures = given.iter().filter(|row| row.2 != 3.0 && row.3 == Some("x")).count();
        let (judge, all) = (judge(&scheme, None), rows(&given));
        let (got, rejected) = judged(&judge, &all);
        prop_assert_eq!(got.iter().map(|(verdict, _)| verdict.as_str()).collect::<Vec<_>>(), expected);
        prop_assert_eq!(rejected.len(), failures);
        let cut = cut.min(given.len());
        let parts = [all.slice(0, cut), all.slice(cut, given.len() - cut)].map(|part| judged(&judge, &part));
        prop_assert_eq!(parts.iter().flat_map(|part| part.0.clone()).collect::<Vec<_>>(), got);
        prop_assert_eq!(parts.iter().map(|part| part.1.len()).sum::<usize>(), failures);
    }
}
