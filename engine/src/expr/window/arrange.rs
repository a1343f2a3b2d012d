//! The order in which window functions see rows.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::super::{ExprFault, fault};

/// `partition by` and `order by` of a window function.
#[derive(Clone, Debug)]
pub(super) struct Order {
    by: Vec<Arc<dyn PhysicalExpr>>,
    sorts: Vec<PhysicalSortExpr>,
    by_fields: Vec<SortField>,
    sort_fields: Vec<SortField>,
}

/// The rows of a batch in an [`Order`].
#[derive(Clone, Debug)]
pub(super) struct Arranged {
    /// The group of each row. Groups are numbered in the order in which they are met.
    pub groups: Vec<usize>,
    /// Where each group's rows are, once they are sorted.
    pub ranges: Vec<Range<usize>>,
    /// Which row is the first, the second …, and where each row has gone; none if the rows are in order as they are.
    pub sorted: Option<(UInt32Array, UInt32Array)>,
}

impl Order {
    /// # Errors
    /// If a type has no order.
    pub fn new(
        by: Vec<Arc<dyn PhysicalExpr>>,
        sorts: Vec<PhysicalSortExpr>,
        schema: &Schema,
    ) -> Result<Self, ExprFault> {
        let ty = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(schema).map_err(|error| fault(&error));
        let by_fields = by.iter().map(|expr| Ok(SortField::new(ty(expr)?))).collect::<Result<Vec<_>, ExprFault>>()?;
        let sort_field = |sort: &PhysicalSortExpr| Ok(SortField::new_with_options(ty(&sort.expr)?, sort.options));
        let sort_fields = sorts.iter().map(sort_field).collect::<Result<Vec<_>, ExprFault>>()?;
        if !RowConverter::supports_fields(&by_fields) || !RowConverter::supports_fields(&sort_fields) {
            return Err(ExprFault::new("`partition by` or `order by` has a value that cannot be ordered"));
        }
        Ok(Self { by, sorts, by_fields, sort_fields })
    }

    /// # Errors
    /// If an expression has no value for a row.
    pub fn arrange(&self, rows: &RecordBatch) -> Result<Arranged, DataFusionError> {
        let len = rows.num_rows();
        let (groups, count) = self.groups(rows)?;
        let mut ranges = vec![0..0; count];
        groups.iter().for_each(|group| ranges[*group].end += 1);
        let mut start = 0;
        for range in &mut ranges {
            *range = start..start + range.end;
            start = range.end;
        }
        if self.sorts.is_empty() && count <= 1 {
            return Ok(Arranged { groups, ranges, sorted: None });
        }
        let mut sorted = vec![0_u32; len];
        let mut next: Vec<usize> = ranges.iter().map(|range| range.start).collect();
        for (row, group) in groups.iter().enumerate() {
            sorted[next[*group]] = row as u32;
            next[*group] += 1;
        }
        if let Some(keys) = self.keys(rows)? {
            for range in &ranges {
                let group = &mut sorted[range.clone()];
                group.sort_unstable_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)).then(a.cmp(b)));
            }
        }
        let mut back = vec![0_u32; len];
        sorted.iter().zip(0..).for_each(|(row, at)| back[*row as usize] = at);
        Ok(Arranged { groups, ranges, sorted: Some((sorted.into(), back.into())) })
    }

    /// The group of each row, and how many groups there are.
    fn groups(&self, rows: &RecordBatch) -> Result<(Vec<usize>, usize), DataFusionError> {
        if self.by.is_empty() {
            return Ok((vec![0; rows.num_rows()], rows.num_rows().min(1)));
        }
        let columns = self.by.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows()));
        let columns = columns.collect::<Result<Vec<ArrayRef>, DataFusionError>>()?;
        let keys = RowConverter::new(self.by_fields.clone())?.convert_columns(&columns)?;
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let groups = (0..rows.num_rows()).map(|row| {
            let number = known.len();
            *known.entry(keys.row(row).data()).or_insert(number)
        });
        let groups = groups.collect();
        Ok((groups, known.len()))
    }

    /// What rows of a group are sorted by.
    fn keys(&self, rows: &RecordBatch) -> Result<Option<Rows>, DataFusionError> {
        if self.sorts.is_empty() {
            return Ok(None);
        }
        let columns = self.sorts.iter().map(|sort| sort.expr.evaluate(rows)?.into_array(rows.num_rows()));
        let columns = columns.collect::<Result<Vec<ArrayRef>, DataFusionError>>()?;
        Ok(Some(RowConverter::new(self.sort_fields.clone())?.convert_columns(&columns)?))
    }
}

impl Arranged {
    /// The group of each row as an array.
    pub fn group_numbers(&self) -> UInt32Array {
        self.groups.iter().map(|group| *group as u32).collect()
    }
}
