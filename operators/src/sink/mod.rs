//! Where rows leave the dataflow.

pub mod clickhouse;
mod cuts;
pub mod jsonl;
mod lines;
pub mod parquet;
pub mod unix_socket;
mod written;

use engine::batch::{Batch, Stream};
use engine::render::BuildContext;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

/// In place of the operator that writes, where nothing is written: all workers must build the same dataflow.
fn swallow<'s>(context: &BuildContext<'s>, input: Stream<'s>) -> Stream<'s> {
    input.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, &context.id, |_, _| {
        |input, _output| input.for_each_stamp(|_, _| {})
    })
}
