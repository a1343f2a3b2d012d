//! Where rows leave the dataflow.

pub mod clickhouse;
mod cuts;
pub mod jsonl;
mod lines;
mod operator;
pub mod parquet;
pub mod unix_socket;
mod written;

use std::sync::Arc;

use engine::batch::{Batch, Stream};
use engine::render::BuildContext;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

/// In place of the operator that writes, where nothing is written: all workers must build the same dataflow. Time
/// passes only if rows may `pass` unwritten.
fn swallow<'s>(context: &BuildContext<'s>, input: Stream<'s>, pass: bool) -> Stream<'s> {
    let flow = Arc::clone(&context.flow);
    input.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, &context.id, move |capability, _| {
        let mut held = (!pass).then_some(capability);
        move |input, _output| {
            input.for_each_stamp(|_, _| {});
            if flow.lets_go() {
                drop(held.take());
            }
        }
    })
}
