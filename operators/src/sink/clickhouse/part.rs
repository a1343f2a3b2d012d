//! One insert: its rows, the Arrow stream that is sent of them, and its name.
//!
//! A row of http_logs has 1.8 kB, so what is done with each byte decides how many rows a second a core can send. The stream is
//! made of the memory that the columns have; nothing is put together before it is compressed.

use std::ops::Range;

use arrow::array::{Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamEncoder;
use bytes::Bytes;
use twox_hash::XxHash3_128;

/// One insert.
pub(super) struct Part {
    /// What the server recognises it by.
    pub token: String,
    rows: RecordBatch,
    /// An Arrow stream of the rows.
    body: Vec<Buffer>,
}

impl Part {
    /// Of rows that are [`tidy`](super::canonical::canonical): the name is that of their place and what they hold.
    ///
    /// The hash (XXH3) is not one that holds against somebody who looks for collisions, which would gain nothing: there is one insert at
    /// a place, and what is told apart is whether a later run has made the same one again.
    pub fn new(place: &str, rows: RecordBatch) -> Result<Self, ArrowError> {
        let body = stream(&rows)?;
        let mut hash = XxHash3_128::new();
        body.iter().for_each(|buffer| hash.write(buffer));
        Ok(Self { token: format!("{place}-{:032x}", hash.finish_128()), rows, body })
    }

    /// Some of the rows, as an insert of its own: its name says which, and of which insert, and so what it holds.
    pub fn piece(&self, rows: &Range<usize>) -> Result<Self, ArrowError> {
        let token = format!("{}.{}-{}", self.token, rows.start, rows.end);
        let rows = self.rows.slice(rows.start, rows.len());
        Ok(Self { token, body: stream(&rows)?, rows })
    }

    pub fn rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Bytes of the stream.
    pub fn bytes(&self) -> usize {
        self.body.iter().map(|buffer| buffer.len()).sum()
    }

    /// The stream, `size` bytes at a time. What is smaller, and the ends of what is larger, is copied.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Bytes> {
        let (mut buffers, mut rest) = (self.body.iter(), Buffer::default());
        std::iter::from_fn(move || {
            let mut small = Vec::new();
            loop {
                if rest.is_empty() {
                    match buffers.next() {
                        Some(next) => rest = next.clone(),
                        None => return (!small.is_empty()).then(|| small.into()),
                    }
                }
                let part = rest.slice_with_length(0, rest.len().min(size - small.len()));
                rest.advance(part.len());
                if part.len() == size {
                    return Some(Bytes::from_owner(Shared(part)));
                }
                small.extend_from_slice(&part);
                if small.len() == size {
                    return Some(small.into());
                }
            }
        })
    }

    /// The stream in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.body.iter().map(Buffer::as_slice).collect::<Vec<_>>().concat()
    }
}

/// Memory of a column as bytes.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// An Arrow stream of these rows.
fn stream(rows: &RecordBatch) -> Result<Vec<Buffer>, ArrowError> {
    let mut encoder = StreamEncoder::try_new(&rows.schema())?;
    let mut body = encoder.encode(rows)?;
    body.extend(encoder.finish()?);
    Ok(body)
}

/// What rows hold, whatever was allocated for them, in bytes.
pub(super) fn bytes(rows: &RecordBatch) -> Result<usize, ArrowError> {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size()).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::ipc::reader::StreamReader;
    use proptest::prelude::*;

    use super::*;

    fn rows(values: &[Option<i64>]) -> RecordBatch {
        let texts = values.iter().map(|value| value.map(|value| format!("text {value}")));
        let columns: [(&str, ArrayRef); 2] = [
            ("number", Arc::new(Int64Array::from_iter(values.iter().copied()))),
            ("text", Arc::new(StringArray::from_iter(texts))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("valid")
    }

    fn read(stream: &[u8]) -> RecordBatch {
        let mut reader = StreamReader::try_new(stream, None).expect("a stream");
        let rows = reader.next().expect("rows").expect("valid");
        assert!(reader.next().is_none());
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(29), ..ProptestConfig::default() })]

        /// What is sent is an Arrow stream of the rows, wherever they are cut out, and whatever the size of the chunks.
        #[test]
        fn chunks_are_a_stream_of_the_rows(
            values in prop::collection::vec(prop::option::of(any::<i64>()), 1..60),
            from in 0usize..60, many in 1usize..60, size in 1usize..3000,
        ) {
            let from = from % values.len();
            let upto = (from + many).min(values.len());
            let part = Part::new("s.t-5-0", rows(&values).slice(from, upto - from)).expect("encodes");
            let chunks: Vec<Bytes> = part.chunks(size).collect();
            prop_assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() == size));
            let sent = chunks.concat();
            prop_assert_eq!(&sent, &part.to_vec());
            prop_assert_eq!(sent.len(), part.bytes());
            prop_assert_eq!(read(&sent), rows(&values[from..upto]));
        }
    }

    #[test]
    fn a_piece_of_an_insert_is_named_by_the_insert_and_holds_those_rows() {
        let all = rows(&[Some(1), None, Some(3), Some(4)]);
        let whole = Part::new("s.t-5-0", all.clone()).expect("encodes");
        let piece = whole.piece(&(1..3)).expect("encodes");
        assert_eq!((&piece.token, piece.rows()), (&format!("{}.1-3", whole.token), 2));
        assert_eq!(read(&piece.to_vec()), all.slice(1, 2));
        let again = piece.piece(&(1..2)).expect("encodes");
        assert_eq!(read(&again.to_vec()), all.slice(2, 1));
    }
}
