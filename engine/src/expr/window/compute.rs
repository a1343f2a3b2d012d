//! Values of the rows of a partition.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{concat, take, take_record_batch};
use datafusion::common::cast::as_boolean_array;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::WindowExpr;

use super::Scalar;
use super::arrange::Arranged;

/// An aggregate of each group, for each row of it.
pub(super) fn groups(
    aggregate: &AggregateFunctionExpr,
    filter: Option<&Arc<dyn PhysicalExpr>>,
    rows: &RecordBatch,
    order: &Arranged,
) -> Result<ArrayRef, DataFusionError> {
    let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
    let arguments = aggregate.expressions().iter().map(evaluate).collect::<Result<Vec<_>, _>>()?;
    let mask = filter.map(evaluate).transpose()?;
    let mask = mask.as_ref().map(|mask| as_boolean_array(mask)).transpose()?;
    let mut accumulator = aggregate.create_groups_accumulator()?;
    accumulator.update_batch(&arguments, &order.groups, mask, order.ranges.len())?;
    let values = accumulator.evaluate(EmitTo::All)?;
    Ok(take(&values, &order.group_numbers(), None)?)
}

/// A window function of each row, computed group by group.
pub(super) fn each(
    function: &dyn WindowExpr,
    rows: RecordBatch,
    order: &Arranged,
) -> Result<ArrayRef, DataFusionError> {
    // A batch without columns has no order.
    let sorted = match &order.sorted {
        Some((sorted, _)) if rows.num_columns() > 0 => take_record_batch(&rows, sorted)?,
        _ => rows,
    };
    let of_group = |range: &std::ops::Range<usize>| function.evaluate(&sorted.slice(range.start, range.len()));
    let values = order.ranges.iter().map(of_group).collect::<Result<Vec<_>, _>>()?;
    let values = concat(&values.iter().map(|values| values.as_ref()).collect::<Vec<_>>())?;
    Ok(match &order.sorted {
        Some((_, back)) => take(&values, back, None)?,
        None => values,
    })
}

/// The values of an expression; null, and counted, for rows for which it has none.
pub(super) fn evaluate_or_null(
    scalar: &Scalar,
    rows: &RecordBatch,
    failed: &mut usize,
) -> Result<ArrayRef, DataFusionError> {
    if let Ok(values) = scalar.evaluate(rows) {
        return Ok(values);
    }
    let one = |at| {
        scalar.evaluate(&rows.slice(at, 1)).unwrap_or_else(|_| {
            *failed += 1;
            new_null_array(&scalar.data_type, 1)
        })
    };
    let values: Vec<ArrayRef> = (0..rows.num_rows()).map(one).collect();
    Ok(concat(&values.iter().map(|value| value.as_ref()).collect::<Vec<&dyn Array>>())?)
}
