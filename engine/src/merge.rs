//! Rows of several nodes as one input, in the dataflow.
//!
//! A row's `seq` is its position in its source, so rows of two sources can have the same. In the input it is
//! `seq * n + i` for the `i`th of `n` nodes: of rows with the same time the one that comes first in its source is first,
//! then the one whose node is written first. That depends on the rows alone, never on which of them arrives first.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::Concatenate;
use timely::dataflow::operators::generic::operator::Operator;

use crate::batch::{Batch, Edge, EdgeType, SEQ, Stream};
use crate::contract::BuildContext;

/// One edge of type `ty` with the rows of all of `streams`. None of them may be a relation.
pub(crate) fn merge<'s>(streams: Vec<Stream<'s>>, ty: &EdgeType, context: &BuildContext<'s>) -> Edge<'s> {
    let fail = Rc::new(context.failure());
    let count = streams.len() as u64;
    let members = streams.into_iter().enumerate().map(|(nth, stream)| {
        let (schema, fail) = (Arc::clone(&ty.schema), Rc::clone(&fail));
        stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "merge", move |_, _| {
            move |input, output| {
                input.for_each_stamp(|time, data| {
                    let mut session = output.session(&time);
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        match renumber(&batch.rows, &schema, nth as u64, count) {
                            Ok(rows) => session.give(batch.with_rows(rows)),
                            Err(error) => fail(format!("rows of several nodes are not of the same columns: {error}")),
                        }
                    }
                });
            }
        })
    });
    Edge { stream: context.scope.concatenate(members), ty: ty.clone() }
}

/// Rows with the columns of the input, and their place in it.
fn renumber(rows: &RecordBatch, schema: &SchemaRef, nth: u64, count: u64) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let at = rows.schema_ref().index_of(field.name())?;
        let column = rows.column(at);
        match column.as_any().downcast_ref::<UInt64Array>().filter(|_| field.name() == SEQ) {
            Some(seqs) => {
                let place = |seq: u64| seq.wrapping_mul(count).wrapping_add(nth);
                Ok(Arc::new(UInt64Array::from_iter_values(seqs.values().iter().map(|seq| place(*seq)))) as ArrayRef)
            }
            None => Ok(Arc::clone(column)),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, ArrowError>>()?)
}
