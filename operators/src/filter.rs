//! Keeps the rows for which a condition is true.

use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Scalar;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use crate::linear::{PORTS, evaluate_rows, linear, rejected_schema};

/// See [`Operator::SUMMARY`].
pub struct Filter;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct FilterOptions {
    /// An SQL condition over the input's columns, such as `host = 'shop.example' and status_code >= 400`. Rows for
    /// which it is false or null are dropped. A row for which it cannot be computed, such as by a cast of text that is
    /// not a number, leaves through the port `rejected`.
    #[serde(rename = "where")]
    #[schemars(with = "String")]
    condition: Located<String>,
}

impl Operator for Filter {
    type Options = FilterOptions;
    const KIND: &'static str = "filter";
    const SUMMARY: &'static str = "Keeps the rows for which an SQL condition is true.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = PORTS;
    const NEEDS: &'static str = "the columns in `where`";
    const GIVES: &'static str = "the columns of the input; `rejected` has `reason` besides";

    fn plan(options: FilterOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let condition = match context.scalar(&options.condition, &input.schema)?.truth() {
            Ok(condition) => condition,
            Err(fault) => {
                context.expression_fault(&options.condition, &fault);
                return None;
            }
        };
        let rejected = rejected_schema(&input.schema);
        Some(Box::new(FilterNode { condition, input, rejected }))
    }
}

struct FilterNode {
    condition: Scalar,
    input: EdgeType,
    rejected: SchemaRef,
}

impl Node for FilterNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.input.clone(), self.input.with_schema(self.rejected.clone())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let (condition, rejected) = (self.condition.clone(), self.rejected.clone());
        inputs
            .into_iter()
            .flat_map(|input| {
                let (condition, rejected) = (condition.clone(), rejected.clone());
                linear(context, input, PORTS.len(), move |rows| {
                    evaluate_rows(rows, &rejected, |rows| {
                        let mask = condition.mask(rows)?;
                        // Most conditions on a batch are all true or all false: neither copies a row.
                        Ok(match mask.true_count() {
                            0 => rows.slice(0, 0),
                            all if all == rows.num_rows() => rows.clone(),
                            _ => filter_record_batch(rows, &mask)?,
                        })
                    })
                })
            })
            .collect()
    }
}
