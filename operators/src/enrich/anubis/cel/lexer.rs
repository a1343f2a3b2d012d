//! The words of an expression.

use super::Fault;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword.
    Word(String),
    /// A text, with its escapes resolved.
    Text(String),
    /// Bytes, `b"…"`, which no variable of Anubis is.
    Bytes,
    /// A whole number without a sign.
    Int(u64),
    /// A whole number with `u` behind it.
    Uint,
    /// A number with a fraction or an exponent.
    Double(f64),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// Operators and brackets; a longer one stands before those that it begins with.
const SIGNS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "?", ":", "<", ">", "!", "-", "+", "*", "/", "%", "(", ")", "[", "]", "{", "}",
    ".", ",", "=", "&",
];

/// A word and where it begins, in bytes.
pub(super) type Placed = (Token, usize);

/// The words of a text.
///
/// # Errors
/// What is no word.
pub(super) fn words(text: &str) -> Result<Vec<Placed>, Fault> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        at += blank(&text[at..]);
        let Some(c) = text[at..].chars().next() else { return Ok(words) };
        let rest = &text[at..];
        let (token, length) = if let Some(found) = text_literal(rest)? {
            found
        } else if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest)?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            return Err(Fault::new(format!("`{}` means nothing here", c.escape_default()), c.to_string()));
        };
        words.push((token, at));
        at += length;
    }
}

/// How much white space and how many comments a text begins with.
fn blank(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0C']);
        if !rest.starts_with("//") {
            return text.len() - rest.len();
        }
        rest = rest.find('\n').map_or("", |end| &rest[end..]);
    }
}

/// A number and its length.
fn number(text: &str) -> Result<(Token, usize), Fault> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let fault = |length: usize| Fault::new(format!("`{}` is no number of 64 bits", &text[..length]), &text[..length]);
    let (mut length, value) = if let Some(hexadecimal) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let length = hexadecimal.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hexadecimal.len());
        (length + 2, u64::from_str_radix(&hexadecimal[..length], 16).ok())
    } else {
        let mut length = digits(text);
        let whole = length;
        if text[length..].starts_with('.') && digits(&text[length + 1..]) > 0 {
            length += 1 + digits(&text[length + 1..]);
        }
        let exponent =
            text[length..].strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
        if let Some(rest) = exponent.filter(|rest| digits(rest) > 0) {
            length = text.len() - rest.len() + digits(rest);
        }
        if length > whole {
            let value = text[..length].parse::<f64>().ok().filter(|value| value.is_finite());
            return value.map(|value| (Token::Double(value), length)).ok_or_else(|| fault(length));
        }
        (length, text[..length].parse().ok())
    };
    let token = Token::Int(value.ok_or_else(|| fault(length))?);
    if text[length..].starts_with(['u', 'U']) {
        length += 1;
        return Ok((Token::Uint, length));
    }
    Ok((token, length))
}

/// A text literal and its length: `"…"`, `'…'`, `"""…"""`, `'''…'''`, and each with `r`, `b` or both before it.
fn text_literal(text: &str) -> Result<Option<(Token, usize)>, Fault> {
    let prefix = text.find(|c: char| !"rRbB".contains(c)).unwrap_or(text.len());
    let (flags, quoted) = text.split_at(prefix.min(2));
    let Some(quote) = quoted.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return Ok(None) };
    let flags = flags.to_ascii_lowercase();
    if flags == "rr" || flags == "bb" {
        return Ok(None);
    }
    let triple: String = [quote; 3].iter().collect();
    let delimiter = if quoted.starts_with(&triple) { triple.as_str() } else { &triple[..1] };
    let inside = &quoted[delimiter.len()..];
    let not_closed = || Fault::new("a text is not closed", quoted.chars().take(20).collect::<String>());
    let (is_raw, mut value, mut at) = (flags.contains('r'), String::new(), 0);
    loop {
        let rest = &inside[at..];
        if rest.starts_with(delimiter) {
            break;
        }
        let c = rest.chars().next().ok_or_else(not_closed)?;
        if delimiter.len() == 1 && matches!(c, '\n' | '\r') {
            return Err(not_closed());
        }
        if c == '\\' && !is_raw {
            let (c, length) = escape(&rest[1..])?;
            value.push(c);
            at += 1 + length;
        } else {
            value.push(c);
            at += c.len_utf8();
        }
    }
    let token = if flags.contains('b') { Token::Bytes } else { Token::Text(value) };
    Ok(Some((token, flags.len() + at + 2 * delimiter.len())))
}

/// The character that an escape means, of which the backslash is read, and the length of the rest.
fn escape(rest: &str) -> Result<(char, usize), Fault> {
    let c = rest.chars().next().unwrap_or(' ');
    let fault = || {
        let part: String = std::iter::once('\\').chain(rest.chars().take(1)).collect();
        Fault::new(format!("there is no escape `{}` in a text", part.escape_debug()), part)
    };
    let numeric = |from: usize, length: usize, radix: u32| {
        let digits = rest.get(from..from + length).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        value.and_then(char::from_u32).map(|c| (c, from + length)).ok_or_else(fault)
    };
    let simple = match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0C',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0B',
        '\\' | '?' | '"' | '\'' | '`' => c,
        'x' | 'X' => return numeric(1, 2, 16),
        'u' => return numeric(1, 4, 16),
        'U' => return numeric(1, 8, 16),
        '0'..='3' => return numeric(0, 3, 8),
        _ => return Err(fault()),
    };
    Ok((simple, 1))
}
