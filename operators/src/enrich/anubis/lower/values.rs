//! Pieces of SQL, by what they are in CEL.

use super::MAX_INT;

/// A value in SQL. Each text stands for itself: in parentheses if it is more than a name, a literal or a call.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// True or false.
    Bool(String),
    /// A text, and which if it is constant.
    Text(String, Option<String>),
    /// A whole number, as `bigint`.
    Int(String),
    /// A number with a fraction.
    Double(String),
    /// A list whose items are written out.
    List(Vec<Value>),
    /// The parts of a path.
    Segments(String),
    /// The headers of the request.
    Headers,
    /// The query of the request, of this text.
    Query(String),
}

impl Value {
    /// A text that is known.
    pub fn constant(text: String) -> Self {
        Self::Text(quoted(&text, '\''), Some(text))
    }

    /// A whole number that is known.
    pub fn int(value: i64) -> Result<Self, String> {
        match value.unsigned_abs() <= MAX_INT.unsigned_abs() {
            true => Ok(Self::Int(value.to_string())),
            false => Err(format!("the number {value} is too large here")),
        }
    }

    /// How many bytes of SQL it is.
    pub fn len(&self) -> usize {
        match self {
            Self::Bool(sql) | Self::Text(sql, _) | Self::Int(sql) | Self::Double(sql) => sql.len(),
            Self::Segments(sql) | Self::Query(sql) => sql.len(),
            Self::List(items) => items.iter().map(Self::len).sum(),
            Self::Headers => 0,
        }
    }

    /// The SQL and the kind of what is no list and no mapping.
    pub fn scalar(&self) -> Option<(&str, &'static str)> {
        match self {
            Self::Bool(sql) | Self::Text(sql, _) | Self::Int(sql) | Self::Double(sql) => Some((sql, self.kind())),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Text(..) => "text",
            Self::Int(_) => "a whole number",
            Self::Double(_) => "a number with a fraction",
            Self::List(_) | Self::Segments(_) => "a list",
            Self::Headers | Self::Query(_) => "a mapping",
        }
    }
}

/// A text between quotes, or a name between double quotes.
pub(super) fn quoted(text: &str, quote: char) -> String {
    let doubled: String = text.chars().flat_map(|c| std::iter::repeat_n(c, if c == quote { 2 } else { 1 })).collect();
    format!("{quote}{doubled}{quote}")
}

/// Conditions with a word between them, in parentheses. Many are halved, so that what evaluates them, one inside the other,
/// is not as deep as they are many.
pub(super) fn joined(parts: &[String], word: &str) -> String {
    if parts.len() <= 8 {
        return format!("({})", parts.join(word));
    }
    let (left, right) = parts.split_at(parts.len() / 2);
    format!("({}{word}{})", joined(left, word), joined(right, word))
}
