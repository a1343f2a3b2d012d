//! How a batch travels between processes.
//!
//! Timely asks serde twice for each message, first for its length and then for its bytes. So nothing is encoded here: the
//! columns' buffers are handed to serde as they are in memory, cut to the rows of the batch, which costs nothing for the
//! length and one copy for the bytes. Columns of a type that this file does not know travel as an Arrow IPC stream.
//!
//! Both sides run the same version of this program (the engine sees to it), so the form is free to change.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Schema};
use arrow::error::ArrowError;
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_schema;
use arrow::ipc::writer::StreamWriter;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Batch, Origin};

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    diff: i8,
    late: bool,
    settled: bool,
    route: u64,
    origin: Origin,
    #[serde(borrow)]
    rows: Rows<'a>,
}

#[derive(Serialize, Deserialize)]
enum Rows<'a> {
    /// Buffers of all columns, depth first.
    Buffers {
        #[serde(borrow)]
        schema: Bytes<'a>,
        rows: usize,
        arrays: Vec<Head>,
        #[serde(borrow)]
        buffers: Vec<Bytes<'a>>,
    },
    /// An Arrow IPC stream.
    Ipc(#[serde(borrow)] Bytes<'a>),
}

/// What is to be known of an array besides its type and buffers.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Head {
    len: usize,
    /// The first of its buffers says which values are null.
    nulls: bool,
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut columns = Columns::default();
        let known = self.rows.columns().iter().all(|column| columns.put(&column.to_data()).is_some());
        let rows = if known {
            let schema = IpcSchemaEncoder::new().schema_to_fb(self.rows.schema_ref());
            let schema = Bytes::Owned(schema.finished_data().to_vec());
            let buffers = columns.buffers.into_iter().map(Bytes::Shared).collect();
            Rows::Buffers { schema, rows: self.rows.num_rows(), arrays: columns.heads, buffers }
        } else {
            Rows::Ipc(Bytes::Owned(to_ipc(&self.rows).map_err(serde::ser::Error::custom)?))
        };
        let Self { diff, late, settled, route, origin, .. } = *self;
        Wire { diff, late, settled, route, origin, rows }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { diff, late, settled, route, origin, rows } = Wire::deserialize(deserializer)?;
        let rows = match rows {
            Rows::Ipc(ipc) => from_ipc(ipc.as_slice()),
            Rows::Buffers { schema, rows, arrays, buffers } => from_buffers(schema.as_slice(), rows, &arrays, &buffers),
        };
        let rows = rows.map_err(D::Error::custom)?;
        Ok(Self { rows, diff, late, settled, route, origin })
    }
}

fn to_ipc(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    writer.into_inner()
}

fn from_ipc(ipc: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(ipc, None)?;
    reader.next().ok_or_else(|| damaged("no rows"))?
}

fn from_buffers(schema: &[u8], rows: usize, heads: &[Head], buffers: &[Bytes<'_>]) -> Result<RecordBatch, ArrowError> {
    let schema: Schema = fb_to_schema(root_as_schema(schema).map_err(|_| damaged("no schema"))?);
    let mut rest = Rest { heads: heads.iter(), buffers: buffers.iter() };
    let columns = schema.fields().iter().map(|field| Ok(make_array(rest.take(field.data_type())?)));
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
}

fn damaged(what: &str) -> ArrowError {
    ArrowError::IpcError(format!("a batch from another process has {what}"))
}

/// How the values of a type lie in memory.
enum Layout<'a> {
    /// One bit a value.
    Bits,
    /// So many bytes a value.
    Fixed(usize),
    /// Ends of so many bytes, then the bytes of all values.
    Variable(usize),
    /// Ends of so many bytes, then the elements of all values.
    List(usize, &'a DataType),
}

fn layout(ty: &DataType) -> Option<Layout<'_>> {
    Some(match ty {
        DataType::Boolean => Layout::Bits,
        DataType::Utf8 | DataType::Binary => Layout::Variable(4),
        DataType::LargeUtf8 | DataType::LargeBinary => Layout::Variable(8),
        DataType::List(field) => Layout::List(4, field.data_type()),
        DataType::LargeList(field) => Layout::List(8, field.data_type()),
        DataType::FixedSizeBinary(width) => Layout::Fixed(usize::try_from(*width).ok()?),
        ty => Layout::Fixed(ty.primitive_width()?),
    })
}

/// The arrays of a batch, taken apart.
#[derive(Default)]
struct Columns {
    heads: Vec<Head>,
    buffers: Vec<Buffer>,
}

impl Columns {
    /// `None` for a type that is not known here.
    fn put(&mut self, data: &ArrayData) -> Option<()> {
        let layout = layout(data.data_type())?;
        let (len, offset) = (data.len(), data.offset());
        let nulls = data.nulls().filter(|nulls| nulls.null_count() > 0);
        self.heads.push(Head { len, nulls: nulls.is_some() });
        self.buffers.extend(nulls.map(|nulls| nulls.inner().sliced()));
        let first = data.buffers().first()?;
        match layout {
            Layout::Bits => self.buffers.push(first.bit_slice(offset, len)),
            Layout::Fixed(width) => self.buffers.push(first.slice_with_length(offset * width, len * width)),
            Layout::Variable(width) => {
                let (ends, from, to) = ends(first, width, offset, len)?;
                self.buffers.push(ends);
                self.buffers.push(data.buffers().get(1)?.slice_with_length(from, to - from));
            }
            Layout::List(width, _) => {
                let (ends, from, to) = ends(first, width, offset, len)?;
                self.buffers.push(ends);
                self.put(&data.child_data().first()?.slice(from, to - from))?;
            }
        }
        Some(())
    }
}

/// The ends of `len` values, counted from the beginning of the first, and where the first begins and the last ends.
fn ends(buffer: &Buffer, width: usize, offset: usize, len: usize) -> Option<(Buffer, usize, usize)> {
    if width == 4 { ends_of::<i32>(buffer, offset, len) } else { ends_of::<i64>(buffer, offset, len) }
}

fn ends_of<T: ArrowNativeType + std::ops::Sub<Output = T>>(
    buffer: &Buffer,
    offset: usize,
    len: usize,
) -> Option<(Buffer, usize, usize)> {
    // An array without values may come without ends.
    let all: &[T] = buffer.typed_data();
    if len == 0 || all.is_empty() {
        return Some((Buffer::from_vec(vec![T::default()]), 0, 0));
    }
    let ends = all.get(offset..=offset + len)?;
    let (first, last) = (*ends.first()?, *ends.last()?);
    let width = size_of::<T>();
    let moved = if first == T::default() {
        buffer.slice_with_length(offset * width, (len + 1) * width)
    } else {
        ends.iter().map(|end| *end - first).collect::<Vec<T>>().into()
    };
    Some((moved, first.as_usize(), last.as_usize()))
}

/// What is still to be put together.
struct Rest<'a> {
    heads: std::slice::Iter<'a, Head>,
    buffers: std::slice::Iter<'a, Bytes<'a>>,
}

impl Rest<'_> {
    /// The next array. Checked: it is as valid as one that Arrow has built.
    fn take(&mut self, ty: &DataType) -> Result<ArrayData, ArrowError> {
        let Head { len, nulls } = *self.heads.next().ok_or_else(|| damaged("too few columns"))?;
        let layout = layout(ty).ok_or_else(|| damaged("a type of its own"))?;
        let mut builder = ArrayData::builder(ty.clone()).len(len);
        if nulls {
            let bits = self.buffer()?;
            if bits.len() < len.div_ceil(8) {
                return Err(damaged("too few bits"));
            }
            builder = builder.nulls(Some(NullBuffer::new(BooleanBuffer::new(bits, 0, len))));
        }
        builder = builder.add_buffer(self.buffer()?);
        match layout {
            Layout::Bits | Layout::Fixed(_) => builder.build(),
            Layout::Variable(_) => builder.add_buffer(self.buffer()?).build(),
            Layout::List(_, ty) => builder.add_child_data(self.take(ty)?).build(),
        }
    }

    /// Copied, since what comes over the network is not aligned.
    fn buffer(&mut self) -> Result<Buffer, ArrowError> {
        let bytes = self.buffers.next().ok_or_else(|| damaged("too few buffers"))?;
        Ok(Buffer::from(bytes.as_slice()))
    }
}

/// Bytes that serde handles as a whole, not one by one.
enum Bytes<'a> {
    Owned(Vec<u8>),
    Shared(Buffer),
    Borrowed(&'a [u8]),
}

impl Bytes<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(buffer) => buffer.as_slice(),
            Self::Borrowed(bytes) => bytes,
        }
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_slice())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Bytes<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Bytes::Borrowed(bytes))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Bytes::Owned(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Self::Value, A::Error> {
                let mut owned = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    owned.push(byte);
                }
                Ok(Bytes::Owned(owned))
            }
        }
        deserializer.deserialize_bytes(Take)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, LargeStringArray, ListArray,
        StringArray, UInt16Array,
    };
    use arrow::datatypes::{Field, Int32Type, UInt64Type};
    use timely::bytes::arc::BytesMut;
    use timely::dataflow::channels::ContainerBytes;

    use super::*;
    use crate::batch::{TIME, time_array};

    /// As timely does it.
    fn sent(batches: &Vec<Batch>) -> Vec<Batch> {
        let mut bytes = Vec::new();
        batches.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), batches.length_in_bytes());
        ContainerBytes::from_bytes(BytesMut::from(bytes).freeze())
    }

    fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>()).with_metadata([("a".into(), "b".into())].into());
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(schema), columns).expect("valid")
    }

    /// 40 rows of every type that is known here, with and without nulls.
    fn every_type() -> RecordBatch {
        let text = |n: i64| (n % 7 > 0).then(|| "é".repeat(usize::try_from(n % 5).expect("small")));
        let list =
            |n: i64| (n % 4 > 0).then(|| (0..n % 3).map(|m| (m != 1).then(|| n.unsigned_abs())).collect::<Vec<_>>());
        let binary = (0..40).map(|n| (n != 3).then_some([n, 1, 2]));
        let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(binary, 3).expect("valid");
        rows(vec![
            (TIME, time_array((0..40).collect())),
            ("number", Arc::new((0..40).map(|n| (n % 3 > 0).then_some(n)).collect::<UInt16Array>())),
            ("real", Arc::new((0..40).map(f64::from).collect::<Float64Array>())),
            ("flag", Arc::new((0..40).map(|n| (n % 5 > 0).then_some(n % 2 == 0)).collect::<BooleanArray>())),
            ("text", Arc::new((0..40).map(text).collect::<StringArray>())),
            ("large", Arc::new((0..40).map(text).collect::<LargeStringArray>())),
            ("fixed", Arc::new(fixed)),
            ("list", Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>((0..40).map(list)))),
            ("nothing", Arc::new(StringArray::from(vec![None::<&str>; 40]))),
        ])
    }

    #[test]
    fn every_slice_of_every_type_arrives_as_it_was_sent() {
        let all = every_type();
        for from in 0..=all.num_rows() {
            for len in [0, 1, 8, 13, all.num_rows()] {
                let slice = all.slice(from, len.min(all.num_rows() - from));
                let batch = Batch { diff: -1, late: true, settled: false, route: 9, origin: 3, rows: slice };
                let [back] = sent(&vec![batch.clone()]).try_into().expect("one batch");
                assert_eq!(back.rows, batch.rows, "{len} rows from {from}");
                assert_eq!((back.diff, back.late, back.settled, back.route, back.origin), (-1, true, false, 9, 3));
            }
        }
    }

    #[test]
    fn a_slice_takes_its_rows_only() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["0123456789"; 10_000]));
        let slice = rows(vec![("text", text)]).slice(5_000, 3);
        assert!(vec![Batch::new(slice)].length_in_bytes() < 1_000);
    }

    #[test]
    fn other_types_and_batches_without_columns_arrive_too() {
        let words: DictionaryArray<Int32Type> = [Some("a"), None, Some("b")].into_iter().collect();
        let none = RecordBatchOptions::new().with_row_count(Some(5));
        let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &none).expect("valid");
        let batches = vec![Batch::new(rows(vec![("word", Arc::new(words))])), Batch::new(none)];
        let back = sent(&batches);
        assert_eq!(back.len(), 2);
        for (back, batch) in back.iter().zip(&batches) {
            assert_eq!(back.rows, batch.rows);
        }
    }

    #[test]
    fn damage_is_an_error() {
        let text = serde_json::to_string(&Batch::new(every_type())).expect("encodes");
        let fewer = text.replacen("{\"len\":40,\"nulls\":true}", "{\"len\":9000,\"nulls\":true}", 1);
        assert_ne!(text, fewer);
        assert!(serde_json::from_str::<Batch>(&fewer).is_err());
    }
}
