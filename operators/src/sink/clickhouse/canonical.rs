//! Rows without what they have in memory besides their values.
//!
//! An insert is named by the bytes that it sends, and made again after a crash from rows that come in other batches. So what is sent
//! must depend on the values alone: not on rows that were beside them in a batch that they were cut out of, and not on what was
//! below a null, such as a text that a `case` has taken away.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, MutableArrayData, RecordBatch, make_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// The same rows; columns that are so already are not copied.
pub(super) fn canonical(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (schema, columns, _) = rows.into_parts();
    let columns = columns.iter().map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema, columns)
}

fn column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(flags) = column.as_boolean_opt() {
        return Ok(Arc::new(boolean(flags)));
    }
    let data = column.to_data();
    if is_canonical(&data) { Ok(Arc::clone(column)) } else { copy(&data).map(make_array) }
}

fn boolean(flags: &BooleanArray) -> BooleanArray {
    let nulls = flags.nulls().filter(|nulls| nulls.null_count() > 0);
    let is_set = |at| flags.values().value(at) && nulls.is_none_or(|nulls| nulls.is_valid(at));
    let nulls = nulls.map(|nulls| NullBuffer::new(BooleanBuffer::collect_bool(flags.len(), |at| nulls.is_valid(at))));
    BooleanArray::new(BooleanBuffer::collect_bool(flags.len(), is_set), nulls)
}

fn is_canonical(data: &ArrayData) -> bool {
    if data.data_type().is_nested() {
        return false;
    }
    let Some(nulls) = data.nulls() else { return true };
    let bits = nulls.inner();
    let end = bits.offset() + bits.len();
    let ends_alone = end.is_multiple_of(8) || bits.values()[end / 8] >> (end % 8) == 0;
    nulls.null_count() > 0 && bits.offset().is_multiple_of(8) && ends_alone && {
        let mut at = 0;
        let gaps = nulls.valid_slices().chain([(data.len(), data.len())]);
        gaps.map(|(from, upto)| (std::mem::replace(&mut at, upto), from)).all(|(from, upto)| is_blank(data, from, upto))
    }
}

/// Whether there are no bytes of these rows, or only zeros.
fn is_blank(data: &ArrayData, from: usize, upto: usize) -> bool {
    let width = match data.data_type() {
        DataType::Utf8 | DataType::Binary => {
            let ends = data.buffer::<i32>(0);
            return ends[from] == ends[upto];
        }
        DataType::LargeUtf8 | DataType::LargeBinary => {
            let ends = data.buffer::<i64>(0);
            return ends[from] == ends[upto];
        }
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    };
    let bytes = |width| &data.buffers()[0][(data.offset() + from) * width..(data.offset() + upto) * width];
    width.is_some_and(|width| bytes(width).iter().all(|byte| *byte == 0))
}

/// What is valid, with nothing below the nulls.
fn copy(data: &ArrayData) -> Result<ArrayData, ArrowError> {
    let mut made = MutableArrayData::new(vec![data], true, data.len());
    let mut at = 0;
    let all = || vec![(0, data.len())];
    for (from, upto) in data.nulls().map_or_else(all, |nulls| nulls.valid_slices().collect()) {
        made.try_extend_nulls(from - at)?;
        made.try_extend(0, from, upto)?;
        at = upto;
    }
    made.try_extend_nulls(data.len() - at)?;
    let made = made.freeze();
    if made.child_data().is_empty() {
        return Ok(made);
    }
    let children = made.child_data().iter().map(|child| Ok(column(&make_array(child.clone()))?.to_data()));
    let children = children.collect::<Result<_, ArrowError>>()?;
    made.into_builder().child_data(children).build()
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Int64Array, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::compute::nullif;
    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::super::part::{Part, bytes};
    use super::*;

    /// Rows with columns of each kind of memory, nothing below their nulls.
    fn rows(values: &[Option<i64>]) -> RecordBatch {
        let some = || values.iter().copied();
        let text = || {
            Arc::new(StringArray::from_iter(some().map(|value| value.map(|value| format!("text {value}"))))) as ArrayRef
        };
        let columns: [(&str, ArrayRef); 6] = [
            ("number", Arc::new(Int64Array::from_iter(some()))),
            ("text", text()),
            ("flag", Arc::new(BooleanArray::from_iter(some().map(|value| value.map(|value| value % 2 == 0))))),
            ("bytes", Arc::new(BinaryArray::from_iter(some().map(|value| value.map(i64::to_be_bytes))))),
            ("list", list(text(), values)),
            ("struct", structure(text(), values)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("valid")
    }

    /// The same rows, with something below each null.
    fn untidy(values: &[Option<i64>]) -> RecordBatch {
        let below: Vec<i64> = values.iter().map(|value| value.unwrap_or(4)).collect();
        let taken = BooleanArray::from_iter(values.iter().map(|value| Some(value.is_none())));
        let clean = rows(&below.iter().copied().map(Some).collect::<Vec<_>>());
        let text = nullif(clean.column(1), &taken).expect("valid");
        let mut columns: Vec<ArrayRef> =
            clean.columns()[..4].iter().map(|column| nullif(column, &taken).expect("valid")).collect();
        columns.extend([list(Arc::clone(&text), values), structure(text, values)]);
        RecordBatch::try_new(rows(values).schema(), columns).expect("valid")
    }

    /// A list of one text for each row; some lists are null, and still have it.
    fn list(texts: ArrayRef, values: &[Option<i64>]) -> ArrayRef {
        let field = Arc::new(Field::new("item", DataType::Utf8, true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(vec![1; values.len()]), texts, Some(some(values))))
    }

    fn some(values: &[Option<i64>]) -> NullBuffer {
        NullBuffer::from_iter(values.iter().map(|value| value.is_none_or(|value| value % 3 != 0)))
    }

    fn structure(texts: ArrayRef, values: &[Option<i64>]) -> ArrayRef {
        let nulls = some(values);
        Arc::new(StructArray::new(vec![Field::new("inner", DataType::Utf8, true)].into(), vec![texts], Some(nulls)))
    }

    #[test]
    fn what_is_canonical_is_not_copied() {
        let rows = rows(&[Some(1), None, Some(3)]);
        let same = canonical(rows.clone()).expect("valid");
        for at in [0, 1, 3] {
            assert!(Arc::ptr_eq(rows.column(at), same.column(at)), "{at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(31), ..ProptestConfig::default() })]

        /// Whatever rows were cut out of, and whatever is below their nulls: an insert of them has one name and one size.
        #[test]
        fn an_insert_depends_on_values_alone(
            values in prop::collection::vec(prop::option::of(any::<i64>()), 1..60),
            from in 0usize..60, many in 1usize..60, hidden in any::<bool>(),
        ) {
            let from = from % values.len();
            let upto = (from + many).min(values.len());
            let alone = canonical(rows(&values[from..upto])).expect("valid");
            let all = if hidden { untidy(&values) } else { rows(&values) };
            let cut = canonical(all.slice(from, upto - from)).expect("valid");
            prop_assert_eq!(&cut, &alone);
            prop_assert_eq!(bytes(&cut).expect("known"), bytes(&alone).expect("known"));
            let token = |rows| Part::new("s.t-5-0", rows).expect("encodes").token;
            prop_assert_eq!(token(cut), token(alone));
        }
    }
}
