//! SQL expressions over a node's columns, compiled by DataFusion when the pipeline is loaded.
//!
//! An expression is a pure function of a row: functions that ask the clock or a random source are refused, because
//! the same input must give the same rows. It is bounded: what is too large to be planned or computed is refused when it is
//! planned, and a row for which it would make too much, or panics, is an error of that row.

mod bounds;
mod guard;
mod patterns;
mod window;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, ScalarUDF, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

use crate::functions::bounded::{BoundedConcat, MAX_VALUE_BYTES, bounded};
use crate::functions::{self, BadArgument};
use crate::spec::nearest;

pub use guard::is_guarded;
pub(crate) use guard::{guarded, panic_message};
use patterns::Stage;
pub use window::Windows;

/// Aggregates that are not known in expressions: they are as large as all that they take in.
const COLLECTING: [&str; 2] = ["array_agg", "string_agg"];

/// Compiles expressions.
pub struct Session {
    context: SessionContext,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Scalar {
    expr: Arc<dyn PhysicalExpr>,
    /// What it gives.
    pub data_type: DataType,
    /// Whether it can give null.
    pub nullable: bool,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprFault {
    /// One lower-case sentence.
    pub message: String,
    /// The word of the expression that is wrong.
    pub part: Option<String>,
    /// What was probably meant.
    pub help: Option<String>,
}

impl ExprFault {
    /// A fault of a whole expression.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), part: None, help: None }
    }

    /// The fault of an expression as it was written: SQL has turned names without quotes to lower case.
    fn within(mut self, sql: &str) -> Self {
        let Some(part) = &self.part else { return self };
        if sql.contains(&format!("\"{part}\"")) && self.message.starts_with("no column") {
            let text = format!("text is in single quotes, '{part}'; what is in double quotes is a column");
            self.help = Some(self.help.map_or_else(|| text.clone(), |help| format!("{help} {text}")));
            return self;
        }
        if let Some((at, len)) = find_word(sql, part) {
            let written = &sql[at..at + len];
            self.message = self.message.replace(&format!("`{part}`"), &format!("`{written}`"));
            self.part = Some(written.to_owned());
        }
        self
    }
}

/// Finds `word` in `text` where it is not part of a longer name: as it is, else in any case of its letters.
pub(crate) fn find_word(text: &str, word: &str) -> Option<(usize, usize)> {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let find = |text: &str, word: &str| {
        text.match_indices(word)
            .find(|(at, _)| !part(text[..*at].chars().next_back()) && !part(text[at + word.len()..].chars().next()))
            .map(|(at, _)| (at, word.len()))
    };
    find(text, word).or_else(|| find(&text.to_ascii_lowercase(), &word.to_ascii_lowercase()))
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A compiler that knows DataFusion's functions and those of [`functions`].
    pub fn new() -> Self {
        let mut context = SessionContext::new();
        let of_datafusion = datafusion::functions::all_default_functions();
        let bounded_ones = of_datafusion.into_iter().map(|function| bounded(function, MAX_VALUE_BYTES));
        for function in bounded_ones.chain(functions::scalar()) {
            context.register_udf(function.as_ref().clone());
        }
        COLLECTING.iter().for_each(|name| context.deregister_udaf(name));
        // It refuses none.
        let _ = context.register_expr_planner(Arc::new(BoundedConcat { most: MAX_VALUE_BYTES }));
        Self { context }
    }

    /// Makes a further aggregate function known by name and types.
    pub fn register_aggregate(&self, function: AggregateUDF) {
        self.context.register_udaf(function);
    }

    /// Makes a further function of a row known by name and types. Who registers one that cannot be computed from the row
    /// alone takes it out of an expression before that is compiled.
    pub fn register_scalar(&self, function: ScalarUDF) {
        self.context.register_udf(function);
    }

    /// Compiles an expression over one row.
    ///
    /// # Errors
    /// If it is not SQL, names an unknown column or function, does not type-check, or is not a function of the row.
    pub fn scalar(&self, sql: &str, schema: &Schema) -> Result<Scalar, ExprFault> {
        let expr = self.parse(sql, schema)?;
        self.compile(expr, schema)
    }

    /// Parses an expression, which may hold aggregate functions.
    ///
    /// # Errors
    /// If it is not SQL, or names an unknown column or function.
    pub fn parse(&self, sql: &str, schema: &Schema) -> Result<Expr, ExprFault> {
        self.parse_any(sql, schema, false)
    }

    /// [`Session::parse`] of an expression that may hold window functions, or not.
    fn parse_any(&self, sql: &str, schema: &Schema, windows: bool) -> Result<Expr, ExprFault> {
        if sql.trim().is_empty() {
            return Err(ExprFault::new("the expression is empty"));
        }
        bounds::check_text(sql)?;
        let columns = df_schema(schema)?;
        let parsed = guarded(|| self.context.parse_sql_expr(sql, &columns));
        let expr = parsed.map_err(|error| fault(&error).within(sql))?;
        bounds::check_tree(&expr)?;
        pure(&expr, windows)?;
        Ok(expr)
    }

    /// Type-checks and compiles an expression without aggregate functions.
    ///
    /// # Errors
    /// If it does not type-check.
    pub fn compile(&self, expr: Expr, schema: &Schema) -> Result<Scalar, ExprFault> {
        if let Some(name) = aggregate_name(&expr) {
            return Err(ExprFault {
                part: Some(name.clone()),
                ..ExprFault::new(format!("`{name}` is an aggregate function; this expression is over one row"))
            });
        }
        bounds::check_tree(&expr)?;
        let columns = df_schema(schema)?;
        let expr = simplified(expr, &columns)?;
        let expr = guarded(|| self.context.create_physical_expr(expr, &columns)).map_err(|error| fault(&error))?;
        let data_type = expr.data_type(schema).map_err(|error| fault(&error))?;
        let nullable = expr.nullable(schema).map_err(|error| fault(&error))?;
        Ok(Scalar { expr, data_type, nullable })
    }
}

impl Scalar {
    /// The value for each row.
    ///
    /// # Errors
    /// If a value cannot be computed, such as a cast of text that is not a number, or would be too large.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        guarded(|| self.expr.evaluate(rows)?.into_array(rows.num_rows()))
    }

    /// Which rows the expression is true for; null counts as false.
    ///
    /// # Errors
    /// As [`Scalar::evaluate`], and if the expression is not a truth value.
    pub fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let values = self.evaluate(rows)?;
        match values.as_any().downcast_ref::<BooleanArray>() {
            Some(mask) if mask.null_count() > 0 => Ok(arrow::compute::prep_null_mask_filter(mask)),
            Some(mask) => Ok(mask.clone()),
            None => Err(DataFusionError::Internal(format!("{} is not a truth value", self.data_type))),
        }
    }

    /// Refuses an expression that is not a truth value.
    ///
    /// # Errors
    /// If it is not.
    pub fn truth(self) -> Result<Self, ExprFault> {
        match self.data_type {
            DataType::Boolean => Ok(self),
            ref other => Err(ExprFault::new(format!("a condition is true or false; this expression is {other}"))),
        }
    }
}

use arrow::array::Array;

fn df_schema(schema: &Schema) -> Result<DFSchema, ExprFault> {
    DFSchema::try_from(SchemaRef::new(schema.clone())).map_err(|error| fault(&error))
}

/// An expression as it is computed. Some functions, such as coalesce, are only defined by what they simplify to.
///
/// # Errors
/// If it does not type-check, or has a pattern that is no constant or too large.
fn simplified(expr: Expr, columns: &DFSchema) -> Result<Expr, ExprFault> {
    patterns::check(&expr, Stage::Written)?;
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::new(columns.clone())).build());
    let expr = guarded(|| simplifier.coerce(expr, columns).and_then(|expr| simplifier.simplify(expr)));
    let expr = expr.map_err(|error| fault(&error))?;
    patterns::check(&expr, Stage::Simplified)?;
    Ok(expr)
}

fn aggregate_name(expr: &Expr) -> Option<String> {
    let mut name = None;
    let _ = expr.apply(|part| {
        if let Expr::AggregateFunction(function) = part {
            name = Some(function.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    name
}

/// Refuses functions whose value is not determined by their arguments, and window functions unless they may be there.
fn pure(expr: &Expr, windows: bool) -> Result<(), ExprFault> {
    let mut found = None;
    let _ = expr.apply(|part| {
        match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                found = Some(call.func.name().to_owned());
            }
            Expr::WindowFunction(_) if windows => {}
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::WindowFunction(_) => {
                found = Some("a subquery or window function".to_owned());
            }
            _ => {}
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match found {
        None => Ok(()),
        Some(name) => Err(ExprFault {
            part: Some(name.clone()),
            help: Some("use the row's own columns, such as `time`".to_owned()),
            ..ExprFault::new(format!("`{name}` cannot be used: its value does not depend on the row alone"))
        }),
    }
}

/// What DataFusion says, as a fault with the wrong word and the nearest right one.
pub fn fault(error: &DataFusionError) -> ExprFault {
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let name = field.name.clone();
        let names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
        return ExprFault {
            help: column_help(&name, &names),
            part: Some(name.clone()),
            ..ExprFault::new(format!("no column `{name}`"))
        };
    }
    if let DataFusionError::External(cause) = root
        && let Some(bad) = cause.downcast_ref::<BadArgument>()
    {
        return ExprFault {
            part: Some(bad.part.clone()),
            help: bad.help.clone(),
            ..ExprFault::new(bad.message.clone())
        };
    }
    let text = root.strip_backtrace();
    let text = ["Error during planning: ", "SQL error: ", "This feature is not implemented: ", "Schema error: "]
        .iter()
        .fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    let text = text.strip_prefix("ParserError(\"").and_then(|t| t.strip_suffix("\")")).unwrap_or(text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("not a valid expression");
    if let Some(name) = first.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
        let help = lines.next().map(|l| l.replace("Did you mean", "did you mean").replace('\'', "`"));
        return ExprFault { part: Some(name.to_owned()), help, ..ExprFault::new(format!("no function `{name}`")) };
    }
    let help = lines.collect::<Vec<_>>().join(" ");
    ExprFault { help: (!help.is_empty()).then_some(help), ..ExprFault::new(first.to_owned()) }
}

/// What was probably meant by a column that there is none of. SQL takes a name without quotes for one in lower case.
fn column_help(name: &str, names: &[&str]) -> Option<String> {
    let written = names.iter().find(|known| **known != name && known.to_lowercase() == name.to_lowercase());
    if let Some(written) = written {
        let why = if needs_quotes(written) { ": SQL reads a name without quotes in lower case" } else { "" };
        return Some(format!("write {}{why}", identifier(written)));
    }
    nearest(name, names.iter().copied()).map(|near| match needs_quotes(near) {
        true => format!("did you mean {}, in double quotes?", identifier(near)),
        false => format!("did you mean `{near}`?"),
    })
}

/// Whether SQL takes a name for itself only in double quotes.
fn needs_quotes(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.chars().all(valid) || name.starts_with(|c: char| c.is_ascii_digit())
}

/// A name as SQL wants it written.
fn identifier(name: &str) -> String {
    match needs_quotes(name) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "expr/limits_tests.rs"]
mod limits_tests;

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Field::new("method", DataType::Utf8, true), Field::new("status", DataType::Int64, true)])
    }

    #[test]
    fn an_expression_is_evaluated_over_a_batch() {
        let scalar = Session::new().scalar("method = 'POST' and status >= 400", &schema()).expect("valid");
        let method = StringArray::from(vec![Some("POST"), Some("GET"), None]);
        let status = Int64Array::from(vec![401, 401, 500]);
        let rows = RecordBatch::try_new(Arc::new(schema()), vec![Arc::new(method), Arc::new(status)]).expect("valid");
        let mask = scalar.truth().expect("boolean").mask(&rows).expect("evaluates");
        assert_eq!(mask.iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
    }

    #[test]
    fn faults_name_the_wrong_word_and_the_nearest() {
        let session = Session::new();
        let fault = session.scalar("lower(metod) = 'post'", &schema()).expect_err("no such column");
        assert_eq!((fault.part.as_deref(), fault.help.as_deref()), (Some("metod"), Some("did you mean `method`?")));
        let fault = session.scalar("lowr(method)", &schema()).expect_err("no such function");
        assert_eq!(fault.part.as_deref(), Some("lowr"), "{fault:?}");
        assert!(fault.help.as_deref().is_some_and(|h| h.contains("lower")), "{fault:?}");
        assert!(session.scalar("method =", &schema()).is_err());
        assert!(session.scalar("", &schema()).is_err());
        for trailing in ["status > 1 method", "status > 1; drop table x", "status > 1, method", "status > 1)"] {
            assert!(session.scalar(trailing, &schema()).is_err(), "{trailing}");
        }
        assert!(session.scalar("status + ", &schema()).is_err());
    }

    #[test]
    fn a_column_with_capitals_is_to_be_quoted_and_text_is_not() {
        let fields =
            ["DownstreamStatus", "method", "request-id", "Größe"].map(|name| Field::new(name, DataType::Utf8, true));
        let (session, schema) = (Session::new(), Schema::new(fields.to_vec()));
        let fault = |sql: &str| {
            let fault = session.scalar(sql, &schema).expect_err(sql);
            (fault.message, fault.part.unwrap_or_default(), fault.help.unwrap_or_default())
        };
        let (message, part, help) = fault("DownstreamStatus >= '200'");
        assert_eq!((message.as_str(), part.as_str()), ("no column `DownstreamStatus`", "DownstreamStatus"));
        assert!(help.starts_with("write \"DownstreamStatus\": "), "{help}");
        assert!(fault("\"downstreamstatus\" = 'x'").2.contains("write \"DownstreamStatus\""));
        assert!(fault("DownstreamStatsu = 'x'").2.contains("did you mean \"DownstreamStatus\", in double quotes?"));
        assert!(fault("requestid = 'x'").2.contains("\"request-id\""));
        assert_eq!(fault("\"Method\" = 'x'").2.split(' ').take(2).collect::<Vec<_>>(), ["write", "method"]);
        let (message, part, help) = fault("method = \"login\"");
        assert_eq!((message.as_str(), part.as_str()), ("no column `login`", "login"));
        assert!(help.contains("'login'"), "{help}");
        assert!(session.scalar("\"DownstreamStatus\" >= '200' and METHOD = 'a'", &schema).is_ok());
    }

    #[test]
    fn clock_random_and_aggregates_are_refused() {
        let session = Session::new();
        for sql in ["now() is null", "random() > 0.5", "count(*) > 1"] {
            assert!(session.scalar(sql, &schema()).is_err(), "{sql}");
        }
    }

    #[test]
    fn types_are_checked() {
        let session = Session::new();
        assert!(session.scalar("method + status", &schema()).is_err());
        assert!(session.scalar("status", &schema()).expect("valid").truth().is_err());
    }
}
