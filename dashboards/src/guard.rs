//! What is refused before a statement is planned.
//!
//! Planning copies the plan of a common table expression to every mention of it, so a short text can describe a plan
//! of exponential size, and planning cannot be interrupted. Hence the bounds on mentions and expressions.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, Operator};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ObjectName, Query, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use engine::functions::bounded::GROWING;
use regex::RegexBuilder;

use crate::error::Error;

/// Mentions of tables and common table expressions in one statement.
const MAX_RELATIONS: usize = 24;

/// Common table expressions in one statement. With [`MAX_RELATIONS`] mentions a plan has at most 3⁸ scans.
const MAX_CTES: usize = 8;

/// Calls of functions whose result grows with their arguments.
const MAX_GROWING: usize = 32;

/// Bytes of a regular expression.
const MAX_PATTERN: usize = 1000;

/// Bytes of a regular expression when it is compiled.
const MAX_COMPILED: usize = 10 << 20;

/// Operators, parentheses and keywords in one statement, which bound how deep anything in it nests.
const MAX_OPERATORS: usize = 1000;

/// Refuses a text that could nest too deep to be parsed. A text that is no SQL passes: the parser says what is wrong.
pub(crate) fn check_text(sql: &str) -> Result<(), Error> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let flat = |token: &Token| match token {
        Token::Word(word) => word.keyword == Keyword::NoKeyword,
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Whitespace(_) | Token::Comma | Token::Period => true,
        _ => false,
    };
    if tokens.iter().filter(|token| !flat(token)).count() > MAX_OPERATORS {
        return Err(Error::query(format!("the statement has more than {MAX_OPERATORS} operators and keywords")));
    }
    Ok(())
}

/// Refuses whatever is not a bounded, reading statement.
pub(crate) fn check(statement: &Statement) -> Result<(), Error> {
    match statement {
        Statement::Statement(inner) => check_sql(inner),
        Statement::Explain(explain) => check(&explain.statement),
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
    }
}

fn check_sql(statement: &SqlStatement) -> Result<(), Error> {
    match statement {
        SqlStatement::Query(_) => {}
        SqlStatement::Explain { statement, .. } => return check_sql(statement),
        SqlStatement::ExplainTable { .. } | SqlStatement::ShowTables { .. } | SqlStatement::ShowColumns { .. } => {
            return Ok(());
        }
        other => {
            let text = other.to_string();
            return Err(refused(text.split_whitespace().next().unwrap_or("this statement")));
        }
    }
    let mut counts = Counts::default();
    match statement.visit(&mut counts) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Refuses what no bound on time or memory would stop early enough: grouping sets, for which every batch is repeated, and regular
/// expressions that are made of each row, every one of which is compiled and kept.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<(), Error> {
    let mut fault = None;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node
            && aggregate.group_expr.iter().any(|e| matches!(e, PlanExpr::GroupingSet(_)))
        {
            fault = Some(Error::Forbidden("GROUPING SETS, CUBE and ROLLUP are not served".to_owned()));
            return Ok(TreeNodeRecursion::Stop);
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                fault = fault.take().or_else(|| pattern(expr).and_then(pattern_fault).map(Error::query));
                Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    fault.map_or(Ok(()), Err)
}

/// The pattern of a regular expression, if the expression is one.
fn pattern(expr: &PlanExpr) -> Option<&PlanExpr> {
    match expr {
        PlanExpr::ScalarFunction(call) if call.name().starts_with("regexp_") => call.args.get(1),
        PlanExpr::BinaryExpr(binary) => match binary.op {
            Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
                Some(&binary.right)
            }
            _ => None,
        },
        PlanExpr::SimilarTo(like) => Some(&like.pattern),
        _ => None,
    }
}

fn pattern_fault(pattern: &PlanExpr) -> Option<String> {
    match pattern {
        PlanExpr::Literal(value, _) => {
            let pattern = value.try_as_str().flatten().unwrap_or_default();
            if pattern.len() > MAX_PATTERN {
                return Some(format!("a regular expression has at most {MAX_PATTERN} bytes"));
            }
            let compiled = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build();
            compiled.err().map(|error| format!("the regular expression cannot be used: {error}"))
        }
        PlanExpr::Cast(cast) => pattern_fault(&cast.expr),
        _ => Some("a regular expression is a constant text, not one that each row makes".to_owned()),
    }
}

fn refused(what: &str) -> Error {
    Error::Forbidden(format!("{what} is refused: the tables are read-only"))
}

#[derive(Default)]
struct Counts {
    relations: usize,
    ctes: usize,
    growing: usize,
}

impl Counts {
    fn add(count: &mut usize, n: usize, max: usize, what: &str) -> ControlFlow<Box<Error>> {
        *count += n;
        if *count > max {
            return ControlFlow::Break(Box::new(Error::query(format!("the statement has more than {max} {what}"))));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Counts {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        if with.recursive {
            return ControlFlow::Break(Box::new(Error::Forbidden(
                "WITH RECURSIVE is refused: it may never end".into(),
            )));
        }
        Self::add(&mut self.ctes, with.cte_tables.len(), MAX_CTES, "common table expressions")
    }

    fn pre_visit_relation(&mut self, _name: &ObjectName) -> ControlFlow<Self::Break> {
        Self::add(&mut self.relations, 1, MAX_RELATIONS, "tables in FROM")
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        let function = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name.to_string(),
            TableFactor::TableFunction { expr, .. } => expr.to_string(),
            TableFactor::UNNEST { .. } => "unnest".to_owned(),
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Box::new(Error::Forbidden(format!("the table function {function} is not served"))))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let grows = match expr {
            Expr::Function(call) => {
                // The last part, without quotes; `date_format` is another name of `to_char`.
                let name = call.name.0.last().and_then(|part| part.as_ident()).map(|part| part.value.to_lowercase());
                name.is_none_or(|name| GROWING.contains(&name.as_str()) || name == "date_format")
            }
            Expr::BinaryOp { op, .. } => *op == BinaryOperator::StringConcat,
            _ => false,
        };
        Self::add(&mut self.growing, usize::from(grows), MAX_GROWING, "calls of functions that build text")
    }
}
