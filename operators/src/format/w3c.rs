//! `w3c` and `iis`: logs in W3C's extended format, as IIS writes them.
//!
//! Source: W3C working draft WD-logfile-960323, <https://www.w3.org/TR/WD-logfile.html>, and
//! <https://learn.microsoft.com/en-us/windows/win32/http/w3c-logging>. Times are UTC, and those of a request's end.
//!
//! The columns are those of the fields that the pipeline names. Which value of a line is which says the last `#Fields:` before
//! it in its file; where there is none, as in a file that was cut, the pipeline's order counts. Fields that the pipeline does
//! not name are passed over, and those that a file does not have are null.

use std::collections::HashMap;
use std::sync::Arc;

use super::cell::Cells;
use super::options::BuiltIn;
use super::schema::Format;
use super::syntax::{Fault, Syntax, Taken};
use super::text::transform::{self, same};
use super::text::{
    Escape, Filler, Item, Known, Layout, Moment, Part, Shape, Want, Wants, Wrong, Zone, column, header, of,
    response_header,
};
use super::time::Unit;

/// What IIS 10 writes if nothing else is said.
pub(super) const IIS: &str = "date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) cs(Referer) \
                   sc-status sc-substatus sc-win32-status time-taken";

pub(super) const IIS_FORMAT: BuiltIn = BuiltIn {
    name: "iis",
    summary: "the log of IIS; it has no port, so `correlate` joins none of its rows. `#Fields:` in a file says where the values \
              stand, `fields` which have columns",
    unit: Unit::S,
    format: |_| Format::w3c(IIS, W3cUnit::Iis).unwrap_or_else(|_| Format::reqin_log(Unit::Ns)),
};

/// Whose log it is: in what `time-taken` counts, and how spaces are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum W3cUnit {
    /// Milliseconds, and `+`.
    Iis,
    /// Seconds, and text with spaces in quotes.
    W3c,
}

/// The most fields of a file, and the longest `#Fields:` in bytes.
const MAX_FIELDS: usize = 256;
const MAX_DIRECTIVE: usize = 8192;

/// Fields with a column.
pub(super) const FIELDS: [Known; 23] = [
    of("c-ip", "src_ip", 1, Shape::Word),
    of("c-port", "src_port", 1, Shape::Number),
    of("s-ip", "dst_ip", 1, Shape::Word),
    of("s-port", "dst_port", 1, Shape::Number),
    of("cs-method", "method", 1, Shape::Word),
    of("cs-uri-stem", "path", 2, Shape::Word),
    of("cs-uri-query", "query", 2, Shape::Word),
    of("cs-version", "http_version", 1, Shape::Word),
    of("cs-protocol-version", "http_version", 1, Shape::Word),
    of("cs-protocol", "scheme", 1, Shape::Word),
    of("cs-host", "host", 1, Shape::Word).with(transform::host),
    of("x-host-header", "host", 3, Shape::Word).with(transform::host),
    of("sc-status", "status_code", 1, Shape::Number),
    of("sc-bytes", "response_size", 1, Shape::Number),
    of("cs-bytes", "request_size", 1, Shape::Number),
    of("cs-username", "remote_user", 1, Shape::Word),
    of("ssl-protocol", "server_tls_version", 1, Shape::Word),
    of("ssl-cipher", "server_tls_cipher", 1, Shape::Word),
    of("s-sitename", "site_name", 1, Shape::Word),
    of("s-computername", "computer_name", 1, Shape::Word),
    of("sc-substatus", "sc_substatus", 1, Shape::Word),
    of("sc-win32-status", "sc_win32_status", 1, Shape::Word),
    of("s-port-number", "", 0, Shape::Word),
];

/// Fields whose columns are not in a table.
pub(super) const OTHERS: &[[&str; 2]] = &[
    ["date, time", "`time`, when the request ended"],
    ["time-taken", "`duration_ms`: in milliseconds of `iis`, in seconds of `w3c`"],
    ["cs-uri", "`path`, `query`"],
    ["cs(Name), X-Forwarded-For", "`header_name`; of cookies and credentials only whether they came"],
    ["sc(Name)", "`response_header_name`"],
    ["name", "`name`, with `_` for all but letters and digits"],
];

impl Format {
    /// Requests in W3C's extended format, with columns for these fields.
    ///
    /// # Errors
    /// What is wrong with the fields, and where.
    pub fn w3c(fields: &str, whose: W3cUnit) -> Result<Arc<Self>, Wrong> {
        let text = fields.strip_prefix("#Fields:").unwrap_or(fields);
        let mut items = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for name in text.split_ascii_whitespace() {
            let at = name.as_ptr() as usize - fields.as_ptr() as usize;
            if names.contains(&name) {
                return Err(Wrong::at(at, format!("`{name}` is there twice")));
            }
            if names.len() == MAX_FIELDS {
                return Err(Wrong::at(at, format!("more than {MAX_FIELDS} fields")));
            }
            names.push(name);
            items.push(item(name, at, whose)?);
            items.push(Item::Literal(b" ".to_vec()));
        }
        let format =
            Wants { expected: "a line of W3C's extended format", items, is_open: false, zone: Zone::default() }
                .format()?;
        let syntax = if whose == W3cUnit::Iis { W3c::of_iis } else { W3c::syntax };
        Ok(Arc::new(Self { syntax, ..Self::clone(&format) }))
    }
}

/// What a field is.
fn item(name: &str, at: usize, whose: W3cUnit) -> Result<Item, Wrong> {
    let escape = Escape::None;
    if let Some(known) = FIELDS.iter().find(|known| known.name.eq_ignore_ascii_case(name)) {
        return Ok(Item::value(name, at, Shape::Text, escape, known.wants()));
    }
    let pattern = |text| Part::pattern(text).map_err(|message| Wrong::at(at, message));
    let inner = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')'));
    let wants = match name.to_ascii_lowercase().as_str() {
        "date" => vec![Want::Moment(Moment::End, pattern("%Y-%m-%d")?)],
        "time" => vec![Want::Moment(Moment::End, pattern("%H:%M:%S%.f")?)],
        "time-taken" if whose == W3cUnit::Iis => vec![Want::Took(Unit::Ms, same)],
        "time-taken" => vec![Want::Took(Unit::S, same)],
        "cs-uri" => {
            let want = |name: &'static str, with| Want::Column { name: name.into(), rank: 1, with };
            vec![want("path", transform::target_path), want("query", transform::target_query)]
        }
        "x-forwarded-for" => header(name),
        _ => match (inner("cs("), inner("sc(")) {
            (Some(of), _) => header(of),
            (_, Some(of)) => response_header(of),
            _ => vec![column(super::apache::plain(name), 0)],
        },
    };
    let wants = wants.into_iter().map(|want| match want {
        // A space is written as `+`.
        Want::Column { name, rank, .. } if whose == W3cUnit::Iis && name.starts_with("header_") => {
            Want::Column { name, rank, with: transform::plus }
        }
        want => want,
    });
    Ok(Item::value(name, at, Shape::Text, escape, wants.collect()))
}

/// Reads lines whose values are separated by blanks.
#[derive(Debug)]
struct W3c {
    layout: Arc<Layout>,
    /// Whether a value may be in quotes. IIS has none: a quote is one that the client sent.
    has_quotes: bool,
    /// Names in lower case, and which value of the layout each is.
    values: HashMap<String, usize>,
    declared: Order,
    /// What the files have said, by their numbers, of which a source has some hundred at most.
    files: HashMap<usize, Order>,
    now: usize,
}

/// Of the values of a line, which each is.
#[derive(Clone, Debug, Default)]
struct Order {
    /// As `#Fields:` has them.
    names: String,
    values: Vec<Option<usize>>,
}

impl W3c {
    fn syntax(format: &Format) -> Box<dyn Syntax> {
        Box::new(Self::new(format, true))
    }

    fn of_iis(format: &Format) -> Box<dyn Syntax> {
        Box::new(Self::new(format, false))
    }

    fn new(format: &Format, has_quotes: bool) -> Self {
        let layout = format.layout.clone().unwrap_or_else(|| Arc::new(Layout::none()));
        let names: Vec<String> = layout.template.values().map(|value| value.name.to_ascii_lowercase()).collect();
        let declared = Order { names: names.join(" "), values: (0..names.len()).map(Some).collect() };
        let values = names.into_iter().enumerate().map(|(nth, name)| (name, nth)).collect();
        Self { layout, has_quotes, values, declared, files: HashMap::new(), now: 0 }
    }

    fn order(&self, names: &str) -> Option<Order> {
        let values: Vec<Option<usize>> = names
            .split_ascii_whitespace()
            .take(MAX_FIELDS + 1)
            .map(|name| self.values.get(&name.to_ascii_lowercase()).copied())
            .collect();
        let is_short = names.len() <= MAX_DIRECTIVE && (1..=MAX_FIELDS).contains(&values.len());
        is_short.then(|| Order { names: names.trim_ascii().to_owned(), values })
    }

    /// A line that says something of the lines after it.
    fn directive(&mut self, line: &[u8]) -> Fault {
        let text = String::from_utf8_lossy(line);
        let Some(names) = text.strip_prefix("#Fields:") else { return Fault::Directive };
        let order = self.order(names);
        let fault = match order {
            Some(_) => Fault::Directive,
            None => Fault::Syntax(format!("more than {MAX_FIELDS} fields, or none")),
        };
        // Of lines after one that is not understood none is.
        self.files.insert(self.now, order.unwrap_or_default());
        fault
    }
}

impl Syntax for W3c {
    fn expected(&self) -> &'static str {
        self.layout.expected
    }

    fn read<'l>(&mut self, line: &'l [u8], cells: &mut Cells) -> Result<Taken<'l>, Fault> {
        if self.is_directive(line) {
            return Err(self.directive(line));
        }
        let order = self.files.get(&self.now).unwrap_or(&self.declared);
        let mut filler = Filler::new(line, cells);
        let mut words = Words { line, at: 0, has_quotes: self.has_quotes };
        let values: Vec<_> = self.layout.template.values().collect();
        for (nth, value) in order.values.iter().enumerate() {
            let Some(word) = words.next()? else {
                return Err(Fault::Syntax(format!("it has {nth} values, and `#Fields:` {} names", order.values.len())));
            };
            if let Some(value) = value.and_then(|value| values.get(value)) {
                filler.take(value, &word)?;
            }
        }
        if words.next()?.is_some() {
            return Err(Fault::Syntax(format!(
                "it has more values than `#Fields:` names, which are {}",
                order.values.len()
            )));
        }
        filler.finish(self.layout.moments, self.layout.zone)
    }

    fn is_directive(&self, line: &[u8]) -> bool {
        line.first() == Some(&b'#')
    }

    fn turn_to(&mut self, file: usize) {
        self.now = file;
    }

    fn begin(&mut self, file: usize, memory: Option<&str>) {
        self.files.remove(&file);
        if let Some(order) = memory.and_then(|names| self.order(names)) {
            self.files.insert(file, order);
        }
    }

    fn memory(&self, file: usize) -> Option<String> {
        self.files.get(&file).map(|order| order.names.clone())
    }
}

/// The values of a line.
struct Words<'l> {
    line: &'l [u8],
    at: usize,
    has_quotes: bool,
}

impl<'l> Words<'l> {
    /// The next one: up to a blank, or in quotes, in which a quote is written twice.
    fn next(&mut self) -> Result<Option<std::borrow::Cow<'l, [u8]>>, Fault> {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let rest = &self.line[self.at..];
        let start = rest.iter().position(|byte| !is_blank(byte)).unwrap_or(rest.len());
        let rest = &rest[start..];
        self.at += start;
        if rest.is_empty() {
            return Ok(None);
        }
        let end = |from: usize| rest[from..].iter().position(is_blank).map_or(rest.len(), |at| from + at);
        if !self.has_quotes || rest[0] != b'"' {
            let end = end(0);
            self.at += end;
            return Ok(Some(std::borrow::Cow::Borrowed(&rest[..end])));
        }
        let mut text = Vec::new();
        let mut at = 1;
        loop {
            match (rest.get(at), rest.get(at + 1)) {
                (Some(b'"'), Some(b'"')) => {
                    text.push(b'"');
                    at += 2;
                }
                (Some(b'"'), None | Some(b' ' | b'\t')) => break,
                (Some(b'"'), _) => return Err(Fault::Syntax("something follows a quote that ends a value".to_owned())),
                (Some(byte), _) => {
                    text.push(*byte);
                    at += 1;
                }
                (None, _) => return Err(Fault::Syntax("a quote without another".to_owned())),
            }
        }
        self.at += at + 1;
        Ok(Some(std::borrow::Cow::Owned(text)))
    }
}

#[cfg(test)]
#[path = "w3c_tests.rs"]
mod tests;
