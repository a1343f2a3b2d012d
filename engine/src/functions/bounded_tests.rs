use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use proptest::prelude::*;

use super::*;

fn bound(name: &str, args: &[ColumnarValue]) -> usize {
    upper_bound(name, &Row { args, row: 0 })
}

#[test]
fn the_bound_counts_every_place_and_group() {
    let scalar = |s: &str| ColumnarValue::Scalar(ScalarValue::from(s));
    let args = [scalar("aaaa"), scalar("a"), scalar("$1$1")];
    assert_eq!(bound("replace", &args), 4 + 5 * 4);
    assert_eq!(bound("regexp_replace", &args), 4 + 4 + 4 * 2);
    assert_eq!(bound("concat", &args), 9);
    assert_eq!(bound("concat_ws", &args), 9 + 12);
    let global = [scalar("aaaa"), scalar("a"), scalar("bb"), scalar("g")];
    assert_eq!(bound("regexp_replace", &global), 4 + 5 * 2);
    let number = |n: i64| ColumnarValue::Scalar(ScalarValue::Int64(Some(n)));
    assert_eq!(bound("repeat", &[scalar("aaaa"), number(i64::MAX)]), usize::MAX);
    assert_eq!(bound("repeat", &[scalar("aaaa"), number(-1)]), 0);
    assert_eq!(bound("lpad", &[scalar("aaaa"), number(10)]), 40);
}

proptest! {
    /// What a function makes is never more than the bound says.
    #[test]
    fn no_result_is_larger_than_its_bound(
        texts in proptest::collection::vec("[aé$1\\\\]{0,12}", 3),
        count in -2i64..40,
        global in any::<bool>(),
    ) {
        let column = |text: &str| ColumnarValue::Array(Arc::new(StringArray::from(vec![text])) as ArrayRef);
        let scalar = |text: &str| ColumnarValue::Scalar(ScalarValue::from(text));
        let number = ColumnarValue::Array(Arc::new(Int64Array::from(vec![count])) as ArrayRef);
        let [a, b, c] = [0, 1, 2].map(|nth: usize| column(&texts[nth]));
        let flags = scalar(if global { "g" } else { "i" });
        for (name, args) in [
            ("replace", vec![a.clone(), b.clone(), c.clone()]),
            ("concat", vec![a.clone(), b.clone(), c.clone()]),
            ("concat_ws", vec![scalar(&texts[0]), b.clone(), c.clone()]),
            ("regexp_replace", vec![a.clone(), scalar("(a?)"), scalar(&texts[2]), flags]),
            ("repeat", vec![a.clone(), number.clone()]),
            ("lpad", vec![a.clone(), number.clone(), b.clone()]),
            ("rpad", vec![a.clone(), number, b.clone()]),
        ] {
            let most = bound(name, &args);
            let fields = args.iter().map(|arg| Arc::new(arrow::datatypes::Field::new("x", arg.data_type(), true))).collect();
            let function = datafusion::functions::all_default_functions()
                .into_iter().find(|f| f.name() == name).expect("known");
            let call = ScalarFunctionArgs {
                args,
                arg_fields: fields,
                number_rows: 1,
                return_field: Arc::new(arrow::datatypes::Field::new("x", DataType::Utf8, true)),
                config_options: Arc::default(),
            };
            let called = catch_unwind(AssertUnwindSafe(|| function.inner().invoke_with_args(call)));
            // Some panic for a count below 0, which is an error of the row.
            let Ok(Ok(value)) = called else { continue };
            let made = value.to_array(1).expect("an array");
            let made = text_at(&made, 0).map_or(0, str::len);
            prop_assert!(made <= most, "{name}: {made} > {most}");
        }
    }
}
