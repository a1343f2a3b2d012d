//! Adds, replaces and drops columns.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use engine::batch::{Edge, EdgeClass, EdgeType, SEQ, Stream, TIME};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::Scalar;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use crate::linear::{PORTS, edge_type, edge_values, evaluate_rows, linear, rejected_schema};

/// See [`Operator::SUMMARY`].
pub struct Derive;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct DeriveOptions {
    /// Columns to compute, in this order: a later one may use those before it. A name that the input has already
    /// replaces that column in its place. A row for which a value cannot be computed leaves through the port
    /// `rejected`, with the input's columns.
    #[serde(default)]
    columns: Vec<DerivedColumn>,
    /// Columns to leave out, after all others are computed. Default: none.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    drop: Vec<Located<String>>,
    /// The columns that stay, in this order, after all others are computed: those of a table, such as one of ClickHouse. `time`,
    /// `seq` and the key of a relation stay before them. Not together with `drop`. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    only: Option<Vec<Located<String>>>,
}

/// A computed column.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct DerivedColumn {
    /// The column's name. `time`, `seq` and the key of a relation cannot be replaced.
    #[schemars(with = "String")]
    name: Located<String>,
    /// An SQL expression over the input's columns and those computed before.
    #[schemars(with = "String")]
    expr: Located<String>,
}

impl Operator for Derive {
    type Options = DeriveOptions;
    const KIND: &'static str = "derive";
    const SUMMARY: &'static str = "Adds, replaces or drops columns by SQL expressions over one row.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = PORTS;
    const NEEDS: &'static str = "the columns in the expressions";
    const GIVES: &'static str =
        "the columns of the input and `columns`, without `drop`; `rejected` has the input's and `reason`";

    fn plan(options: DeriveOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.input(0);
        let mut plan = Projection::start(&input);
        let mut complete = true;
        for column in &options.columns {
            complete &= plan.add(column, context).is_some();
        }
        for name in &options.drop {
            complete &= plan.drop(name, context).is_some();
        }
        if let Some(only) = &options.only {
            if let Some(first) = options.drop.first() {
                context.error(first.span, "what `only` does not name is left out already");
                return None;
            }
            complete &= plan.keep(only, context).is_some();
        }
        complete.then(|| Box::new(DeriveNode::new(plan, input)) as Box<dyn Node>)
    }
}

/// The columns so far, while options are read.
struct Projection {
    fixed: HashSet<String>,
    /// Every column computed so far, dropped ones included.
    fields: Vec<Field>,
    dropped: HashSet<usize>,
    /// The columns that stay, if not all but the dropped ones.
    only: Option<Vec<usize>>,
    /// Where each expression's value goes, and the columns that the expression was compiled against.
    steps: Vec<Step>,
}

#[derive(Clone)]
struct Step {
    at: usize,
    expr: Scalar,
    /// The columns after this step.
    schema: SchemaRef,
}

impl Projection {
    fn start(input: &EdgeType) -> Self {
        let mut fixed: HashSet<String> = match &input.class {
            EdgeClass::Stream => HashSet::new(),
            EdgeClass::Relation { key } => key.iter().cloned().collect(),
        };
        fixed.extend([TIME.to_owned(), SEQ.to_owned()]);
        let fields = input.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        Self { fixed, fields, dropped: HashSet::new(), only: None, steps: Vec::new() }
    }

    fn is_fixed(&self, name: &Located<String>, context: &mut PlanContext<'_>, verb: &str) -> bool {
        let fixed = self.fixed.contains(&name.value) && self.fields.iter().any(|f| *f.name() == name.value);
        if fixed {
            context.error(name.span, format!("`{}` cannot be {verb}: rows are ordered or found by it", name.value));
        }
        fixed
    }

    fn add(&mut self, column: &DerivedColumn, context: &mut PlanContext<'_>) -> Option<()> {
        if column.name.value.is_empty() {
            context.error(column.name.span, "a column needs a name");
            return None;
        }
        if self.is_fixed(&column.name, context, "replaced") {
            return None;
        }
        let expr = context.scalar(&column.expr, &Schema::new(self.fields.clone()))?;
        if expr.data_type == DataType::Null {
            context.error(
                column.expr.span,
                "the expression is always null, so it has no type: cast it, as in `cast(null as varchar)`",
            );
            return None;
        }
        // DataFusion's own statement about nulls is not relied on: a batch that contradicts its schema ends the run.
        let field = Field::new(&column.name.value, edge_type(&expr.data_type).into_owned(), true);
        let at = self.fields.iter().position(|f| *f.name() == column.name.value).unwrap_or(self.fields.len());
        match self.fields.get_mut(at) {
            Some(replaced) => *replaced = field,
            None => self.fields.push(field),
        }
        self.steps.push(Step { at, expr, schema: Arc::new(Schema::new(self.fields.clone())) });
        Some(())
    }

    fn drop(&mut self, name: &Located<String>, context: &mut PlanContext<'_>) -> Option<()> {
        if self.is_fixed(name, context, "dropped") {
            return None;
        }
        let at = context.column(&Schema::new(self.fields.clone()), &name.value, name.span)?;
        self.dropped.insert(at);
        Some(())
    }

    /// Columns by which rows are ordered or found, then the named ones.
    fn keep(&mut self, names: &[Located<String>], context: &mut PlanContext<'_>) -> Option<()> {
        let schema = Schema::new(self.fields.clone());
        let mut only: Vec<usize> =
            (0..self.fields.len()).filter(|at| self.fixed.contains(self.fields[*at].name())).collect();
        let mut complete = true;
        for name in names {
            let at = context.column(&schema, &name.value, name.span);
            complete &= at.is_some();
            only.extend(at.filter(|at| !only.contains(at)));
        }
        self.only = Some(only);
        complete.then_some(())
    }

    /// The places of the columns that leave, in their order.
    fn kept(&self) -> Vec<usize> {
        let all = || (0..self.fields.len()).filter(|at| !self.dropped.contains(at)).collect();
        self.only.clone().unwrap_or_else(all)
    }
}

struct DeriveNode {
    steps: Arc<[Step]>,
    kept: Arc<[usize]>,
    input: EdgeType,
    output: SchemaRef,
    rejected: SchemaRef,
}

impl DeriveNode {
    fn new(plan: Projection, input: EdgeType) -> Self {
        let kept: Arc<[usize]> = plan.kept().into();
        let output = Arc::new(Schema::new(kept.iter().map(|at| plan.fields[*at].clone()).collect::<Vec<_>>()));
        let rejected = rejected_schema(&input.schema);
        Self { steps: plan.steps.into(), kept, input, output, rejected }
    }
}

impl Node for DeriveNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.input.with_schema(self.output.clone()), self.input.with_schema(self.rejected.clone())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        inputs
            .into_iter()
            .flat_map(|input| {
                let (steps, kept) = (Arc::clone(&self.steps), Arc::clone(&self.kept));
                let rejected = self.rejected.clone();
                linear(context, input, PORTS.len(), move |rows| {
                    evaluate_rows(rows, &rejected, |rows| project(rows, &steps, &kept))
                })
            })
            .collect()
    }
}

/// The computed columns beside the input's, without those that are dropped.
fn project(rows: &RecordBatch, steps: &[Step], kept: &[usize]) -> Result<RecordBatch, DataFusionError> {
    let mut rows = rows.clone();
    for step in steps {
        let values = edge_values(step.expr.evaluate(&rows)?)?;
        let mut columns = rows.columns().to_vec();
        match columns.get_mut(step.at) {
            Some(replaced) => *replaced = values,
            None => columns.push(values),
        }
        rows = RecordBatch::try_new(Arc::clone(&step.schema), columns)?;
    }
    Ok(rows.project(kept)?)
}
