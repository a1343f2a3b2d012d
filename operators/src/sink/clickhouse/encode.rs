//! From the rows of a cut to the bodies of inserts: sorted, in parts, as Arrow streams, each with its name.

use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, RecordBatch, TimestampMillisecondArray, UInt8Array, new_null_array,
};
use arrow::compute::{SortColumn, concat, concat_batches, interleave_record_batch, lexsort_to_indices};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use engine::batch::{EdgeType, Time};

use super::canonical::canonical;
use super::columns::{Column, Kind};
use super::part::{Part, bytes};
use crate::format::{BEGIN_TIME, REPAIRED};

/// 2286-11-20: what DateTime64 can hold, in ms.
pub(super) const LATEST: Time = 9_999_999_999_999;

/// The column with the message time of a stream's rows, by which it is known which of them are confirmed. A table may be
/// without it, if it is not read back.
pub(super) const TICK: &str = "tick";

/// The column with the message time of a relation's rows: the newest holds.
pub(super) const UPDATED_AT: &str = "updated_at";

/// Columns that formats add to rows beside those that a line has: tables that are older than these are written without them.
pub(super) const OPTIONAL: [&str; 2] = [BEGIN_TIME, REPAIRED];

/// The columns of a table's inserts.
#[derive(Clone)]
pub(super) struct Layout {
    /// The rows' columns, with the message time, for a relation with one more.
    schema: SchemaRef,
    /// The places of the columns that are sent. A table may be without those of [`OPTIONAL`], and without the message time of a
    /// stream.
    sent: Vec<usize>,
    order: Vec<usize>,
    relation: bool,
    live: bool,
    /// Columns of text that the table has as IPv6. They are sent as 16 bytes: ClickHouse takes a text of 16 characters, such
    /// as 2001:db8:100::24, for the address's bytes.
    addresses: Vec<usize>,
}

/// The inserts of a cut.
pub(super) struct Parts {
    pub list: Vec<Part>,
    /// Texts that are no address and are sent as none.
    pub bad_addresses: usize,
}

impl Layout {
    pub fn new(ty: &EdgeType, order: Vec<usize>, live: bool) -> Self {
        let mut fields: Vec<Arc<Field>> = ty.schema.fields().iter().cloned().collect();
        let relation = ty.is_relation();
        let tick = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        fields.push(Arc::new(Field::new(if relation { UPDATED_AT } else { TICK }, tick, false)));
        if relation {
            fields.push(Arc::new(Field::new("is_deleted", DataType::UInt8, false)));
        }
        let sent = (0..fields.len() - usize::from(!relation)).collect();
        let schema = Arc::new(Schema::new(fields));
        Self { schema, sent, order, relation, live, addresses: Vec::new() }
    }

    /// Has columns sent as the table has them.
    pub fn set_columns(&mut self, columns: &[Column]) {
        let address = |field: &Field| {
            let address = |column: &Column| column.name == *field.name() && column.kind() == Kind::Address;
            *field.data_type() == DataType::Utf8 && columns.iter().any(address)
        };
        self.addresses = (0..self.schema.fields().len()).filter(|at| address(self.schema.field(*at))).collect();
        let is_there = |name: &str| columns.iter().any(|column| column.name == name);
        let last = self.schema.fields().len() - 1;
        let may_lack = |at: usize, name: &str| OPTIONAL.contains(&name) || at == last && !self.relation;
        let is_sent = |at: &usize| {
            let name = self.schema.field(*at).name();
            is_there(name) || !may_lack(*at, name)
        };
        self.sent = (0..=last).filter(is_sent).collect();
    }

    /// Whether rows replace earlier ones.
    pub fn is_relation(&self) -> bool {
        self.relation
    }

    /// Whether it matters in which order rows of the same tick arrive.
    pub fn is_ordered(&self) -> bool {
        self.relation && self.live
    }

    /// The columns that are sent.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.schema.fields();
        Arc::new(Schema::new(self.sent.iter().map(|at| Arc::clone(&fields[*at])).collect::<Vec<_>>()))
    }

    /// The rows as they are sent, and how many texts are no address.
    fn sent(&self, rows: &RecordBatch) -> Result<(RecordBatch, usize), ArrowError> {
        let mut fields: Vec<Arc<Field>> = self.schema().fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = self.sent.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let mut bad_addresses = 0;
        for at in 0..self.sent.len() {
            if !self.addresses.contains(&self.sent[at]) {
                continue;
            }
            let texts = columns[at].as_string::<i32>();
            let addresses: BinaryArray = texts.iter().map(|text| text.and_then(octets)).collect();
            bad_addresses += addresses.null_count() - texts.null_count();
            columns[at] = Arc::new(addresses);
            fields[at] = Arc::new(Field::new(fields[at].name(), DataType::Binary, true));
        }
        Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, bad_addresses))
    }

    /// An Arrow stream of the columns that are sent, which ends before the first row.
    pub fn without_rows(&self) -> Result<Bytes, ArrowError> {
        let (none, _) = self.sent(&RecordBatch::new_empty(Arc::clone(&self.schema)))?;
        Ok(StreamWriter::try_new(Vec::new(), &none.schema())?.into_inner()?.into())
    }

    /// Rows with the columns that the node's rows have now: those that were shown before a change may have others. What is
    /// missing, or of another type, is null.
    pub fn adapted(&self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let own = self.schema.fields().len() - if self.relation { 2 } else { 1 };
        let fields = &self.schema.fields()[..own];
        if rows.schema_ref().fields()[..] == *fields {
            return Ok(rows);
        }
        let column = |field: &Arc<Field>| {
            let found = rows.column_by_name(field.name()).filter(|column| column.data_type() == field.data_type());
            found.cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows()))
        };
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), fields.iter().map(column).collect())
    }

    /// A batch with the columns of the table.
    pub fn complete(&self, tick: Time, diff: i64, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let ticks = TimestampMillisecondArray::from(vec![tick.min(LATEST) as i64; rows.num_rows()]);
        columns.push(Arc::new(ticks.with_timezone("UTC")));
        if self.relation {
            columns.push(Arc::new(UInt8Array::from(vec![u8::from(diff < 0); rows.num_rows()])));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }

    /// All rows in their order, each copied once at most.
    fn sorted(&self, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
        // Changes are kept in the order in which they were made: of the same tick a retraction is before what takes its place.
        if self.is_ordered() || self.order.is_empty() {
            return concat_batches(&self.schema, batches);
        }
        let key = |at: &usize| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(*at).as_ref()).collect();
            Ok(SortColumn { values: concat(&parts)?, options: None })
        };
        let keys = self.order.iter().map(key).collect::<Result<Vec<_>, ArrowError>>()?;
        let order = lexsort_to_indices(&keys, None)?;
        if order.values().is_sorted() {
            return concat_batches(&self.schema, batches);
        }
        let places: Vec<(usize, usize)> = batches
            .iter()
            .enumerate()
            .flat_map(|(nth, batch)| (0..batch.num_rows()).map(move |row| (nth, row)))
            .collect();
        let places: Vec<(usize, usize)> = order.values().iter().map(|at| places[*at as usize]).collect();
        interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &places)
    }

    /// The inserts of a cut. `first` is its first tick: with part and content the name.
    pub fn parts(
        &self,
        name: &str,
        first: Time,
        batches: &[RecordBatch],
        (max_rows, max_bytes): (usize, usize),
    ) -> Result<Parts, ArrowError> {
        if batches.is_empty() {
            return Ok(Parts { list: Vec::new(), bad_addresses: 0 });
        }
        let (rows, bad_addresses) = self.sent(&canonical(self.sorted(batches)?)?)?;
        // Where parts end must depend on the rows alone.
        let per_row = (bytes(&rows)? / rows.num_rows().max(1)).max(1);
        let step = max_rows.min(max_bytes / per_row).max(1);
        let mut list = Vec::new();
        for (nth, from) in (0..rows.num_rows()).step_by(step).enumerate() {
            let part = rows.slice(from, step.min(rows.num_rows() - from));
            list.push(Part::new(&format!("{name}-{first}-{nth}"), part)?);
        }
        Ok(Parts { list, bad_addresses })
    }
}

/// An address as IPv6; IPv4 as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
fn octets(text: &str) -> Option<[u8; 16]> {
    match text.parse().ok()? {
        IpAddr::V4(address) => Some(address.to_ipv6_mapped().octets()),
        IpAddr::V6(address) => Some(address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, StringArray, UInt64Array};
    use arrow::compute::nullif;
    use engine::batch::{stream_schema, time_array};
    use proptest::prelude::*;

    use super::*;

    fn rows(seqs: &[u64], schema: &SchemaRef) -> RecordBatch {
        let texts = StringArray::from_iter_values(seqs.iter().map(|seq| format!("2001:db8:100::{seq}")));
        let columns: Vec<ArrayRef> =
            vec![time_array(vec![7; seqs.len()]), Arc::new(UInt64Array::from(seqs.to_vec())), Arc::new(texts)];
        RecordBatch::try_new(Arc::clone(schema), columns).expect("valid")
    }

    #[test]
    fn the_name_depends_on_position_and_content_and_not_on_the_order_of_arrival() {
        let schema = stream_schema([Field::new("src_ip", DataType::Utf8, true)]);
        let mut layout = Layout::new(&EdgeType::stream(Arc::clone(&schema)), vec![0, 1], false);
        let column = |name: &str, ty: &str| Column { name: name.to_owned(), ty: ty.to_owned() };
        layout.set_columns(&[column("src_ip", "IPv6"), column("tick", "DateTime64(3, 'UTC')")]);
        assert_eq!(layout.schema().fields().len(), 4);
        let tokens = |first, batches: &[RecordBatch], most| {
            let rows = |rows: &RecordBatch| layout.complete(first, 1, rows.clone()).expect("completes");
            let batches: Vec<RecordBatch> = batches.iter().map(rows).collect();
            let parts = layout.parts("s.t", first, &batches, (most, 1 << 20)).expect("encodes").list;
            assert_eq!(parts.iter().map(Part::rows).sum::<usize>(), 4);
            parts.into_iter().map(|part| part.token).collect::<Vec<_>>()
        };
        let one = tokens(5, &[rows(&[1, 2], &schema), rows(&[3, 4], &schema)], 100);
        assert_eq!(one, tokens(5, &[rows(&[4, 3], &schema), rows(&[2], &schema), rows(&[1], &schema)], 100));
        assert_ne!(one, tokens(6, &[rows(&[1, 2, 3, 4], &schema)], 100));
        assert_ne!(one, tokens(5, &[rows(&[1, 2, 3, 5], &schema)], 100));
        assert_eq!(tokens(5, &[rows(&[1, 2, 3, 4], &schema)], 3).len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(37), ..ProptestConfig::default() })]

        /// In whatever batches rows come and in whatever order, cut out of larger ones, with texts below nulls or without: the
        /// inserts are the same.
        #[test]
        fn the_same_rows_are_the_same_inserts(
            given in prop::collection::vec((prop::option::of("[a-z]{0,9}"), 0usize..4, any::<u32>()), 1..50),
            hidden in any::<bool>(), most in (1usize..60, 100usize..4000),
        ) {
            let schema = stream_schema([Field::new("path", DataType::Utf8, true)]);
            let layout = Layout::new(&EdgeType::stream(Arc::clone(&schema)), vec![0, 1], false);
            let batch = |of: &[usize], hidden: bool| {
                let text = |at: &usize| given[*at].0.clone().or(hidden.then(|| "below".to_owned()));
                let taken = BooleanArray::from_iter(of.iter().map(|at| Some(given[*at].0.is_none())));
                let texts: ArrayRef = Arc::new(StringArray::from_iter(of.iter().map(text)));
                let columns: Vec<ArrayRef> = vec![
                    time_array(vec![7; of.len()]),
                    Arc::new(UInt64Array::from_iter_values(of.iter().map(|at| *at as u64))),
                    nullif(&texts, &taken).expect("valid"),
                ];
                layout.complete(5, 1, RecordBatch::try_new(Arc::clone(&schema), columns).expect("valid")).expect("completes")
            };
            let inserts = |batches: &[RecordBatch]| {
                let parts = layout.parts("s.t", 5, batches, most).expect("encodes").list;
                parts.into_iter().map(|part| (part.rows(), part.token)).collect::<Vec<_>>()
            };
            let once = inserts(&[batch(&(0..given.len()).collect::<Vec<_>>(), false)]);
            let of = |nth: usize| {
                let mut of: Vec<usize> = (0..given.len()).filter(|at| given[*at].1 == nth).collect();
                of.sort_by_key(|at| given[*at].2);
                // With one more before and behind it.
                let with: Vec<usize> = [0].into_iter().chain(of.iter().copied()).chain([given.len() - 1]).collect();
                batch(&with, hidden).slice(1, of.len())
            };
            let batches: Vec<RecordBatch> = (0..4).map(of).filter(|batch| batch.num_rows() > 0).collect();
            prop_assert_eq!(inserts(&batches), once);
        }
    }

    #[test]
    fn texts_that_are_no_address_are_counted_and_what_is_not_there_is_not() {
        let schema = stream_schema([Field::new("src_ip", DataType::Utf8, true)]);
        let mut layout = Layout::new(&EdgeType::stream(Arc::clone(&schema)), vec![0, 1], false);
        layout.set_columns(&[Column { name: "src_ip".to_owned(), ty: "IPv6".to_owned() }]);
        let texts = StringArray::from(vec![Some("192.0.2.1"), None, Some("unknown"), Some("")]);
        let columns: Vec<ArrayRef> =
            vec![time_array(vec![7; 4]), Arc::new(UInt64Array::from(vec![1, 2, 3, 4])), Arc::new(texts)];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("valid");
        let batch = layout.complete(5, 1, batch).expect("completes");
        let parts = layout.parts("s.t", 5, &[batch], (10, 1 << 20)).expect("encodes");
        assert_eq!((parts.list.len(), parts.bad_addresses), (1, 2));
    }

    #[test]
    fn a_table_may_be_without_what_formats_add() {
        let schema = stream_schema([REPAIRED, "src_ip", "n"].map(|name| Field::new(name, DataType::Utf8, true)));
        let mut layout = Layout::new(&EdgeType::stream(schema), vec![0, 1], false);
        let column = |(name, ty): (&str, &str)| Column { name: name.to_owned(), ty: ty.to_owned() };
        let mut columns = [("time", "DateTime"), ("seq", "UInt64"), ("src_ip", "IPv6")].map(column).to_vec();
        layout.set_columns(&columns);
        let sent = |layout: &Layout| layout.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
        assert_eq!(sent(&layout), ["time", "seq", "src_ip", "n"], "`n` is missed");
        columns.extend([(REPAIRED, "Bool"), ("n", "String"), (TICK, "DateTime64(3)")].map(column));
        layout.set_columns(&columns);
        assert_eq!(sent(&layout), ["time", "seq", REPAIRED, "src_ip", "n", TICK]);
    }

    #[test]
    fn addresses_are_sixteen_bytes() {
        assert_eq!(octets("192.0.2.1"), Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]));
        assert_eq!(octets("2001:db8:100::24").map(|bytes| bytes[15]), Some(0x24));
        assert_eq!(octets("no address"), None);
    }
}
