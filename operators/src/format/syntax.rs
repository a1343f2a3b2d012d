//! What a format of lines is: columns, and a syntax that finds their values in a line.
//!
//! A format is one file that gives a [`Format`](super::Format): its columns, and the [`Syntax`] of its lines. For lines of
//! JSON that is [`Json`](super::json), which takes each column's value from under its key. Another syntax implements the
//! trait: it puts the text of each value into the cell with the column's number, and the cell reads it as the column's type.

use std::fmt::Debug;

use super::cell::{Cells, Refused};

/// Reads lines. It may remember what helps with the next line, but what it finds in one depends on that line alone, and on
/// the directives before it in its file where the format has some.
pub trait Syntax: Debug + Send {
    /// What a line is, for messages: "a JSON object".
    fn expected(&self) -> &'static str;

    /// Whether it finds what it reads behind the header of a syslog message or other text by itself.
    fn finds_its_text(&self) -> bool {
        false
    }

    /// Puts the values of a line, without its line end, into cells, which are clear. Cells of values that the line does not
    /// have stay so.
    ///
    /// # Errors
    /// If the line does not have this syntax, or a cell refuses its value.
    fn read<'l>(&mut self, line: &'l [u8], cells: &mut Cells) -> Result<Taken<'l>, Fault>;

    /// Whether a line is no row because it says something of those after it.
    fn is_directive(&self, _line: &[u8]) -> bool {
        false
    }

    /// The lines that come next are of the file with this number among those of the source.
    fn turn_to(&mut self, _file: usize) {}

    /// A file begins, or goes on with what its directives said, which `memory` is.
    fn begin(&mut self, _file: usize, _memory: Option<&str>) {}

    /// What the directives of a file have said.
    fn memory(&self, _file: usize) -> Option<String> {
        None
    }
}

/// A line that was read.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'l> {
    /// The text by whose bytes cells name where their values stand.
    pub(super) text: &'l str,
    /// Whether the line had something that the syntax does not allow, and was taken all the same.
    pub(super) repaired: bool,
}

/// Why a line is no row.
#[derive(Debug)]
pub enum Fault {
    /// It does not have the syntax, in words.
    Syntax(String),
    /// A cell has refused its value; the cells know why.
    Refused,
    /// It is no row and no fault: it says something of the lines after it.
    Directive,
}

impl From<Refused> for Fault {
    fn from(_: Refused) -> Self {
        Self::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Column, Extra, Format, Kind};
    use super::super::{LineParser, Path, Rows, Unit};
    use super::*;

    /// `time|src_ip|path`: a whole format of text.
    #[derive(Debug)]
    struct Bars;

    impl Syntax for Bars {
        fn expected(&self) -> &'static str {
            "three values between bars"
        }
        fn read<'l>(&mut self, line: &'l [u8], cells: &mut Cells) -> Result<Taken<'l>, Fault> {
            let text = std::str::from_utf8(line).map_err(|error| Fault::Syntax(error.to_string()))?;
            let values: Vec<&str> = text.split('|').collect();
            let [time, ip, path] = values[..] else { return Err(Fault::Syntax(format!("it has {}", values.len()))) };
            cells.at(0).text(ip, Some(time.len() + 1))?;
            cells.at(1).text(path, Some(text.len() - path.len()))?;
            cells.at(2).text(time, Some(0))?;
            Ok(Taken { text, repaired: false })
        }
    }

    fn parser() -> LineParser {
        let column = |name: &str, kind: Kind| Column {
            name: name.into(),
            key: Path::key(name),
            kind,
            absent: kind.absent(),
            required: kind == Kind::Ip,
        };
        let columns = vec![column("src_ip", Kind::Ip), column("path", Kind::Text)];
        let format = Format::new(columns, vec![Extra::begin(Path::key("time"), Unit::S)], None);
        let format = Format { syntax: |_| Box::new(Bars), ..format };
        LineParser::new(std::sync::Arc::new(format), 1_795_449_600_000_000_000)
    }

    #[test]
    fn a_format_of_text_needs_its_columns_and_a_syntax() {
        let mut parser = parser();
        let mut rows = Rows::new(&std::sync::Arc::clone(parser.format()));
        for line in ["1795449599.5|::ffff:192.0.2.1|/a", "2026-11-23T15:59:59Z|192.0.2.2|/b c"] {
            rows.push(1, &parser.parse(line.as_bytes()).expect("a row"));
        }
        let rows = rows.take().expect("rows");
        let text = arrow::util::pretty::pretty_format_batches(&[rows]).expect("shown").to_string();
        assert!(text.contains("192.0.2.1") && text.contains("/b c") && text.contains("15:59:59.500"), "{text}");
        for (line, said) in [
            ("x", "not three values between bars: it has 1"),
            ("1795449599|x|/", "`src_ip` should be an IP address, found \"x\""),
            ("1795449599|-|/", "`src_ip` is missing"),
            ("yesterday|192.0.2.1|/", "`time` should be a time"),
        ] {
            let reason = parser.parse(line.as_bytes()).expect_err(line).to_string();
            assert!(reason.starts_with(said), "{line}: {reason}");
        }
    }
}
