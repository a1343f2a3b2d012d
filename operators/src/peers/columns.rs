//! The columns to add: as they are written, and compiled.

use arrow::datatypes::Schema;
use engine::contract::{PlanContext, Windows};
use engine::spec::Located;

use crate::entries::{self, Given};

/// A column.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    /// The column's name.
    #[schemars(with = "String")]
    name: Located<String>,
    /// SQL over the row and, with window functions, over the rows of its partition.
    #[schemars(with = "String")]
    expr: Located<String>,
    /// What it says, for people.
    #[serde(default, rename = "about")]
    _about: Option<String>,
}

/// What a column is, for `list`.
pub(crate) fn column_schema() -> schemars::Schema {
    schemars::schema_for!(Column)
}

/// The columns as they are written.
pub(super) fn read(given: Located<Given<Column>>, context: &mut PlanContext<'_>) -> Option<Vec<Column>> {
    let (columns, complete) = entries::read(given, "columns", context)?;
    if let Some(column) = columns.iter().find(|column| column.name.value.is_empty()) {
        context.error(column.name.span, "a column needs a name");
        return None;
    }
    complete.then_some(columns)
}

/// The columns over rows of `schema`; every fault is reported where it stands.
pub(super) fn compile(columns: &[Column], schema: &Schema, context: &mut PlanContext<'_>) -> Option<Windows> {
    let written: Vec<(&str, &str)> =
        columns.iter().map(|column| (column.name.value.as_str(), column.expr.value.as_str())).collect();
    let faults = match context.session().windows(&written, schema) {
        Ok(windows) => return Some(windows),
        Err(faults) => faults,
    };
    for (index, mut fault) in faults {
        let further_down = |name: &&String| written[index..].iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if fault.message.starts_with("no column")
            && let Some(name) = fault.part.as_ref().filter(further_down)
        {
            fault.help = Some(format!("`{name}` is added here or further down: a column can use those above it"));
        }
        context.expression_fault(&columns[index].expr, &fault);
    }
    None
}
