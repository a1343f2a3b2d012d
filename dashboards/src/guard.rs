//! What is refused before a statement is planned.
//!
//! Planning copies the plan of a common table expression to every mention of it, so a short text can describe a plan
//! of exponential size, and planning cannot be interrupted. Hence the bounds on mentions and expressions.

use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ObjectName, Query, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::Error;
use crate::functions::GROWING;

/// Mentions of tables and common table expressions in one statement.
const MAX_RELATIONS: usize = 24;

/// Common table expressions in one statement. With [`MAX_RELATIONS`] mentions a plan has at most 3⁸ scans.
const MAX_CTES: usize = 8;

/// Calls of functions whose result grows with their arguments.
const MAX_GROWING: usize = 32;

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

/// Refuses grouping sets: every batch is repeated for each of them, which no pool accounts for.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<(), Error> {
    let mut grouping_sets = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            grouping_sets |=
                aggregate.group_expr.iter().any(|e| matches!(e, datafusion::logical_expr::Expr::GroupingSet(_)));
        }
        Ok(if grouping_sets { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if grouping_sets {
        return Err(Error::Forbidden("GROUPING SETS, CUBE and ROLLUP are not served".to_owned()));
    }
    Ok(())
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
