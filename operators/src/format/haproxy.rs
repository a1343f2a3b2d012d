//! `haproxy`, `haproxy_http` and `haproxy_https`: HAProxy's log, by its `log-format`.
//!
//! Source: HAProxy's configuration manual, section 8 "Logging", <https://docs.haproxy.org/2.6/configuration.html#8>; how it
//! escapes is `init_log` in `src/log.c`.

use std::sync::Arc;

use super::apache::{plain, request_line};
use super::options::BuiltIn;
use super::schema::Format;
use super::text::transform::{self, same};
use super::text::{
    Escape, Item, Known, Moment, Part, Shape, Want, Wants, Wrong, Zone, column, header, of, response_header,
};
use super::time::Unit;

/// `option httplog`.
pub(super) const HTTP: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq \
                               %hr %hs %{+Q}r";
/// `option httpslog`.
pub(super) const HTTPS: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq \
                                %hr %hs %{+Q}r \
                                %[fc_err]/%[ssl_fc_err,hex]/%[ssl_c_err]/%[ssl_c_ca_err]/%[ssl_fc_is_resumed] \
                                %[ssl_fc_sni]/%sslv/%sslc";

pub(super) const HTTP_FORMAT: BuiltIn = BuiltIn {
    name: "haproxy_http",
    summary: "HAProxy's `option httplog`; times are in `zone`, captured headers are named by `captures`",
    unit: Unit::S,
    format: |_| built_in(HTTP),
};

pub(super) const HTTPS_FORMAT: BuiltIn = BuiltIn {
    name: "haproxy_https",
    summary: "HAProxy's `option httpslog`; times are in `zone`, captured headers are named by `captures`",
    unit: Unit::S,
    format: |_| built_in(HTTPS),
};

fn built_in(log_format: &str) -> Arc<Format> {
    let format = Format::haproxy(log_format, &Captures::default(), Zone::default());
    format.unwrap_or_else(|_| Format::reqin_log(Unit::Ns))
}

/// The headers that HAProxy captures, in the order of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Captures {
    /// Of requests: `capture request header`.
    pub request: Vec<String>,
    /// Of responses: `capture response header`.
    pub response: Vec<String>,
}

/// Variables with a column. Those that count, and whose column is empty, are passed over.
pub(super) const VARIABLES: [Known; 55] = [
    of("%ci", "src_ip", 1, Shape::Address),
    of("%cp", "src_port", 1, Shape::Number),
    of("%fi", "dst_ip", 1, Shape::Address),
    of("%fp", "dst_port", 1, Shape::Number),
    of("%HM", "method", 2, Shape::Word),
    of("%HP", "path", 2, Shape::Text),
    of("%HPO", "path", 1, Shape::Text),
    of("%HQ", "query", 2, Shape::Text).with(transform::marked_query),
    of("%HV", "http_version", 2, Shape::Word),
    of("%ST", "status_code", 1, Shape::Number).with(transform::not_negative),
    of("%B", "response_size", 1, Shape::Number).with(transform::size),
    of("%U", "request_size", 1, Shape::Number).with(transform::size),
    of("%f", "frontend", 1, Shape::Word),
    of("%b", "backend", 1, Shape::Word),
    of("%s", "server", 1, Shape::Word),
    of("%tsc", "termination_state", 1, Shape::Word),
    of("%ts", "termination_state", 0, Shape::Word),
    of("%rt", "connection_number", 0, Shape::Number),
    of("%sslv", "server_tls_version", 1, Shape::Word),
    of("%sslc", "server_tls_cipher", 1, Shape::Word),
    of("%[ssl_fc_protocol]", "server_tls_version", 2, Shape::Word),
    of("%[ssl_fc_cipher]", "server_tls_cipher", 2, Shape::Word),
    of("%[ssl_fc_sni]", "server_tls_sni", 1, Shape::Word),
    of("%[ssl_fc]", "scheme", 2, Shape::Number).with(scheme_if_one),
    of("%[src]", "src_ip", 0, Shape::Address),
    of("%[src_port]", "src_port", 0, Shape::Number),
    of("%[dst]", "dst_ip", 0, Shape::Address),
    of("%[dst_port]", "dst_port", 0, Shape::Number),
    of("%[capture.req.method]", "method", 1, Shape::Word),
    of("%[capture.req.ver]", "http_version", 1, Shape::Word),
    of("%ID", "unique_id", 1, Shape::Text),
    of("%TR", "", 1, Shape::Number),
    of("%Tw", "", 1, Shape::Number),
    of("%Tc", "", 1, Shape::Number),
    of("%Tr", "", 1, Shape::Number),
    of("%Td", "", 1, Shape::Number),
    of("%Tq", "", 1, Shape::Number),
    of("%ac", "", 1, Shape::Number),
    of("%fc", "", 1, Shape::Number),
    of("%bc", "", 1, Shape::Number),
    of("%sc", "", 1, Shape::Number),
    of("%rc", "", 1, Shape::Number),
    of("%sq", "", 1, Shape::Number),
    of("%bq", "", 1, Shape::Number),
    of("%lc", "", 1, Shape::Number),
    of("%pid", "", 1, Shape::Number),
    of("%bi", "", 1, Shape::Address),
    of("%bp", "", 1, Shape::Number),
    of("%si", "", 1, Shape::Address),
    of("%sp", "", 1, Shape::Number),
    of("%H", "", 1, Shape::Word),
    of("%CC", "", 1, Shape::Text),
    of("%CS", "", 1, Shape::Text),
    of("%o", "", 1, Shape::Word),
    of("%Tu", "", 1, Shape::Number),
];

/// Variables whose columns are not in a table.
pub(super) const OTHERS: &[[&str; 2]] = &[
    ["%tr, %trg, %trl", "`time`, when the request began; `%tr` is in `zone`"],
    [
        "%t, %T, %Tl, %Ts, %ms",
        "the same from when the connection was accepted, with `%Th` and `%Ti` added if they are there",
    ],
    ["%Ta, %Tt", "`duration_ms`: `%Ta` from when the request began, `%Tt` from when the connection was accepted"],
    ["%r", "`method`, `path`, `query`, `http_version`"],
    ["%HU", "`path`, `query`"],
    ["%ft", "`frontend`, and `scheme` by the `~` behind its name"],
    [
        "%hr, %hs",
        "`header_name`, `response_header_name` by `captures`; of cookies and credentials only whether they came",
    ],
    ["%[capture.req.hdr(N)], %[capture.res.hdr(N)]", "the same"],
    ["%[var(txn.name)]", "`name`, so that a column can be set"],
    ["%[expression]", "`expression`, with `_` for all but letters and digits"],
];

fn scheme_if_one(text: &str) -> Option<std::borrow::Cow<'_, str>> {
    Some(std::borrow::Cow::Borrowed(if text == "1" { "https" } else { "http" }))
}

impl Format {
    /// Requests as HAProxy logs them with a `log-format`; times without a zone are in `zone`.
    ///
    /// # Errors
    /// What is wrong with the string, and where.
    pub fn haproxy(log_format: &str, captures: &Captures, zone: Zone) -> Result<Arc<Self>, Wrong> {
        // Times from the connection's accept count where there is none of the request itself.
        let has = |names: &[&str]| names.iter().any(|name| words(log_format).any(|word| word == *name));
        let accepted = !has(&["tr", "trg", "trl"]) || has(&["ms"]);
        let mut reader =
            Reader { text: log_format, at: 0, items: Vec::new(), captures, flags: Flags::default(), accepted };
        while reader.next()? {}
        let items = reader.items;
        Wants { expected: "a line of this `log-format`", items, is_open: false, zone }.format()
    }
}

/// The names behind percent signs.
fn words(log_format: &str) -> impl Iterator<Item = &str> {
    log_format.split('%').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(rest, |(_, rest)| rest);
        &rest[..rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()).len()]
    })
}

/// What `%{+Q,+E}` switches on.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    quotes: bool,
    escapes: bool,
}

/// Reads a `log-format`.
struct Reader<'f> {
    text: &'f str,
    at: usize,
    items: Vec<Item>,
    captures: &'f Captures,
    /// Those of `%{…}o` hold for all that follows.
    flags: Flags,
    accepted: bool,
}

impl Reader<'_> {
    /// Reads the next piece; false if there is none.
    fn next(&mut self) -> Result<bool, Wrong> {
        let rest = &self.text[self.at..];
        let mut letters = rest.chars();
        let Some(first) = letters.next() else { return Ok(false) };
        match (first, letters.next()) {
            ('%', Some('%')) => {
                self.at += 2;
                self.literal(b"%");
            }
            ('%', _) => self.variable()?,
            ('\\', Some(escaped)) => {
                self.at += 1 + escaped.len_utf8();
                self.literal(escaped.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => {
                self.at += first.len_utf8();
                self.literal(&rest.as_bytes()[..first.len_utf8()]);
            }
        }
        Ok(true)
    }

    /// Spaces that stand side by side are one in a line.
    fn literal(&mut self, text: &[u8]) {
        let is_again =
            text == b" " && matches!(self.items.last(), Some(Item::Literal(before)) if before.ends_with(b" "));
        if !is_again {
            self.items.push(Item::Literal(text.to_vec()));
        }
    }

    /// What stands behind a percent sign.
    fn variable(&mut self) -> Result<(), Wrong> {
        let start = self.at;
        let mut rest = &self.text[start + 1..];
        let mut flags = self.flags;
        if let Some(inner) = rest.strip_prefix('{') {
            let (words, after) = inner.split_once('}').ok_or_else(|| Wrong::at(start, "`%{` without `}`"))?;
            for word in words.split(',').map(str::trim) {
                match word {
                    "+Q" => flags.quotes = true,
                    "-Q" => flags.quotes = false,
                    "+E" => flags.escapes = true,
                    "-E" => flags.escapes = false,
                    "+M" | "-M" | "-X" | "" => {}
                    _ => {
                        return Err(Wrong::at(
                            start,
                            format!("`{word}` is not understood here: +Q, -Q, +E, -E, +M, -M"),
                        ));
                    }
                }
            }
            rest = after;
        }
        if let Some(named) = rest.strip_prefix('(') {
            // A name of the item, from HAProxy 3.0 on.
            rest = named.split_once(')').map_or(rest, |(_, after)| after);
        }
        let (name, after) = match rest.strip_prefix('[') {
            Some(inner) => {
                let length = closing(inner).ok_or_else(|| Wrong::at(start, "`%[` without `]`"))?;
                rest.split_at(length + 2)
            }
            None => {
                let is_letter = |letter: char| letter.is_ascii_alphanumeric();
                rest.split_at(rest.len() - rest.trim_start_matches(is_letter).len())
            }
        };
        self.at = self.text.len() - after.len();
        if name == "o" {
            self.flags = flags;
            return Ok(());
        }
        let unknown = || Wrong::at(start, format!("`{}` is no variable of HAProxy's log", &self.text[start..self.at]));
        let items = self.items_of(name, start, flags).ok_or_else(unknown)?;
        self.items.extend(items);
        Ok(())
    }

    /// The pieces that a variable becomes; `None` if there is no such variable.
    fn items_of(&self, name: &str, at: usize, flags: Flags) -> Option<Vec<Item>> {
        let full = format!("%{name}");
        match name {
            "hr" => return Some(captured(&self.captures.request, at, header)),
            "hs" => return Some(captured(&self.captures.response, at, response_header)),
            _ => {}
        }
        let is_expression = name.starts_with('[');
        let escape = match name {
            "r" | "HU" | "HP" | "HPO" | "HQ" | "HM" | "HV" | "CC" | "CS" => Escape::Hash,
            _ if flags.escapes => Escape::Quoted,
            _ => Escape::None,
        };
        if let Some(item) = self.time(name, at) {
            return Some(vec![item]);
        }
        let known = VARIABLES.iter().find(|known| known.name == full);
        let item = match (known, name) {
            (Some(known), _) => known.item(at, escape),
            (None, "ft") => {
                let want = |name: &'static str, with| Want::Column { name: name.into(), rank: 2, with };
                let wants = vec![want("frontend", transform::frontend), want("scheme", transform::frontend_scheme)];
                Item::value(full, at, Shape::Word, escape, wants)
            }
            (None, "r") => Item::value(full, at, Shape::Text, escape, request_line()),
            (None, "HU") => Item::value(full, at, Shape::Text, escape, target()),
            (None, _) if is_expression => Item::value(full, at, Shape::Text, escape, self.expression(name)),
            _ => return None,
        };
        // Numbers have no quotes, whatever the flags say.
        let has_quotes = flags.quotes
            && !matches!(&item, Item::Value { value, .. } if value.shape == Shape::Number && !is_expression);
        Some(if has_quotes { vec![quote(), item, quote()] } else { vec![item] })
    }

    /// What a variable is that is a part of a time.
    fn time(&self, name: &str, at: usize) -> Option<Item> {
        const LOCAL: &str = "%d/%b/%Y:%H:%M:%S%.3f";
        /// Of `06/Feb/2009:12:14:14.655`, and of `06/Feb/2009:12:14:14 +0000`.
        const LOCAL_BYTES: usize = 24;
        const ZONED_BYTES: usize = 26;
        let moment = |part: Option<Part>, is_it: bool| -> Vec<Want> {
            part.filter(|_| is_it).map(|part| Want::Moment(Moment::Begin, part)).into_iter().collect()
        };
        let accepted = self.accepted;
        let (shape, width, wants) = match name {
            "tr" => (Shape::Time, Some(LOCAL_BYTES), moment(Part::pattern(LOCAL).ok(), !accepted)),
            "t" => (Shape::Time, Some(LOCAL_BYTES), moment(Part::pattern(LOCAL).ok(), accepted)),
            "trg" | "trl" => (Shape::Time, Some(ZONED_BYTES), moment(Some(Part::Whole(Unit::S)), !accepted)),
            "T" | "Tl" => (Shape::Time, Some(ZONED_BYTES), moment(Some(Part::Whole(Unit::S)), accepted)),
            "Ts" => (Shape::Number, None, moment(Some(Part::Whole(Unit::S)), accepted)),
            "ms" => (Shape::Number, Some(3), moment(Some(Part::Fraction(3)), accepted)),
            "Th" | "Ti" => (Shape::Number, None, moment(Some(Part::Later(Unit::Ms)), accepted)),
            "Ta" => (Shape::Number, None, vec![Want::Took(Unit::Ms, transform::not_negative)]),
            // From the accept on: longer than the request itself took.
            "Tt" if !words(self.text).any(|word| word == "Ta") => {
                (Shape::Number, None, vec![Want::Took(Unit::Ms, transform::not_negative)])
            }
            "Tt" => (Shape::Number, None, Vec::new()),
            _ => return None,
        };
        let item = Item::value(format!("%{name}"), at, shape, Escape::None, wants);
        Some(item.of_width(width))
    }

    /// What an expression becomes.
    fn expression(&self, name: &str) -> Vec<Want> {
        let inner = name.trim_start_matches('[').trim_end_matches(']');
        let argument =
            |function: &str| inner.strip_prefix(function)?.strip_prefix('(')?.split_once(')').map(|(text, _)| text);
        let nth = |text: &str, names: &[String]| names.get(text.trim().parse::<usize>().ok()?).cloned();
        if let Some(text) = argument("capture.req.hdr") {
            return nth(text, &self.captures.request).map(|name| header(&name)).unwrap_or_default();
        }
        if let Some(text) = argument("capture.res.hdr") {
            return nth(text, &self.captures.response).map(|name| response_header(&name)).unwrap_or_default();
        }
        if inner == "capture.req.uri" {
            return target();
        }
        match argument("var") {
            Some(variable) => {
                let own = plain(variable.split_once('.').map_or(variable, |(_, name)| name));
                // Those that are named after a header are what a header is.
                own.strip_prefix("header_").map_or_else(|| vec![set(&own)], header)
            }
            None => vec![column(plain(inner).trim_matches('_').to_owned(), 0)],
        }
    }
}

/// A column that the configuration sets.
fn set(name: &str) -> Want {
    let with = if name == "host" { transform::host } else { same };
    Want::Column { name: name.to_owned().into(), rank: 4, with }
}

fn target() -> Vec<Want> {
    let want = |name: &'static str, with| Want::Column { name: name.into(), rank: 2, with };
    vec![want("path", transform::target_path), want("query", transform::target_query)]
}

fn quote() -> Item {
    Item::Literal(b"\"".to_vec())
}

/// `{one|two}`, which is not there if nothing is captured.
fn captured(names: &[String], at: usize, wants: fn(&str) -> Vec<Want>) -> Vec<Item> {
    let mut items = Vec::new();
    for (nth, name) in names.iter().enumerate() {
        items.push(Item::Literal(if nth == 0 { b"{".to_vec() } else { b"|".to_vec() }));
        items.push(Item::value(format!("{{{name}}}"), at, Shape::Text, Escape::HashHeader, wants(name)));
    }
    if !names.is_empty() {
        items.push(Item::Literal(b"}".to_vec()));
    }
    items
}

/// Where an expression ends, brackets in its arguments aside.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ']' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[path = "haproxy_tests.rs"]
mod tests;
