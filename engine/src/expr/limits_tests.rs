//! Expressions that are too large, or make too much, by those who write a pipeline or who send rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::DataFusionError;

use super::*;

fn schema() -> Schema {
    Schema::new(vec![Field::new("path", DataType::Utf8, true), Field::new("id", DataType::Int64, true)])
}

fn rows(path: &str, rows: usize) -> RecordBatch {
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec![path; rows])), Arc::new(Int64Array::from(vec![3; rows]))];
    RecordBatch::try_new(Arc::new(schema()), columns).expect("valid")
}

fn refused(sql: &str) -> String {
    let begun = Instant::now();
    let fault = Session::new().scalar(sql, &schema()).map(|_| ()).expect_err("too large").message;
    assert!(begun.elapsed() < Duration::from_secs(20), "{fault}");
    fault
}

fn nested(open: &str, middle: &str, close: &str, levels: usize) -> String {
    format!("{}{middle}{}", open.repeat(levels), close.repeat(levels))
}

#[test]
fn what_nests_too_deep_is_refused_and_does_not_overflow_a_stack() {
    for levels in [60, 500, 10_000] {
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("(", "true", ""),
            ("not ", "true", ""),
            ("- ", "id", ""),
            ("abs(", "id", ")"),
            ("cast(", "id", " as bigint)"),
            ("case when id = 1 then ", "id", " end"),
            ("case ", "id", ""),
            ("id in (", "1", ")"),
            ("[", "id", "]"),
        ] {
            let fault = refused(&nested(open, middle, close, levels));
            let is_said = ["nests more than", "words and signs", "bytes"].iter().any(|said| fault.contains(said));
            assert!(is_said, "{open} {levels}: {fault}");
        }
    }
    for sql in [
        nested("(", "true", ")", 30),
        nested("not ", "true", "", 30),
        nested("case when id = 1 then ", "1", " end", 30),
    ] {
        Session::new().scalar(&sql, &schema()).expect("not too deep");
    }
}

#[test]
fn a_long_row_of_operators_is_as_deep_as_it_is_long() {
    let chain = |part: &str, by: &str, parts: usize| vec![part; parts].join(by);
    for (part, by) in
        [("id <> 1", " and "), ("id", " + "), ("path", " = "), ("path = 'x'", " or "), ("id", "::bigint + ")]
    {
        for parts in [400, 2_000, 20_000] {
            let fault = refused(&chain(part, by, parts));
            let is_said = ["levels deep", "words and signs", "bytes"].iter().any(|said| fault.contains(said));
            assert!(is_said, "{part}{by} {parts}: {fault}");
        }
    }
    // In a first operand depths add up.
    let inner = nested("(", &chain("id", "+", 200), &format!("+ {})", chain("id", "+", 200)), 30);
    assert!(refused(&inner).contains("words and signs"));
    let sql = chain("id <> 1", " and ", 250);
    let mask = Session::new().scalar(&sql, &schema()).and_then(Scalar::truth).expect("not too deep");
    assert_eq!(mask.mask(&rows("/", 2)).expect("computes").true_count(), 2);
}

#[test]
fn long_lists_are_fine_up_to_a_bound() {
    let list = |values: usize| {
        let values: Vec<String> = (0..values).map(|value| format!("'/p{value}'")).collect();
        format!("path in ({})", values.join(", "))
    };
    let scalar = Session::new().scalar(&list(15_000), &schema()).and_then(Scalar::truth).expect("fine");
    assert_eq!(scalar.mask(&rows("/p14999", 1)).expect("computes").true_count(), 1);
    assert!(refused(&list(22_000)).contains("columns, values and operators"));
    assert!(refused(&list(100_000)).contains("bytes"));
    let whens: Vec<String> = (0..1_000).map(|n| format!("when path = '/p{n}' then {n}")).collect();
    Session::new().scalar(&format!("case {} end", whens.join(" ")), &schema()).expect("fine");
}

#[test]
fn patterns_are_constants_of_a_bounded_size() {
    for (sql, said) in [
        ("regexp_like(path, path)", "not a constant"),
        ("path ~ path", "not a constant"),
        ("path like path", "not a constant"),
        ("path ilike '%' || path", "not a constant"),
        ("regexp_replace(path, path, 'x') = 'y'", "not a constant"),
        ("regexp_count(path, path) > 1", "not a constant"),
        ("regexp_like(path, '((a{100}){100}){100}')", "when it is compiled"),
        ("path ~ '((\\w{100}){100}){100}'", "when it is compiled"),
        ("regexp_like(path, '(')", "unclosed group"),
    ] {
        assert!(refused(sql).contains(said), "{sql}: {}", refused(sql));
    }
    assert!(refused(&format!("regexp_like(path, '{}')", "a".repeat(20_000))).contains("bytes"));
    assert!(refused(&format!("path like '{}'", "a%".repeat(20_000))).contains("bytes"));
    let session = Session::new();
    for sql in ["regexp_like(path, '^' || '/x')", "path like '/%'", "path ~ '^/'", "regexp_like(path, '^/', 'i')"] {
        session.scalar(sql, &schema()).expect(sql);
    }
}

#[test]
fn a_call_that_would_make_too_much_is_an_error_of_the_row() {
    let session = Session::new();
    for sql in [
        "repeat(path, 100000000)",
        "repeat(path, id * 100000000)",
        "repeat(path, 9223372036854775807)",
        "lpad(path, 1000000000)",
        "rpad(path, 1000000000, path)",
        "replace(path, 'a', repeat('b', 60000))",
        "regexp_replace(path, '.', repeat('b', 60000), 'g')",
        "path || repeat(path, 200) || repeat(path, 200)",
        "concat(repeat(path, 200), repeat(path, 200))",
        "levenshtein(repeat(path, 100), path)",
    ] {
        let scalar = session.scalar(sql, &schema()).expect(sql);
        let error = scalar.evaluate(&rows(&"a".repeat(200), 4)).expect_err(sql).to_string();
        assert!(error.contains("could make"), "{sql}: {error}");
    }
    // As much as a batch may make is no matter of a row: who asks halves the batch.
    let scalar = session.scalar("repeat(path, 300)", &schema()).expect("valid");
    assert!(scalar.evaluate(&rows(&"a".repeat(200), 4_000)).is_err());
    assert_eq!(scalar.evaluate(&rows(&"a".repeat(200), 2)).expect("fits").as_string::<i32>().value(1).len(), 60_000);
    for sql in ["struct(path, path)", "named_struct('a', path)"] {
        assert!(session.scalar(sql, &schema()).is_err(), "{sql}");
    }
}

#[test]
fn texts_joined_are_null_if_one_is() {
    let scalar = Session::new().scalar("path || '?' || id || nullif(path, 'b')", &schema()).expect("valid");
    let text = |path: &str| {
        let values = scalar.evaluate(&rows(path, 1)).expect("computes");
        values.is_valid(0).then(|| values.as_string::<i32>().value(0).to_owned())
    };
    assert_eq!((text("a").as_deref(), text("b").as_deref()), (Some("a?3a"), None));
    assert_eq!(
        Session::new()
            .scalar("null || 'a'", &schema())
            .expect("valid")
            .evaluate(&rows("a", 2))
            .expect("null")
            .null_count(),
        2
    );
}

#[test]
fn a_panic_is_an_error() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let error = guarded(|| -> Result<(), DataFusionError> { panic!("index out of bounds") }).expect_err("a panic");
    std::panic::set_hook(hook);
    assert!(error.to_string().contains("the expression panicked: index out of bounds"), "{error}");
    assert!(!is_guarded());
}

#[test]
fn windows_are_bounded_alike() {
    let session = Session::new();
    let deep = vec!["id"; 2_000].join(" + ");
    for (sql, said) in [
        (format!("sum({deep}) over ()"), "words and signs"),
        ("max(regexp_like(path, path)) over ()".to_owned(), "not a constant"),
        ("string_agg(path, ',') over ()".to_owned(), "no function"),
        ("array_agg(path) over ()".to_owned(), "no function"),
    ] {
        let faults = session.windows(&[("x", &sql)], &schema()).expect_err("refused");
        assert!(faults[0].1.message.contains(said), "{sql}: {:?}", faults[0].1);
    }
}
