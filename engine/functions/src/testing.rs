//! Expressions of tests, compiled and computed as the engine does it.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::util::display::array_value_to_string;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

/// An expression over rows of some columns.
pub(crate) fn compile(sql: &str, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let context = SessionContext::new();
    for function in crate::scalar() {
        context.register_udf(function.as_ref().clone());
    }
    let columns = DFSchema::try_from(schema.clone())?;
    context.create_physical_expr(context.parse_sql_expr(sql, &columns)?, &columns)
}

/// What it gives for the first row, as text.
pub(crate) fn value(sql: &str, rows: &RecordBatch) -> Result<String> {
    let values = compile(sql, &rows.schema())?.evaluate(rows)?.into_array(rows.num_rows())?;
    Ok(if values.is_null(0) { "null".to_owned() } else { array_value_to_string(&values, 0)? })
}
