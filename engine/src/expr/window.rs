//! SQL window functions: columns of a row that depend on the other rows of its partition.
//!
//! DataFusion compiles and computes the functions. It is called directly, without a plan of a query: the rows are in
//! memory, so nothing has to be scheduled or waited for. Each window function is computed once, however many columns use
//! it, and so is each order of the rows. Rows that an `order by` does not tell apart keep the order in which they are given.

mod arrange;
mod compute;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{Sort, WindowFunctionParams};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, cast};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, WindowExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_planner::create_window_expr_with_name;

use super::{ExprFault, Scalar, Session, aggregate_name, df_schema, fault, guarded, simplified};
use arrange::{Arranged, Order};
use compute::{each, evaluate_or_null, groups};

/// Columns over the rows of a partition, compiled.
#[derive(Clone, Debug)]
pub struct Windows {
    steps: Vec<Step>,
    orders: Vec<Order>,
    fields: Vec<Field>,
    read: Vec<usize>,
}

/// A column that is computed: one of those that were asked for, or a window function that they use.
#[derive(Clone, Debug)]
struct Step {
    value: Value,
    data_type: DataType,
    /// The columns before it.
    schema: SchemaRef,
}

#[derive(Clone, Debug)]
enum Value {
    Column(Scalar),
    Function(Function),
}

/// A window function.
#[derive(Clone, Debug)]
struct Function {
    /// Which of the orders its rows are taken in.
    order: usize,
    /// The columns that it reads. Its expressions are over these alone.
    columns: Vec<usize>,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    /// An aggregate that is the same for all rows of a group: one pass over the rows, whatever the number of groups.
    Groups(Box<AggregateFunctionExpr>, Option<Arc<dyn PhysicalExpr>>),
    /// Group by group.
    Each(Arc<dyn WindowExpr>),
}

impl Session {
    /// Compiles columns, each with its name and its SQL, over the rows of a partition that have `schema`. The SQL may hold
    /// window functions, `f(…) over (…)`, and use the columns before it by name.
    ///
    /// # Errors
    /// What is wrong, with the index of the column.
    pub fn windows(&self, columns: &[(&str, &str)], schema: &Schema) -> Result<Windows, Vec<(usize, ExprFault)>> {
        let mut compiler = Compiler::new(self, schema);
        let mut faults = Vec::new();
        for (index, (name, sql)) in columns.iter().enumerate() {
            if let Err(fault) = compiler.column(name, sql) {
                faults.push((index, fault));
            }
        }
        if faults.is_empty() { Ok(compiler.finish()) } else { Err(faults) }
    }
}

/// The columns so far.
struct Compiler<'a> {
    session: &'a Session,
    /// The input's columns, then one for each step.
    fields: Vec<Field>,
    input: usize,
    steps: Vec<Step>,
    orders: Vec<(Vec<Expr>, Vec<Sort>, Order)>,
    /// Which field each window function is.
    functions: Vec<(Expr, usize)>,
    read: BTreeSet<usize>,
}

impl<'a> Compiler<'a> {
    fn new(session: &'a Session, schema: &Schema) -> Self {
        let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let (input, steps, orders) = (fields.len(), Vec::new(), Vec::new());
        Self { session, fields, input, steps, orders, functions: Vec::new(), read: BTreeSet::new() }
    }

    fn finish(self) -> Windows {
        let added = self.steps.iter().zip(&self.fields[self.input..]);
        let fields = added.filter(|(step, _)| matches!(step.value, Value::Column(_))).map(|(_, field)| field.clone());
        Windows {
            fields: fields.collect(),
            steps: self.steps,
            orders: self.orders.into_iter().map(|(_, _, order)| order).collect(),
            read: self.read.into_iter().collect(),
        }
    }

    fn column(&mut self, name: &str, sql: &str) -> Result<(), ExprFault> {
        let is_function = |at: &usize| self.functions.iter().any(|(_, function)| function == at);
        let visible = (0..self.fields.len()).filter(|at| !is_function(at)).map(|at| self.fields[at].clone());
        let visible = Schema::new(visible.collect::<Vec<_>>());
        if visible.index_of(name).is_ok() {
            return Err(ExprFault::new(format!("there is a column `{name}` already")));
        }
        let expr = self.session.parse_any(sql, &visible, true)?;
        let columns = df_schema(&visible)?;
        let expr = self.extract(simplified(expr, &columns)?)?;
        if let Some(name) = aggregate_name(&expr) {
            let help = Some(format!("say over which rows: `{name}(…) over (partition by …)`"));
            let message = format!("`{name}` is an aggregate function without `over`");
            return Err(ExprFault { part: Some(name), help, ..ExprFault::new(message) });
        }
        self.note_read(&expr);
        let schema = Schema::new(self.fields.clone());
        let mut scalar = self.session.compile(expr.clone(), &schema)?;
        if let Some(plain) = plain(&scalar.data_type) {
            scalar = self.session.compile(cast(expr, plain), &schema)?;
        }
        if scalar.data_type == DataType::Null {
            return Err(ExprFault::new("the expression is always null, so it has no type: cast it"));
        }
        self.step(name, scalar.data_type.clone(), Value::Column(scalar));
        Ok(())
    }

    /// Adds a column to those that later ones see.
    fn step(&mut self, name: &str, data_type: DataType, value: Value) {
        let schema = Arc::new(Schema::new(self.fields.clone()));
        // DataFusion's own statement about nulls is not relied on.
        self.fields.push(Field::new(name, data_type.clone(), true));
        self.steps.push(Step { value, data_type, schema });
    }

    /// Notes which of the input's columns an expression reads.
    fn note_read(&mut self, expr: &Expr) -> Vec<usize> {
        let names = expr.column_refs();
        let read = |at: &usize| names.iter().any(|column| column.name == *self.fields[*at].name());
        let read: Vec<usize> = (0..self.fields.len()).filter(read).collect();
        self.read.extend(read.iter().filter(|at| **at < self.input));
        read
    }

    /// Puts a column in the place of each window function.
    fn extract(&mut self, expr: Expr) -> Result<Expr, ExprFault> {
        let mut wrong = None;
        let extracted = expr.transform_down(|part| {
            if !matches!(part, Expr::WindowFunction(_)) {
                return Ok(Transformed::no(part));
            }
            match self.function(&part) {
                Ok(column) => Ok(Transformed::new(column, true, TreeNodeRecursion::Jump)),
                Err(fault) => {
                    wrong = Some(fault);
                    Ok(Transformed::new(part, false, TreeNodeRecursion::Stop))
                }
            }
        });
        match wrong {
            Some(fault) => Err(fault),
            None => Ok(extracted.map_err(|error| fault(&error))?.data),
        }
    }

    /// The column of a window function, which is added unless it is there.
    fn function(&mut self, expr: &Expr) -> Result<Expr, ExprFault> {
        let column = |fields: &[Field], at: usize| Expr::Column(Column::new_unqualified(fields[at].name()));
        if let Some((_, at)) = self.functions.iter().find(|(known, _)| known == expr) {
            return Ok(column(&self.fields, *at));
        }
        let Expr::WindowFunction(function) = expr else { return Ok(expr.clone()) };
        if let Some(name) = inner(expr) {
            let message = format!("`{name}` stands inside of a window function");
            let help = Some("give it a column of its own, above this one".to_owned());
            return Err(ExprFault { part: Some(name), help, ..ExprFault::new(message) });
        }
        let columns = self.note_read(expr);
        let narrow = Schema::new(columns.iter().map(|at| self.fields[*at].clone()).collect::<Vec<_>>());
        let planning = PhysicalPlanningContext::default();
        let (schema, properties) = (df_schema(&narrow)?, ExecutionProps::new());
        let compiled = create_window_expr_with_name(expr, "window", &schema, &properties, &planning);
        let compiled = compiled.map_err(|error| fault(&error))?;
        let data_type = compiled.field().map_err(|error| fault(&error))?.data_type().clone();
        let order = self.order(&function.params)?;
        let how = self.how(compiled, &function.params, &narrow)?;
        self.functions.push((expr.clone(), self.fields.len()));
        // No column can have such a name unless it is in quotes, and those that can be named do not include it.
        let name = format!("window function {}", self.functions.len());
        self.step(&name, data_type, Value::Function(Function { order, columns, how }));
        Ok(column(&self.fields, self.fields.len() - 1))
    }

    fn how(
        &self,
        compiled: Arc<dyn WindowExpr>,
        params: &WindowFunctionParams,
        schema: &Schema,
    ) -> Result<How, ExprFault> {
        let frame = compiled.get_window_frame();
        let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
        let plain = compiled.as_any().downcast_ref::<PlainAggregateWindowExpr>().filter(|_| is_whole);
        let aggregate = plain.map(PlainAggregateWindowExpr::get_aggregate_expr);
        let Some(aggregate) = aggregate.filter(|aggregate| aggregate.groups_accumulator_supported()) else {
            return Ok(How::Each(compiled));
        };
        let filter = params.filter.as_deref().map(|filter| self.physical(filter, schema)).transpose()?;
        Ok(How::Groups(Box::new(aggregate.clone()), filter))
    }

    /// The number of an order, which is added unless it is there.
    fn order(&mut self, params: &WindowFunctionParams) -> Result<usize, ExprFault> {
        let (by, order) = (&params.partition_by, &params.order_by);
        if let Some(at) = self.orders.iter().position(|(b, o, _)| b == by && o == order) {
            return Ok(at);
        }
        let schema = Schema::new(self.fields.clone());
        let groups = by.iter().map(|expr| self.physical(expr, &schema)).collect::<Result<Vec<_>, _>>()?;
        let sorts = order.iter().map(|sort| {
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            Ok(PhysicalSortExpr { expr: self.physical(&sort.expr, &schema)?, options })
        });
        let compiled = Order::new(groups, sorts.collect::<Result<Vec<_>, ExprFault>>()?, &schema)?;
        self.orders.push((by.clone(), order.clone(), compiled));
        Ok(self.orders.len() - 1)
    }

    fn physical(&self, expr: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, ExprFault> {
        self.session.context.create_physical_expr(expr.clone(), &df_schema(schema)?).map_err(|error| fault(&error))
    }
}

/// The name of a window or aggregate function among the parts of a window function.
fn inner(expr: &Expr) -> Option<String> {
    let mut name = None;
    let _ = expr.apply_children(|child| {
        name = name.take().or_else(|| aggregate_name(child));
        child.apply(|part| {
            if let Expr::WindowFunction(function) = part {
                name = Some(function.fun.name().to_owned());
            }
            Ok(if name.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    });
    name
}

/// The type under which text travels, if this is another one.
fn plain(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => Some(DataType::Utf8),
        DataType::Dictionary(_, values) => plain(values).or_else(|| Some(values.as_ref().clone())),
        _ => None,
    }
}

impl Windows {
    /// The columns that were asked for. Each may be null.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Which columns of the rows are read, in ascending order.
    pub fn read(&self) -> &[usize] {
        &self.read
    }

    /// The columns of the rows of one partition, and how many values could not be computed. Such a value is null; if a
    /// window function cannot be computed, it is null for all rows.
    ///
    /// # Errors
    /// If the rows do not have the columns that the expressions were compiled for.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, usize), DataFusionError> {
        let mut values = rows.columns().to_vec();
        let mut arranged: Vec<Option<Arranged>> = vec![None; self.orders.len()];
        let (mut added, mut failed) = (Vec::with_capacity(self.fields.len()), 0);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        for step in &self.steps {
            let known = RecordBatch::try_new_with_options(Arc::clone(&step.schema), values.clone(), &options)?;
            let value = match &step.value {
                Value::Column(scalar) => {
                    let value = evaluate_or_null(scalar, &known, &mut failed)?;
                    added.push(value.clone());
                    value
                }
                Value::Function(function) => self.function(function, &known, &mut arranged).unwrap_or_else(|_| {
                    failed += rows.num_rows();
                    new_null_array(&step.data_type, rows.num_rows())
                }),
            };
            values.push(value);
        }
        Ok((added, failed))
    }

    fn function(
        &self,
        function: &Function,
        rows: &RecordBatch,
        arranged: &mut [Option<Arranged>],
    ) -> Result<ArrayRef, DataFusionError> {
        let at = &mut arranged[function.order];
        let order = match at.take() {
            Some(order) => at.insert(order),
            None => at.insert(self.orders[function.order].arrange(rows)?),
        };
        let rows = rows.project(&function.columns)?;
        guarded(|| match &function.how {
            How::Groups(aggregate, filter) => groups(aggregate, filter.as_ref(), &rows, order),
            How::Each(function) => each(function.as_ref(), rows, order),
        })
    }
}

#[cfg(test)]
mod tests;
