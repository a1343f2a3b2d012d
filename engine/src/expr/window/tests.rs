use arrow::array::{Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType::{Float64, Int64, Utf8};
use arrow::util::display::array_value_to_string;

use super::*;

fn rows(of: &[(Option<&str>, i64)]) -> RecordBatch {
    let fields = vec![Field::new("ja4", Utf8, true), Field::new("unused", Utf8, true), Field::new("hits", Int64, true)];
    let ja4: StringArray = of.iter().map(|(ja4, _)| *ja4).collect();
    let hits: Int64Array = of.iter().map(|(_, hits)| Some(*hits)).collect();
    let unused = new_null_array(&Utf8, of.len());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(ja4), unused, Arc::new(hits)]).expect("valid")
}

/// Each column's values as text, and how many could not be computed.
fn values(columns: &[(&str, &str)], rows: &RecordBatch) -> (Vec<String>, usize) {
    let windows = Session::new().windows(columns, &rows.schema()).expect("compiles");
    let (arrays, failed) = windows.evaluate(rows).expect("evaluates");
    let text = |array: &ArrayRef| {
        let cells = (0..array.len()).map(|row| array_value_to_string(array, row).expect("text"));
        cells.collect::<Vec<_>>().join(" ")
    };
    (arrays.iter().map(text).collect(), failed)
}

#[test]
fn each_row_is_seen_beside_its_group() {
    let rows = rows(&[(Some("a"), 5), (Some("b"), 1), (Some("a"), 2), (None, 7), (Some("b"), 1)]);
    let columns = [
        ("sum", "sum(hits) over (partition by ja4)"),
        ("share", "1.0 * hits / sum(hits) over (partition by ja4)"),
        ("some", "count(*) filter (where hits > 1) over (partition by ja4)"),
        ("kinds", "count(distinct ja4) over ()"),
        ("rank", "rank() over (order by hits desc)"),
        ("so_far", "sum(hits) over (order by hits)"),
        ("number", "row_number() over (order by hits)"),
        ("worst", "max(ja4) over ()"),
        ("prior", "lag(hits) over (partition by ja4 order by hits)"),
        ("again", "sum + 1"),
        ("most", "max(again) over () - min(sum) over (partition by ja4)"),
    ];
    let (values, failed) = values(&columns, &rows);
    assert_eq!(failed, 0);
    let expected = [
        "7 2 7 7 2",
        "0.7142857142857143 0.5 0.2857142857142857 1.0 0.5",
        "2 0 2 1 0",
        "2 2 2 2 2",
        "2 4 3 1 4",
        "9 2 4 16 2",
        "4 1 3 5 2",
        "b b b b b",
        "2    1",
        "8 3 8 8 3",
        "1 6 1 1 6",
    ];
    assert_eq!(values, expected);
}

#[test]
fn what_columns_share_is_computed_once() {
    let rows = rows(&[(Some("a"), 1)]);
    let columns = [
        ("a", "sum(hits) over (partition by ja4) + sum(hits) over ()"),
        ("b", "sum(hits) over (partition by ja4) + max(hits) over (order by hits)"),
        ("c", "max(hits) over (partition by ja4)"),
    ];
    let windows = Session::new().windows(&columns, &rows.schema()).expect("compiles");
    assert_eq!((windows.orders.len(), windows.steps.len()), (3, 3 + 4));
    assert_eq!(windows.read(), [0, 2], "without the column that nothing uses");
    let types: Vec<&DataType> = windows.fields().iter().map(|field| field.data_type()).collect();
    assert_eq!(types, [&Int64, &Int64, &Int64]);
    let of_groups = |step: &&Step| matches!(&step.value, Value::Function(f) if matches!(f.how, How::Groups(..)));
    assert_eq!(windows.steps.iter().filter(of_groups).count(), 3, "aggregates take one pass");
}

#[test]
fn what_cannot_be_computed_is_null_and_counted() {
    let rows = rows(&[(Some("1"), 1), (Some("x"), 0), (None, 2)]);
    let columns = [
        ("quotient", "4 / hits + 0 * count(*) over ()"),
        ("cast", "max(cast(ja4 as int)) over ()"),
        ("fine", "count(*) over ()"),
    ];
    let (values, failed) = values(&columns, &rows);
    assert_eq!((values, failed), (["4  2", "  ", "3 3 3"].map(str::to_owned).to_vec(), 1 + 3));
}

#[test]
fn faults_name_the_column_and_the_wrong_word() {
    let rows = rows(&[]);
    let schema = rows.schema();
    let fault = |sql: &str| {
        let faults = Session::new().windows(&[("good", "hits + 1"), ("bad", sql)], &schema).expect_err(sql);
        assert_eq!((faults.len(), faults[0].0), (1, 1), "{sql}");
        faults[0].1.clone()
    };
    let part = |sql: &str| fault(sql).part.unwrap_or_default();
    assert_eq!(part("sum(hit) over (partition by ja4)"), "hit");
    assert_eq!(part("sum(hits) over (partition by ja)"), "ja");
    assert_eq!(part("rnk() over (order by hits)"), "rnk");
    assert_eq!(part("sum(hits)"), "sum");
    assert!(fault("sum(hits)").help.is_some_and(|help| help.contains("over (partition by")));
    assert_eq!(part("sum(rank() over (order by hits)) over ()"), "rank");
    assert_eq!(part("max(random()) over ()"), "random");
    for sql in ["", "sum(ja4) over ()", "hits over ()", "null", "(select 1)"] {
        assert!(!fault(sql).message.is_empty(), "{sql}");
    }
    let twice = Session::new().windows(&[("hits", "1")], &schema).expect_err("there already");
    assert!(twice[0].1.message.contains("`hits`"), "{twice:?}");
    let before = Session::new().windows(&[("a", "b + 1"), ("b", "1")], &schema).expect_err("further down");
    assert_eq!(before[0].1.part.as_deref(), Some("b"));
}

/// Not a bound that holds everywhere: it prints what an hour of a large site costs.
#[test]
#[ignore = "prints figures"]
fn what_a_large_partition_costs() {
    let len: i64 = 1_000_000;
    for kinds in [2_000, 200_000] {
        let ja4: StringArray = (0..len).map(|row| Some(format!("t13d1516h2_{:012x}", row * 7919 % kinds))).collect();
        let hits: Float64Array = (0..len).map(|row| Some((row * 31 % 1009) as f64)).collect();
        let schema = Schema::new(vec![Field::new("ja4", Utf8, true), Field::new("hits", Float64, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ja4), Arc::new(hits)]).expect("valid");
        for sql in [
            "sum(hits) over (partition by ja4)",
            "count(distinct hits) over (partition by ja4)",
            "percent_rank() over (order by hits)",
            "row_number() over (partition by ja4 order by hits)",
        ] {
            let windows = Session::new().windows(&[("x", sql)], &rows.schema()).expect("compiles");
            let start = std::time::Instant::now();
            windows.evaluate(&rows).expect("evaluates");
            println!("{kinds} ja4: {sql}: {:?}", start.elapsed());
        }
    }
}
