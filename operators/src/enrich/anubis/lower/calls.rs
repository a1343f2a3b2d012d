//! Functions, methods, indices and `in`.

use super::super::cel::Expr;
use super::super::go_regex;
use super::Lowering;
use super::values::{Value, quoted};

/// Functions of Anubis that ask a name server.
const DNS: [&str; 4] = ["lookupHost", "reverseDNS", "verifyFCrDNS", "arpaReverseIP"];

/// What `regexSafe` puts a backslash before, in the order in which it does.
const UNSAFE: &str = "\\.:*?-[]()+{}|^$";

impl Lowering<'_> {
    pub(super) fn call(&mut self, name: &str, arguments: &[Expr]) -> Result<Value, String> {
        match (name, arguments) {
            (name, _) if DNS.contains(&name) => Err(format!("`{name}` asks a name server")),
            ("randInt", _) => Err("`randInt` is no function of the request".to_owned()),
            ("size", [of]) => self.size(of),
            ("matches", [text, pattern]) => self.matches(text, pattern),
            ("missingHeader", [headers, name]) => {
                let column = self.named_header(headers, name)?;
                Ok(Value::Bool(format!("({column} is null)")))
            }
            ("has", [Expr::Member(of, name)]) => self.is_in(&Expr::Text(name.clone()), of),
            ("segments", [path]) => Ok(Value::Segments(self.text(path, "a path")?)),
            ("regexSafe", [text]) => Ok(match self.value(text)? {
                Value::Text(_, Some(text)) => Value::constant(safe(&text)),
                Value::Text(..) => return Err("what `regexSafe` is given is not constant".to_owned()),
                other => return Err(format!("`regexSafe` is given text, not {}", other.kind())),
            }),
            _ => Err(format!("the function `{name}` of {} is not known here", count(arguments.len()))),
        }
    }

    pub(super) fn method(&mut self, of: &Expr, name: &str, arguments: &[Expr]) -> Result<Value, String> {
        let function = match (name, arguments) {
            ("contains", [_]) => "contains",
            ("startsWith", [_]) => "starts_with",
            ("endsWith", [_]) => "ends_with",
            ("matches", [pattern]) => return self.matches(of, pattern),
            ("size", []) => return self.size(of),
            ("lowerAscii", []) => return self.case(of, name, UPPER, LOWER),
            ("upperAscii", []) => return self.case(of, name, LOWER, UPPER),
            _ => return Err(format!("the method `{name}` of {} is not known here", count(arguments.len()))),
        };
        let text = self.text(of, &format!("what `{name}` is asked of"))?;
        let part = self.text(&arguments[0], &format!("what `{name}` is given"))?;
        Ok(Value::Bool(format!("{function}({text}, {part})")))
    }

    /// SQL's `lower` would change other letters too.
    fn case(&mut self, of: &Expr, name: &str, from: &str, to: &str) -> Result<Value, String> {
        let text = self.text(of, &format!("what `{name}` is asked of"))?;
        Ok(Value::Text(format!("translate({text}, '{from}', '{to}')"), None))
    }

    fn matches(&mut self, text: &Expr, pattern: &Expr) -> Result<Value, String> {
        let text = self.text(text, "what `matches` is asked of")?;
        let Value::Text(_, pattern) = self.value(pattern)? else { return Err("a regex is text".to_owned()) };
        // Only what is known now can be put from Go's syntax into that of SQL.
        let pattern = pattern.ok_or("the regex of `matches` is not constant")?;
        let pattern = go_regex::translate(&pattern)?;
        Ok(Value::Bool(format!("regexp_like({text}, {})", quoted(&pattern, '\''))))
    }

    fn size(&mut self, of: &Expr) -> Result<Value, String> {
        Ok(Value::Int(match self.value(of)? {
            Value::Text(sql, _) => format!("cast(character_length({sql}) as bigint)"),
            Value::List(items) => items.len().to_string(),
            Value::Segments(path) => segments(&path),
            Value::Query(sql) => format!("query_size({sql})"),
            Value::Headers => return Err("how many headers a request has is not known here".to_owned()),
            other => return Err(format!("`size` is asked of {}", other.kind())),
        }))
    }

    /// The column of a header that is named in an expression.
    fn named_header(&mut self, headers: &Expr, name: &Expr) -> Result<String, String> {
        let Value::Headers = self.value(headers)? else { return Err("a header is looked up in `headers`".to_owned()) };
        match self.value(name)? {
            Value::Text(_, Some(name)) => self.header(&name),
            _ => Err("which header is looked up is not constant".to_owned()),
        }
    }

    /// `a[b]`; what is not there is null.
    pub(super) fn index(&mut self, of: &Expr, index: &Expr) -> Result<Value, String> {
        Ok(match (self.value(of)?, self.value(index)?) {
            (Value::Headers, _) => Value::Text(self.named_header(of, index)?, None),
            (Value::Query(sql), Value::Text(name, _)) => Value::Text(format!("query_value({sql}, {name})"), None),
            (Value::Segments(path), Value::Int(nth)) => Value::Text(
                format!(
                    "(case when {nth} >= 0 and {nth} < {} then split_part({path}, '/', {nth} + 2) end)",
                    segments(&path)
                ),
                None,
            ),
            (of, index) => return Err(format!("{} is looked up in {}", index.kind(), of.kind())),
        })
    }

    pub(super) fn is_in(&mut self, item: &Expr, of: &Expr) -> Result<Value, String> {
        Ok(Value::Bool(match (self.value(item)?, self.value(of)?) {
            (_, Value::Headers) => format!("({} is not null)", self.named_header(of, item)?),
            (Value::Text(name, _), Value::Query(sql)) => format!("(query_value({sql}, {name}) is not null)"),
            (Value::Text(item, _), Value::Segments(path)) => format!(
                "(case when starts_with({path}, '/') then strpos({item}, '/') = 0 \
                 and strpos(({path} || '/'), ('/' || {item} || '/')) > 0 end)"
            ),
            (_, Value::List(items)) if items.is_empty() => "false".to_owned(),
            (item, Value::List(items)) => {
                let (sql, kind) = item.scalar().ok_or_else(|| format!("{} is looked for in a list", item.kind()))?;
                let mut others = Vec::with_capacity(items.len());
                for other in &items {
                    match other.scalar() {
                        Some((other, same)) if same == kind => others.push(other),
                        _ => return Err(format!("{kind} is looked for among {}", other.kind())),
                    }
                }
                format!("({sql} in ({}))", others.join(", "))
            }
            (item, of) => return Err(format!("{} is looked for in {}", item.kind(), of.kind())),
        }))
    }
}

const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";

/// How many parts a path has: one for each slash. A path that does not begin with one is an error in Anubis.
fn segments(path: &str) -> String {
    format!(
        "(case when starts_with({path}, '/') then \
         cast(character_length({path}) - character_length(replace({path}, '/', '')) as bigint) end)"
    )
}

/// A text with a backslash before each character that means something in a regex.
fn safe(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if UNSAFE.contains(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

fn count(arguments: usize) -> String {
    format!("{arguments} argument{}", if arguments == 1 { "" } else { "s" })
}
