//! From decisions to output batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use super::store::{Gather, NOTHING, RowRef, Store};

/// A row of the output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// A request with its hello: the hello's row and time in ns, and the request's number on the connection.
    Matched { request: (RowRef, i64), hello: (RowRef, i64), keepalives: u32 },
    /// A request without a hello.
    Request { request: (RowRef, i64) },
    /// A hello without a request.
    Hello { hello: (RowRef, i64) },
}

impl Decision {
    fn request(&self) -> Option<(RowRef, i64)> {
        match self {
            Self::Matched { request, .. } | Self::Request { request } => Some(*request),
            Self::Hello { .. } => None,
        }
    }

    fn hello(&self) -> Option<(RowRef, i64)> {
        match self {
            Self::Matched { hello, .. } | Self::Hello { hello } => Some(*hello),
            Self::Request { .. } => None,
        }
    }

    /// Event time in ns: the request's, or that of a hello without one.
    pub fn time(&self) -> i64 {
        match self {
            Self::Matched { request, .. } | Self::Request { request } => request.1,
            Self::Hello { hello } => hello.1,
        }
    }

    fn side(&self) -> &'static str {
        match self {
            Self::Matched { .. } => "",
            Self::Request { .. } => "A",
            Self::Hello { .. } => "B",
        }
    }

    fn keepalives(&self) -> u16 {
        match self {
            Self::Matched { keepalives, .. } => u16::try_from(*keepalives).unwrap_or(u16::MAX),
            _ => 0,
        }
    }
}

/// Where a column of the output comes from: its index among the request's and the hello's columns.
#[derive(Clone, Copy, Debug)]
struct Origin {
    request: Option<usize>,
    hello: Option<usize>,
}

/// Builds output batches.
pub(super) struct Emitter {
    schema: SchemaRef,
    origins: Vec<Origin>,
}

impl Emitter {
    pub fn new(schema: &SchemaRef, request: &Schema, hello: &Schema) -> Self {
        let input_columns = schema.fields().len() - super::ADDED.len();
        let origins = schema.fields()[..input_columns]
            .iter()
            .map(|f| Origin { request: request.index_of(f.name()).ok(), hello: hello.index_of(f.name()).ok() })
            .collect();
        Self { schema: Arc::clone(schema), origins }
    }

    /// One row for each decision, in their order.
    pub fn batch(&self, decisions: &[Decision], requests: &Store, hellos: &Store) -> Result<RecordBatch, ArrowError> {
        let (mut from_requests, mut from_hellos) = (Gather::default(), Gather::default());
        let mut request_picks = Vec::with_capacity(decisions.len());
        let mut hello_picks = Vec::with_capacity(decisions.len());
        for decision in decisions {
            request_picks.push(decision.request().map_or(NOTHING, |(row, _)| from_requests.pick(requests, row)));
            hello_picks.push(decision.hello().map_or(NOTHING, |(row, _)| from_hellos.pick(hellos, row)));
        }
        let alone: BooleanArray = decisions.iter().map(|d| Some(matches!(d, Decision::Hello { .. }))).collect();
        let any_alone = alone.true_count() > 0;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (origin, field) in self.origins.iter().zip(self.schema.fields()) {
            let ty = field.data_type();
            let request = |at| from_requests.column(at, &request_picks, ty);
            let hello = |at| from_hellos.column(at, &hello_picks, ty);
            columns.push(match (origin.request, origin.hello) {
                // Both have it: the request's, or the hello's where there is no request.
                (Some(at), Some(other)) if any_alone => zip(&alone, &hello(other)?, &request(at)?)?,
                (Some(at), _) => request(at)?,
                (None, Some(at)) => hello(at)?,
                (None, None) => arrow::array::new_null_array(ty, decisions.len()),
            });
        }
        let ns = |side: Option<(RowRef, i64)>| side.and_then(|(_, time)| u64::try_from(time).ok());
        let correlated = decisions.iter().map(|d| u8::from(matches!(d, Decision::Matched { .. })));
        columns.push(Arc::new(UInt8Array::from_iter_values(correlated)));
        columns.push(Arc::new(StringArray::from_iter_values(decisions.iter().map(Decision::side))));
        columns.push(Arc::new(UInt16Array::from_iter_values(decisions.iter().map(Decision::keepalives))));
        columns.push(Arc::new(decisions.iter().map(|d| ns(d.request())).collect::<UInt64Array>()));
        columns.push(Arc::new(decisions.iter().map(|d| ns(d.hello())).collect::<UInt64Array>()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}
