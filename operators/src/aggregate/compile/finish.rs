//! The last step of the compiler: everything that features need, as one program.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use engine::batch::{SEQ, TIME, stream_schema};
use engine::contract::{ExprFault, Scalar};

use super::Compiler;
use super::analysis::columns;
use crate::aggregate::accumulate::Form;
use crate::aggregate::lookup::Lookups;
use crate::aggregate::program::{Column, FINAL, Program};

impl Compiler<'_> {
    /// Puts everything together.
    ///
    /// # Errors
    /// If the input has no event time.
    pub(in crate::aggregate) fn finish(self) -> Result<Program, ExprFault> {
        let needed = self.needed();
        let projected = Schema::new(needed.iter().map(|index| self.input.field(*index).clone()).collect::<Vec<_>>());
        let (lookups, results) = self.lookups(&projected)?;
        let early_fields = projected.fields().iter().map(|f| f.as_ref().clone()).chain(results);
        let early_schema = Schema::new(early_fields.collect::<Vec<_>>());
        let operand_schema = Schema::new(self.operand_fields.clone());
        let early = self.compiled(&self.early, &early_schema)?;
        let ordered = self.compiled(&self.ordered, &operand_schema)?;
        let slot_schema = Schema::new(self.keys.iter().chain(&self.slot_fields).cloned().collect::<Vec<_>>());
        let levels = self.levels(&slot_schema)?;
        let last = Field::new(FINAL, DataType::Boolean, false);
        let fields: Vec<Field> =
            self.keys.into_iter().chain(self.features.into_iter().map(|f| f.field)).chain([last]).collect();
        let place =
            |name: &str| projected.index_of(name).map_err(|_| ExprFault::new(format!("the input has no `{name}`")));
        Ok(Program {
            by: self.by.len(),
            time: place(TIME)?,
            seq: place(SEQ)?,
            needed,
            lookups,
            early_schema: early_schema.into(),
            early,
            ordered,
            latest: self.latest,
            operands: self.operands,
            operand_schema: operand_schema.into(),
            states: self.states,
            slots: self.calls.into_iter().map(|(_, slot)| slot).collect(),
            slot_schema: slot_schema.into(),
            levels,
            stream: stream_schema(fields.iter().cloned()),
            relation: Schema::new(fields).into(),
        })
    }

    /// The input's columns that anything is computed from, as [`Program::needed`] has them.
    fn needed(&self) -> Vec<usize> {
        let mut needed: Vec<usize> = self.by.to_vec();
        let mut need = |name: &str| {
            if let Ok(index) = self.input.index_of(name)
                && !needed.contains(&index)
            {
                needed.push(index);
            }
        };
        need(TIME);
        need(SEQ);
        self.early.iter().flat_map(|(expr, _)| columns(expr)).for_each(|name| need(&name));
        self.lookups.iter().for_each(|(_, name, _)| need(name));
        needed
    }

    /// The lookups, together for each text column of the needed ones, and the columns of their results.
    fn lookups(&self, projected: &Schema) -> Result<(Vec<Lookups>, Vec<Field>), ExprFault> {
        let (mut lookups, mut results) = (Vec::new(), Vec::new());
        for (column, field) in projected.fields().iter().enumerate() {
            let mut scalars = Vec::new();
            let schema = SchemaRef::new(Schema::new(vec![field.clone()]));
            for (expr, _, result) in self.lookups.iter().filter(|(_, name, _)| name == field.name()) {
                scalars.push(self.session.compile(expr.clone(), &schema)?);
                results.push(result.clone());
            }
            if !scalars.is_empty() {
                lookups.push(Lookups { column, schema, scalars });
            }
        }
        Ok((lookups, results))
    }

    /// Columns of the rows, computed over `schema`.
    fn compiled(&self, columns: &[(Expr, Form)], schema: &Schema) -> Result<Vec<Column>, ExprFault> {
        let column = |(expr, form): &(Expr, Form)| {
            Ok(Column { scalar: self.session.compile(expr.clone(), schema)?, form: *form })
        };
        columns.iter().map(column).collect()
    }

    /// The features, as [`Program::levels`] has them: each level sees the slots and the levels before it.
    fn levels(&self, slot_schema: &Schema) -> Result<Vec<Vec<(usize, Scalar)>>, ExprFault> {
        let mut visible: Vec<Field> = slot_schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut levels = Vec::new();
        for level in 0..=self.features.iter().map(|f| f.level).max().unwrap_or(0) {
            let schema = Schema::new(visible.clone());
            let mut scalars = Vec::new();
            for (index, feature) in self.features.iter().enumerate().filter(|(_, f)| f.level == level) {
                scalars.push((index, self.session.compile(feature.expr.clone(), &schema)?));
                visible.push(feature.field.clone());
            }
            levels.push(scalars);
        }
        Ok(levels)
    }
}
