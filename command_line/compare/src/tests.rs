use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, UInt64Array};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("valid")
}

fn key(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn scores(rows: &[(&str, f64)]) -> RecordBatch {
    let host: StringArray = rows.iter().map(|(host, _)| Some(*host)).collect();
    let score: Float64Array = rows.iter().map(|(_, score)| Some(*score)).collect();
    batch(vec![("host", Arc::new(host)), ("score", Arc::new(score))])
}

#[test]
fn rows_are_found_by_key_whatever_their_order() {
    let before = [scores(&[("c", 3.0), ("a", 1.0)]), scores(&[("b", 2.0), ("d", f64::NAN)])];
    let after = [scores(&[("d", f64::NAN), ("b", 2.5), ("c", 3.0 + 1e-12), ("e", 0.5)])];
    let found = compare(&key(&["host"]), &before, &after, 5).expect("compared");
    assert_eq!((found.before, found.after, found.new, found.gone, found.changed), (4, 4, 1, 1, 1));
    let text = |name: &str, value: Value| (name.to_owned(), value);
    assert_eq!(found.new_rows[0].key, [text("host", json!("e"))]);
    assert_eq!(found.gone_rows[0].values, [text("host", json!("a")), text("score", json!(1.0))]);
    let Changed { key: of, columns } = &found.changed_rows[0];
    assert_eq!((of, columns.len()), (&vec![text("host", json!("b"))], 1));
    assert_eq!(columns[0], ("score".to_owned(), json!(2.0), json!(2.5)));
    assert_eq!(found.columns, BTreeMap::from([("score".to_owned(), 1)]));
}

#[test]
fn columns_may_come_go_and_change_their_type() {
    let n: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let before = batch(vec![("k", n.clone()), ("v", n.clone()), ("old", n.clone())]);
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![1, 3]));
    let after = batch(vec![("new", n.clone()), ("v", wide), ("k", Arc::new(UInt64Array::from(vec![1, 2])))]);
    let found = compare(&key(&["k"]), std::slice::from_ref(&before), &[after], 5).expect("compared");
    assert_eq!((found.new, found.gone, found.changed, found.is_same()), (0, 0, 1, false));
    assert_eq!((found.columns_gone, found.columns_new), (vec!["old".to_owned()], vec!["new".to_owned()]));
    let error = compare(&key(&["nothing"]), std::slice::from_ref(&before), std::slice::from_ref(&before), 5)
        .expect_err("no such column");
    assert_eq!(error.to_string(), "the column `nothing` of the key is not in both tables");
    let found = compare(&key(&["k"]), &[before], &[], 1).expect("compared");
    assert_eq!((found.gone, found.gone_rows.len()), (2, 1));
    assert!(compare(&key(&["k"]), &[], &[], 1).expect("compared").is_same());
}

/// What a comparison must find, by counting: rows by key, those of equal values first, then the others in pairs.
fn counted(before: &[(u8, u8)], after: &[(u8, u8)]) -> (u64, u64, u64) {
    let (mut new, mut gone, mut changed) = (0, 0, 0);
    for key in 0..=u8::MAX {
        let of = |rows: &[(u8, u8)]| rows.iter().filter(|row| row.0 == key).map(|row| row.1).collect::<Vec<_>>();
        let (mut a, mut b) = (of(before), of(after));
        a.retain(|value| match b.iter().position(|other| other == value) {
            Some(at) => {
                b.remove(at);
                false
            }
            None => true,
        });
        let pairs = a.len().min(b.len()) as u64;
        changed += pairs;
        gone += a.len() as u64 - pairs;
        new += b.len() as u64 - pairs;
    }
    (new, gone, changed)
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(34), ..ProptestConfig::default() })]

    #[test]
    fn a_comparison_finds_what_counting_finds(
        before in prop::collection::vec((0u8..12, 0u8..3), 0..40),
        after in prop::collection::vec((0u8..12, 0u8..3), 0..40),
        size in 1usize..20,
    ) {
        let batches = |rows: &[(u8, u8)]| rows.chunks(size).map(|rows| batch(vec![
            ("k", Arc::new(rows.iter().map(|row| Some(i64::from(row.0))).collect::<Int64Array>())),
            ("v", Arc::new(rows.iter().map(|row| Some(i64::from(row.1))).collect::<Int64Array>())),
        ])).collect::<Vec<_>>();
        let found = compare(&key(&["k"]), &batches(&before), &batches(&after), 3).expect("compared");
        prop_assert_eq!((found.new, found.gone, found.changed), counted(&before, &after));
        prop_assert_eq!((found.before, found.after), (before.len() as u64, after.len() as u64));
        prop_assert!(found.new_rows.len() as u64 == found.new.min(3) && found.changed_rows.len() as u64 == found.changed.min(3));
    }
}
