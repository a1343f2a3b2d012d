//! From decisions to output batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt8Array, UInt16Array, UInt64Array};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;

use super::gather::Gather;
use super::matcher::{Decision, Side};
use super::server_tls::Comparison;
use super::store::Store;

impl Decision {
    /// Event time in ns: the request's, or that of a hello without one.
    pub fn time(&self) -> i64 {
        match self {
            Self::Matched { request, .. } | Self::Request { request } => request.time,
            Self::Hello { hello } => hello.time,
        }
    }

    /// The request, unless it is a hello that leaves alone.
    pub fn request(&self) -> Option<Side> {
        match self {
            Self::Matched { request, .. } | Self::Request { request } => Some(*request),
            Self::Hello { .. } => None,
        }
    }

    fn hello(&self) -> Option<Side> {
        match self {
            Self::Matched { hello, .. } | Self::Hello { hello } => Some(*hello),
            Self::Request { .. } => None,
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
    requests: Gather,
    hellos: Gather,
    comparison: Option<Comparison>,
}

impl Emitter {
    pub fn new(schema: &SchemaRef, request: &Schema, hello: &Schema) -> Self {
        let comparison = Comparison::new(schema, request, hello);
        let input_columns = schema.fields().len() - super::ADDED.len() - usize::from(comparison.is_some());
        let origins = schema.fields()[..input_columns]
            .iter()
            .map(|f| Origin { request: request.index_of(f.name()).ok(), hello: super::of_hello(hello, f.name()) })
            .collect();
        Self { schema: Arc::clone(schema), origins, requests: Gather::default(), hellos: Gather::default(), comparison }
    }

    /// One row for each decision, in their order.
    pub fn batch(
        &mut self,
        decisions: &[Decision],
        requests: &Store,
        hellos: &Store,
    ) -> Result<RecordBatch, ArrowError> {
        self.requests.pick(requests, decisions.iter().map(|d| d.request().map(|side| side.row)));
        self.hellos.pick(hellos, decisions.iter().map(|d| d.hello().map(|side| side.row)));
        let any_alone = decisions.iter().any(|d| matches!(d, Decision::Hello { .. }));
        let alone = any_alone
            .then(|| decisions.iter().map(|d| Some(matches!(d, Decision::Hello { .. }))).collect::<BooleanArray>());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (origin, field) in self.origins.iter().zip(self.schema.fields()) {
            let ty = field.data_type();
            let request = |at| self.requests.column(requests, at, ty);
            let hello = |at| self.hellos.column(hellos, at, ty);
            columns.push(match (origin.request, origin.hello, &alone) {
                // Both have it: the request's, or the hello's where there is no request.
                (Some(at), Some(other), Some(alone)) => zip(alone, &hello(other)?, &request(at)?)?,
                (Some(at), _, _) => request(at)?,
                (None, Some(at), _) => hello(at)?,
                (None, None, _) => arrow::array::new_null_array(ty, decisions.len()),
            });
        }
        let ns = |side: Option<Side>| side.and_then(|side| u64::try_from(side.begin).ok());
        let correlated = decisions.iter().map(|d| u8::from(matches!(d, Decision::Matched { .. })));
        columns.push(Arc::new(UInt8Array::from_iter_values(correlated)));
        columns.push(Arc::new(StringArray::from_iter_values(decisions.iter().map(Decision::side))));
        columns.push(Arc::new(UInt16Array::from_iter_values(decisions.iter().map(Decision::keepalives))));
        columns.push(Arc::new(decisions.iter().map(|d| ns(d.request())).collect::<UInt64Array>()));
        columns.push(Arc::new(decisions.iter().map(|d| ns(d.hello())).collect::<UInt64Array>()));
        if let Some(comparison) = &self.comparison {
            let is_matched = |row: usize| matches!(decisions.get(row), Some(Decision::Matched { .. }));
            columns.push(Arc::new(comparison.differences(&columns, decisions.len(), is_matched)));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}
