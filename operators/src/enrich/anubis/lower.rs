//! From an expression to SQL over the columns of a row: the same SQL as that of filters and rules, so that there is one
//! evaluator.
//!
//! In CEL an error, such as a header that is looked up and was not sent, goes through operators: `error && false` is false,
//! `error || true` is true, all else is an error. SQL's null does the very same, so an error is null here. Where Anubis
//! answers with an error page, a rule does not match.
//!
//! No SQL that is made here can fail for a row: there are no divisions, products or casts that could, and whole numbers stay
//! far within 64 bits.

mod calls;
mod values;

use std::collections::BTreeSet;

use super::cel::{Expr, Relation};
use values::{Value, joined, quoted};

/// Whole numbers are at most this: exact in a `double` too, and sums of as many as an expression may have stay within 64 bits.
const MAX_INT: i64 = 1 << 52;
/// The longest SQL that an expression may become, in bytes.
const MAX_SQL: usize = 64 * 1024;

/// A column of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its index.
    pub at: usize,
    /// Its name.
    pub name: String,
}

/// What a request has besides its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The method.
    Method,
    /// The path.
    Path,
    /// The query, without the question mark.
    Query,
    /// The host.
    Host,
    /// The client's address.
    Address,
    /// The number of the autonomous system of the address.
    Asn,
    /// The country of the address, as two letters.
    Country,
}

/// Where a request's parts stand in a row.
pub(super) trait Row {
    /// The column of a part.
    ///
    /// # Errors
    /// Why there is none.
    fn part(&self, part: Part) -> Result<Column, String>;

    /// The column of a header, by the name that Go gives it.
    ///
    /// # Errors
    /// Why there is none.
    fn header(&self, name: &str) -> Result<Column, String>;
}

/// What an expression may name.
#[derive(Clone, Copy)]
pub(super) enum Scope<'a> {
    /// A request.
    Request(&'a dyn Row),
    /// The sum of weights, in this column.
    Weight(&'a str),
}

/// A condition in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// The text.
    pub sql: String,
    /// The columns of the row that it reads.
    pub columns: BTreeSet<usize>,
}

/// The condition that an expression is.
///
/// # Errors
/// Why it cannot be evaluated here, in words that follow "not evaluated: ".
pub(super) fn condition(expr: &Expr, scope: Scope<'_>) -> Result<Condition, String> {
    let mut lowering = Lowering { scope, columns: BTreeSet::new() };
    let sql = lowering.truth(expr)?;
    Ok(Condition { sql, columns: lowering.columns })
}

/// The name that Go gives a header: `Sec-Ch-Ua`. What is no name of a header stays as it is.
pub(super) fn canonical(name: &str) -> String {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.bytes().all(is_token) {
        return name.to_owned();
    }
    let mut upper = true;
    name.chars()
        .map(|c| {
            let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            c
        })
        .collect()
}

/// The SQL of a column's text. What was not sent is empty, as in Go.
pub(super) fn text(column: &str) -> String {
    format!("coalesce({}, '')", quoted(column, '"'))
}

/// The SQL of a path. A client may write any character as a byte; Go has decoded them.
pub(super) fn path(column: &str) -> String {
    format!("url_decode({})", text(column))
}

struct Lowering<'a> {
    scope: Scope<'a>,
    columns: BTreeSet<usize>,
}

impl<'a> Lowering<'a> {
    /// A value of bounded size: what stands in several places of the SQL could otherwise double from level to level.
    fn value(&mut self, expr: &Expr) -> Result<Value, String> {
        let value = self.piece(expr)?;
        if value.len() > MAX_SQL { Err(format!("it would become more than {MAX_SQL} bytes of SQL")) } else { Ok(value) }
    }

    fn piece(&mut self, expr: &Expr) -> Result<Value, String> {
        Ok(match expr {
            Expr::Text(text) => Value::constant(text.clone()),
            Expr::Int(value) => Value::int(*value)?,
            Expr::Double(value) => Value::Double(format!("cast({value:e} as double)")),
            Expr::Bool(value) => Value::Bool(value.to_string()),
            Expr::Other(what) => return Err(format!("{what} is not known here")),
            Expr::Name(name) => self.variable(name)?,
            Expr::Member(of, name) => self.index(of, &Expr::Text(name.clone()))?,
            Expr::Index(of, index) => self.index(of, index)?,
            Expr::Call(name, arguments) => self.call(name, arguments)?,
            Expr::Method(of, name, arguments) => self.method(of, name, arguments)?,
            Expr::List(items) => Value::List(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?),
            Expr::Not(inner) => Value::Bool(format!("(not {})", self.truth(inner)?)),
            Expr::Negative(inner) => match self.value(inner)? {
                Value::Int(sql) => Value::Int(format!("(0 - {sql})")),
                Value::Double(sql) => Value::Double(format!("(0.0 - {sql})")),
                other => return Err(format!("`-` stands before {}", other.kind())),
            },
            Expr::All(parts) => self.junction(parts, " and ")?,
            Expr::Any(parts) => self.junction(parts, " or ")?,
            Expr::Relation(Relation::In, item, of) => self.is_in(item, of)?,
            Expr::Relation(relation, left, right) => self.compare(*relation, left, right)?,
            Expr::Chain(first, others) => self.chain(first, others)?,
            Expr::If(condition, then, otherwise) => self.choice(condition, then, otherwise)?,
        })
    }

    /// The SQL of what is true or false.
    fn truth(&mut self, expr: &Expr) -> Result<String, String> {
        match self.value(expr)? {
            Value::Bool(sql) => Ok(sql),
            other => Err(format!("a condition is true or false, not {}", other.kind())),
        }
    }

    /// The SQL of a text.
    fn text(&mut self, expr: &Expr, what: &str) -> Result<String, String> {
        match self.value(expr)? {
            Value::Text(sql, _) => Ok(sql),
            other => Err(format!("{what} is text, not {}", other.kind())),
        }
    }

    fn junction(&mut self, parts: &[Expr], word: &str) -> Result<Value, String> {
        let parts = parts.iter().map(|part| self.truth(part)).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::Bool(joined(&parts, word)))
    }

    /// A choice whose condition is an error is one, and not the second value.
    fn choice(&mut self, condition: &Expr, then: &Expr, otherwise: &Expr) -> Result<Value, String> {
        let condition = self.truth(condition)?;
        let choose = |a: &str, b: &str| format!("(case {condition} when true then {a} when false then {b} end)");
        match (self.value(then)?, self.value(otherwise)?) {
            (Value::Bool(a), Value::Bool(b)) => Ok(Value::Bool(choose(&a, &b))),
            (Value::Text(a, _), Value::Text(b, _)) => Ok(Value::Text(choose(&a, &b), None)),
            (Value::Int(a), Value::Int(b)) => Ok(Value::Int(choose(&a, &b))),
            (Value::Double(a), Value::Double(b)) => Ok(Value::Double(choose(&a, &b))),
            (a, b) => Err(format!("`?` chooses between {} and {}", a.kind(), b.kind())),
        }
    }

    fn compare(&mut self, relation: Relation, left: &Expr, right: &Expr) -> Result<Value, String> {
        let sign = match relation {
            Relation::Equal => "=",
            Relation::NotEqual => "<>",
            Relation::Less => "<",
            Relation::LessOrEqual => "<=",
            Relation::Greater => ">",
            Relation::GreaterOrEqual => ">=",
            Relation::In => return self.is_in(left, right),
        };
        match (self.value(left)?, self.value(right)?) {
            (Value::Bool(a), Value::Bool(b))
            | (Value::Text(a, _), Value::Text(b, _))
            | (Value::Int(a), Value::Int(b))
            | (Value::Double(a), Value::Double(b)) => Ok(Value::Bool(format!("({a} {sign} {b})"))),
            (a, b) => Err(format!("{} is compared with {}", a.kind(), b.kind())),
        }
    }

    /// Sums of whole numbers, and texts one behind the other.
    fn chain(&mut self, first: &Expr, others: &[(char, Expr)]) -> Result<Value, String> {
        if let Some((sign, _)) = others.iter().find(|(sign, _)| !matches!(sign, '+' | '-')) {
            return Err(format!("the operator `{sign}` is not known here"));
        }
        let mut sum = self.value(first)?;
        let mut parts = vec![String::new()];
        for (sign, other) in others {
            sum = match (sum, self.value(other)?) {
                (Value::Int(a), Value::Int(b)) => {
                    parts.extend([format!(" {sign} "), b]);
                    Value::Int(a)
                }
                (Value::Text(a, before), Value::Text(b, after)) if *sign == '+' => {
                    parts.extend([" || ".to_owned(), b]);
                    Value::Text(a, before.zip(after).map(|(before, after)| before + &after))
                }
                (a, b) => return Err(format!("`{sign}` stands between {} and {}", a.kind(), b.kind())),
            };
        }
        let parts = parts.concat();
        Ok(match sum {
            Value::Text(_, Some(constant)) => Value::constant(constant),
            Value::Text(sql, None) => Value::Text(format!("({sql}{parts})"), None),
            Value::Int(sql) => Value::Int(format!("({sql}{parts})")),
            other => other,
        })
    }

    fn variable(&mut self, name: &str) -> Result<Value, String> {
        let row = match self.scope {
            Scope::Request(row) => row,
            Scope::Weight(column) if name == "weight" => return Ok(Value::Int(quoted(column, '"'))),
            Scope::Weight(_) => return Err(format!("a threshold knows `weight`, not `{name}`")),
        };
        let part = match name {
            "method" => Part::Method,
            "path" => Part::Path,
            "query" => Part::Query,
            "host" => Part::Host,
            // An address that is not known is none that could be compared.
            "remoteAddress" => return Ok(Value::Text(self.column(row.part(Part::Address)?), None)),
            "userAgent" => {
                let column = row.header("User-Agent")?;
                self.columns.insert(column.at);
                return Ok(Value::Text(text(&column.name), None));
            }
            "contentLength" => {
                let column = self.column(row.header("Content-Length")?);
                let digits =
                    format!("case when character_length({column}) <= 15 then try_cast({column} as bigint) end");
                return Ok(Value::Int(format!("(case when {column} is null then 0 else {digits} end)")));
            }
            "headers" => return Ok(Value::Headers),
            "load_1m" | "load_5m" | "load_15m" => {
                return Err(format!("`{name}` is the load of the machine on which Anubis runs"));
            }
            "weight" => return Err("only thresholds know `weight`".to_owned()),
            _ => return Err(format!("the variable `{name}` is not known here")),
        };
        let column = row.part(part)?;
        self.columns.insert(column.at);
        Ok(match part {
            Part::Query => Value::Query(text(&column.name)),
            Part::Path => Value::Text(path(&column.name), None),
            _ => Value::Text(text(&column.name), None),
        })
    }

    /// Notes a column and gives its name as SQL.
    fn column(&mut self, column: Column) -> String {
        self.columns.insert(column.at);
        quoted(&column.name, '"')
    }

    /// The column of a header by the name in an expression, which Anubis compares as it is with those that Go gives.
    fn header(&mut self, name: &str) -> Result<String, String> {
        let Scope::Request(row) = self.scope else { return Err("only rules know `headers`".to_owned()) };
        let known = canonical(name);
        if known != name {
            return Err(format!("Anubis never finds the header `{name}`: write `{known}`"));
        }
        if name == "Host" {
            return Err("Anubis never finds the header `Host`: write `host`".to_owned());
        }
        Ok(self.column(row.header(name)?))
    }
}

#[cfg(test)]
mod tests;
