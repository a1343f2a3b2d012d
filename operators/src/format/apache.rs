//! `apache`, `common` and `combined`: the access log of Apache, by its `LogFormat`.
//!
//! Source: mod_log_config of httpd 2.4, <https://httpd.apache.org/docs/2.4/mod/mod_log_config.html>; how it escapes is
//! `ap_escape_logitem` in `server/util.c`.

use std::sync::Arc;

use super::options::BuiltIn;
use super::schema::Format;
use super::text::transform::{self, same};
use super::text::{
    Escape, Item, Known, Moment, Part, Shape, Want, Wants, Wrong, Zone, column, header, of, response_header,
};
use super::time::Unit;

const COMMON: &str = "%h %l %u %t \"%r\" %>s %b";
const COMBINED: &str = "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\"";

pub(super) const COMMON_FORMAT: BuiltIn = BuiltIn {
    name: "common",
    summary: "the common log format, of Apache and others; it has no port, so `correlate` joins none of its rows",
    unit: Unit::S,
    format: |_| built_in(COMMON),
};

pub(super) const COMBINED_FORMAT: BuiltIn = BuiltIn {
    name: "combined",
    summary: "the combined log format of Apache and nginx; it has no port, so `correlate` joins none of its rows",
    unit: Unit::S,
    format: |_| built_in(COMBINED),
};

fn built_in(log_format: &str) -> Arc<Format> {
    Format::apache(log_format, Zone::default()).unwrap_or_else(|_| Format::reqin_log(Unit::Ns))
}

/// Directives that are a letter alone, or a letter behind an argument as written here.
pub(super) const DIRECTIVES: [Known; 30] = [
    of("%h", "src_ip", 1, Shape::Word),
    of("%a", "src_ip", 2, Shape::Word),
    of("%{c}a", "src_ip", 3, Shape::Word),
    of("%{remote}p", "src_port", 1, Shape::Number),
    of("%A", "dst_ip", 1, Shape::Word),
    of("%p", "dst_port", 1, Shape::Number),
    of("%{canonical}p", "dst_port", 1, Shape::Number),
    of("%{local}p", "dst_port", 2, Shape::Number),
    of("%m", "method", 2, Shape::Word),
    of("%U", "path", 1, Shape::Text),
    of("%q", "query", 1, Shape::Text).with(transform::marked_query),
    of("%H", "http_version", 2, Shape::Word),
    of("%v", "host", 1, Shape::Word).with(transform::host),
    of("%V", "host", 3, Shape::Word).with(transform::host),
    of("%s", "status_code", 1, Shape::Number),
    of("%>s", "status_code", 2, Shape::Number),
    of("%b", "response_size", 1, Shape::Number).with(transform::size),
    of("%B", "response_size", 2, Shape::Number),
    of("%I", "request_size", 1, Shape::Number),
    of("%O", "bytes_sent", 1, Shape::Number),
    of("%S", "", 1, Shape::Number),
    of("%k", "keepalive_index", 1, Shape::Number).with(transform::one_more),
    of("%X", "connection_status", 1, Shape::Word),
    of("%u", "remote_user", 1, Shape::Text),
    of("%l", "", 1, Shape::Word),
    of("%L", "log_id", 1, Shape::Word),
    of("%P", "", 1, Shape::Word),
    of("%f", "", 1, Shape::Text),
    of("%R", "", 1, Shape::Text),
    of("%{REQUEST_SCHEME}x", "scheme", 1, Shape::Word),
];

/// Variables of mod_ssl that have a column.
pub(super) const SSL: [Known; 4] = [
    of("%{SSL_PROTOCOL}x", "server_tls_version", 1, Shape::Word),
    of("%{SSL_CIPHER}x", "server_tls_cipher", 1, Shape::Word),
    of("%{SSL_TLS_SNI}x", "server_tls_sni", 1, Shape::Word),
    of("%{HTTPS}x", "scheme", 1, Shape::Word).with(transform::scheme_if_on),
];

/// Directives whose columns are not in a table.
pub(super) const OTHERS: &[[&str; 2]] = &[
    ["%t, %{…}t, %{begin:…}t", "`time`, when the request began"],
    ["%{end:…}t", "`time`, when it ended"],
    ["%D, %T, %{ms}T, %{us}T", "`duration_ms`"],
    ["%r", "`method`, `path`, `query`, `http_version`"],
    ["%{Name}i", "`header_name`; of cookies and credentials only whether they came"],
    ["%{Name}o", "`response_header_name`"],
    ["%{ja4_name}e", "`name`, so that a column can be set"],
    ["%{NAME}e, %{NAME}n, %{NAME}x", "`env_name`, `note_name`, `name`"],
];

impl Format {
    /// Requests as Apache logs them with a `LogFormat`; times without a zone are in `zone`.
    ///
    /// # Errors
    /// What is wrong with the string, and where.
    pub fn apache(log_format: &str, zone: Zone) -> Result<Arc<Self>, Wrong> {
        let mut reader = Reader { text: log_format, at: 0, items: Vec::new() };
        while reader.next()? {}
        let mut items = reader.items;
        beside_the_connection(&mut items);
        Wants { expected: "a line of this `LogFormat`", items, is_open: false, zone }.format()
    }
}

/// Where the connection's own address is in the line, `%a` is that of the client whom mod_remoteip believes in.
fn beside_the_connection(items: &mut [Item]) {
    let is = |item: &Item, name: &str| matches!(item, Item::Value { value, .. } if value.name == name);
    if !items.iter().any(|item| is(item, "%{c}a")) {
        return;
    }
    for item in items.iter_mut().filter(|item| is(item, "%a")) {
        if let Item::Value { wants, .. } = item {
            *wants = vec![column("useragent_ip", 1)];
        }
    }
}

/// Reads a `LogFormat`.
struct Reader<'f> {
    text: &'f str,
    at: usize,
    items: Vec<Item>,
}

impl Reader<'_> {
    /// Reads the next piece; false if there is none.
    fn next(&mut self) -> Result<bool, Wrong> {
        let rest = &self.text[self.at..];
        let mut letters = rest.chars();
        let Some(first) = letters.next() else { return Ok(false) };
        self.at += first.len_utf8();
        let text = match (first, letters.next()) {
            ('%', Some('%')) => "%",
            ('%', _) => {
                let item = self.directive()?;
                // A date in the common form has brackets of its own.
                let is_common = matches!(&item, Item::Value { value, .. } if value.shape == Shape::Time
                    && matches!(value.name.as_str(), "%t" | "%{begin}t" | "%{end}t" | "%{begin:}t" | "%{end:}t"));
                let bracket = |text: &str| is_common.then(|| Item::Literal(text.as_bytes().to_vec()));
                self.items.extend(bracket("["));
                self.items.push(item);
                self.items.extend(bracket("]"));
                return Ok(true);
            }
            // As the file of Apache's configuration has it.
            ('\\', Some('t')) => "\t",
            ('\\', Some('n')) => "",
            ('\\', Some('"')) => "\"",
            ('\\', Some('\\')) => "\\",
            _ => {
                self.items.push(Item::Literal(rest.as_bytes()[..first.len_utf8()].to_vec()));
                return Ok(true);
            }
        };
        self.at += 1;
        self.items.push(Item::Literal(text.as_bytes().to_vec()));
        Ok(true)
    }

    /// What stands behind a percent sign.
    fn directive(&mut self) -> Result<Item, Wrong> {
        let start = self.at - 1;
        let wrong = |message: String| Wrong::at(start, message);
        let rest = &self.text[self.at..];
        let modifiers = rest.len()
            - rest.trim_start_matches(|letter: char| "!,<>".contains(letter) || letter.is_ascii_digit()).len();
        let is_final = rest[..modifiers].contains('>');
        let mut rest = &rest[modifiers..];
        let mut argument = None;
        if let Some(inner) = rest.strip_prefix('{') {
            let Some((text, after)) = inner.split_once('}') else {
                return Err(wrong("`%{` without `}`".to_owned()));
            };
            (argument, rest) = (Some(text), after);
        }
        let Some(letter) = rest.chars().next() else {
            return Err(wrong("`%` without a directive behind it".to_owned()));
        };
        let mut behind = &rest[letter.len_utf8()..];
        let mut name = letter.to_string();
        if letter == '^' {
            // Trailers: %^ti and %^to.
            let two: String = behind.chars().take(2).collect();
            behind = &behind[two.len()..];
            name.push_str(&two);
        }
        self.at = self.text.len() - behind.len();
        item(start, &name, argument, is_final).map_err(|message| {
            wrong(
                message
                    .unwrap_or_else(|| format!("`{}` is no directive of mod_log_config", &self.text[start..self.at])),
            )
        })
    }
}

/// What a directive is; why not, or nothing if it is unknown.
fn item(at: usize, letter: &str, argument: Option<&str>, is_final: bool) -> Result<Item, Option<String>> {
    let name = match argument {
        Some(argument) => format!("%{{{argument}}}{letter}"),
        None if is_final && letter == "s" => "%>s".to_owned(),
        None => format!("%{letter}"),
    };
    if let Some(known) = DIRECTIVES.iter().chain(&SSL).find(|known| known.name == name) {
        return Ok(known.item(at, Escape::Backslash));
    }
    let text = |wants| Ok(Item::value(name.as_str(), at, Shape::Text, Escape::Backslash, wants));
    match (letter, argument) {
        ("r", None) => text(request_line()),
        ("t", _) => time(&name, at, argument.unwrap_or_default()).map_err(Some),
        ("D", None) => Ok(took(&name, at, Unit::Us)),
        ("T", None | Some("s")) => Ok(took(&name, at, Unit::S)),
        ("T", Some("ms")) => Ok(took(&name, at, Unit::Ms)),
        ("T", Some("us")) => Ok(took(&name, at, Unit::Us)),
        ("T", Some(unit)) => Err(Some(format!("`{unit}` is no unit of `%T`: s, ms, us"))),
        ("i", Some(argument)) => text(header(argument)),
        ("o", Some(argument)) => text(response_header(argument)),
        ("e", Some(argument)) => match argument.strip_prefix("ja4_") {
            Some(own) => text(vec![column(own.to_owned(), 4)]),
            None => text(vec![column(format!("env_{}", plain(argument)), 1)]),
        },
        ("n", Some(argument)) => text(vec![column(format!("note_{}", plain(argument)), 1)]),
        ("x", Some(argument)) => text(vec![column(plain(argument), 1)]),
        // A cookie's value goes nowhere; who has logged it knows of the others by chance.
        ("C" | "^ti" | "^to" | "c" | "P", Some(_)) => text(Vec::new()),
        ("a" | "h" | "p", Some(argument)) => Err(Some(format!("`{argument}` is no argument of `%{letter}`"))),
        _ => Err(None),
    }
}

/// What a request line is.
pub(super) fn request_line() -> Vec<Want> {
    let want = |name: &'static str, rank, with| Want::Column { name: name.into(), rank, with };
    vec![
        want("method", 1, transform::method),
        want("path", 3, transform::path),
        want("query", 3, transform::query),
        want("http_version", 1, transform::protocol),
    ]
}

fn took(name: &str, at: usize, unit: Unit) -> Item {
    Item::value(name, at, Shape::Number, Escape::Backslash, vec![Want::Took(unit, same)])
}

/// The name of a column from one of a variable.
pub(super) fn plain(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
    name.chars().map(letter).collect()
}

/// `%{argument}t`.
fn time(name: &str, at: usize, argument: &str) -> Result<Item, String> {
    let (moment, pattern) = match argument.split_once(':') {
        Some(("begin", pattern)) => (Moment::Begin, pattern),
        Some(("end", pattern)) => (Moment::End, pattern),
        _ if argument == "end" => (Moment::End, ""),
        _ if argument == "begin" => (Moment::Begin, ""),
        _ => (Moment::Begin, argument),
    };
    let (part, shape) = match pattern {
        "" => (Part::Whole(Unit::S), Shape::Time),
        "sec" => (Part::Whole(Unit::S), Shape::Number),
        "msec" => (Part::Whole(Unit::Ms), Shape::Number),
        "usec" => (Part::Whole(Unit::Us), Shape::Number),
        "msec_frac" => (Part::Fraction(3), Shape::Number),
        "usec_frac" => (Part::Fraction(6), Shape::Number),
        _ => (Part::pattern(pattern)?, Shape::Time),
    };
    let width = part.width();
    let item = Item::value(name, at, shape, Escape::Backslash, vec![Want::Moment(moment, part)]);
    Ok(item.of_width(width))
}

#[cfg(test)]
#[path = "apache_tests.rs"]
mod tests;
