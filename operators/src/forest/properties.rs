//! What must hold for every forest, every row and every file.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::Value;

use super::math::log2;
use super::samples::{Blobs, auc, names};
use super::*;

fn blobs_and_forest(extension: Option<usize>) -> (Blobs, Forest) {
    let blobs = Blobs::new(500, 25, 6, 11);
    let options = Options { trees: 20, extension, seed: 3, between: Some((-5, 9)), ..Options::default() };
    let forest = train(&blobs.rows, &names(6), &options).expect("trains");
    (blobs, forest)
}

fn config(cases: u32, seed: u64) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

/// Ordinary and hostile numbers.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![6 => -9.0f32..9.0, 1 => any::<f32>(), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)]
}

/// Uses everything of a forest that came through.
fn exercise(forest: &Forest) {
    let width = forest.names().len();
    let row: Vec<f32> = (0..width).map(|i| i as f32 - 2.5).collect();
    let scores = forest.score_samples(Matrix::Rows { values: &row.repeat(9), width }).expect("the rows fit");
    assert!(scores.iter().all(|score| (-1.0..=0.0).contains(score)));
    let explanation = forest.explain(&row).expect("the row fits");
    assert_eq!(explanation.credits.len(), width);
    forest.score_drift(&scores);
    forest.baseline().iter().for_each(|baseline| assert!(baseline.psi(&row).is_some()));
    let again = Forest::parse(&forest.to_json().expect("can be written")).expect("what is written can be read");
    assert_eq!(&again, forest);
}

/// Puts `with` in place of the `at`th value of a document, counted through all levels.
fn replace(value: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *value = with.clone();
    }
    let Some(rest) = at.checked_sub(1) else { return };
    *at = rest;
    let inner: Vec<&mut Value> = match value {
        Value::Array(values) => values.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => return,
    };
    for inner in inner {
        replace(inner, at, with);
        if *at == 0 {
            *at = usize::MAX;
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(config(300, 1))]
    #[test]
    fn parse_survives_changed_bytes(
        extended in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, forest) = blobs_and_forest(extended.then_some(2));
        let mut bytes = forest.to_json().expect("can be written");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(forest) = Forest::parse(&bytes) {
            exercise(&forest);
        }
    }
}

proptest! {
    #![proptest_config(config(600, 2))]
    #[test]
    fn parse_survives_changed_values(
        extended in any::<bool>(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(vec![
            "null", "true", "-1", "0", "1", "2", "255", "65535", "65536", "1e30", "1e300", "-1e-46", "\"\"", "\"NaN\"",
            "\"inf\"", "\"1\"", "\"0\"", "\"11000\"", "[]", "[[]]", "{}", "18446744073709551615", "-9223372036854775808",
            "\"plain\"", "{\"extended\":{\"dimensions\":1}}", "{\"extended\":{\"dimensions\":64}}",
        ]),
    ) {
        let (_, forest) = blobs_and_forest(extended.then_some(2));
        let json = forest.to_json().expect("can be written");
        let mut document: Value = serde_json::from_slice(&json).expect("is JSON");
        // The tail of the document is one long list of numbers, so half of the changes go to its head.
        let count = count(&document);
        let mut at = at.index(2 * count) % count;
        if at.is_multiple_of(2) {
            at %= 250;
        }
        replace(&mut document, &mut at, &serde_json::from_str(with).expect("is JSON"));
        let changed = serde_json::to_vec(&document).expect("can be written");
        if let Ok(forest) = Forest::parse(&changed) {
            exercise(&forest);
        }
    }
}

proptest! {
    #![proptest_config(config(60, 3))]
    #[test]
    fn a_score_does_not_depend_on_the_rows_beside_it(
        values in prop::collection::vec(value(), 6 * 150),
        batch in 1usize..151,
        extended in any::<bool>(),
    ) {
        let (_, forest) = blobs_and_forest(extended.then_some(3));
        let together = forest.score_samples(Matrix::Rows { values: &values, width: 6 }).expect("fits");
        let batches = values.chunks(6 * batch).map(|values| Matrix::Rows { values, width: 6 });
        let apart: Vec<f64> = batches.flat_map(|rows| forest.score_samples(rows).expect("fits")).collect();
        prop_assert_eq!(&together, &apart);
        let columns: Vec<Vec<f32>> = (0..6).map(|i| values.iter().copied().skip(i).step_by(6).collect()).collect();
        let columns: Vec<&[f32]> = columns.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(&together, &forest.score_samples(Matrix::Columns(&columns)).expect("fits"));
    }
}

proptest! {
    #![proptest_config(config(200, 4))]
    #[test]
    fn credits_add_up_to_the_score(row in prop::collection::vec(value(), 6), extended in any::<bool>()) {
        let (_, forest) = blobs_and_forest(extended.then_some(3));
        let explanation = forest.explain(&row).expect("fits");
        let score = forest.score_samples(Matrix::Rows { values: &row, width: 6 }).expect("fits")[0];
        prop_assert_eq!(explanation.score, score);
        prop_assert_eq!(explanation.decision, score + 0.5);
        let sum: f64 = explanation.credits.iter().map(|credit| credit.credit).sum();
        prop_assert!((sum - (1.0 + log2(-score))).abs() < 1e-12);
        prop_assert!(explanation.credits.is_sorted_by(|a, b| a.credit >= b.credit));
    }
}

proptest! {
    #![proptest_config(config(150, 5))]
    #[test]
    fn any_rows_give_a_sound_forest_or_an_error(
        width in 1usize..6,
        values in prop::collection::vec(prop_oneof![4 => value(), 1 => Just(1.0), 1 => Just(0.0)], 0..300),
        max_samples in 2usize..40,
        extension in prop::option::of(1usize..8),
        seed in any::<u64>(),
    ) {
        let values = &values[..values.len() / width * width];
        let options = Options { trees: 5, max_samples, extension, seed, ..Options::default() };
        match train(values, &names(width), &options) {
            Ok(forest) => exercise(&forest),
            Err(error) => prop_assert!(matches!(error, TrainError::Rows(_) | TrainError::NothingVaries), "{}", error),
        }
    }
}

#[test]
fn a_forest_is_the_same_everywhere() {
    // FNV-1a of the files. Besides a change here, only serde_json writing numbers in another way may change them.
    let hash = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let json = |extension| {
        let (blobs, _) = blobs_and_forest(None);
        let options = Options { contamination: Some(0.05), extension, seed: 9, ..Options::default() };
        let train = || train(&blobs.rows, &names(6), &options).expect("trains").to_json().expect("can be written");
        assert_eq!(train(), std::thread::scope(|scope| scope.spawn(train).join().expect("trains")));
        train()
    };
    assert_eq!((hash(&json(None)), hash(&json(Some(3)))), (9092975289691153171, 11571373142641895341));
}

#[test]
fn another_seed_gives_another_forest() {
    let (blobs, forest) = blobs_and_forest(None);
    let other = train(&blobs.rows, &names(6), &Options { trees: 20, seed: 4, ..Options::default() }).expect("trains");
    assert_ne!(other.trees, forest.trees);
}

#[test]
fn outliers_are_told_from_two_groups() {
    for extension in [None, Some(2), Some(6)] {
        let (blobs, forest) = blobs_and_forest(extension);
        let scores = forest.score_samples(blobs.matrix()).expect("fits");
        let auc = auc(&scores, &blobs.outliers);
        println!("{extension:?}: AUC {auc:.4}");
        assert!(auc > 0.97, "{extension:?}: {auc}");
    }
}

#[test]
fn a_model_of_the_usual_size_is_below_a_megabyte() {
    let blobs = Blobs::new(2000, 20, 60, 1);
    for extension in [None, Some(2), Some(3)] {
        let forest = train(&blobs.rows, &names(60), &Options { extension, ..Options::default() }).expect("trains");
        let size = forest.to_json().expect("can be written").len();
        println!("{extension:?}: {size} bytes");
        assert!(size <= 1_000_000);
    }
}
