//! Regexes of Go in the syntax of the crate `regex`.
//!
//! Both are RE2's language in the main, and match in linear time. They differ in what is easily overlooked: in Go `\d`, `\w`,
//! `\s` and `\b` are ASCII (`\s` without `\v`); `\<` is a character; `\Q…\E` quotes; `\123` is octal; `{` that begins no count
//! stands for itself; within brackets `[`, `&&`, `--` and `~~` have no meaning. The crate reads some of these otherwise
//! without a word, so each pattern is read by Go's grammar (`regexp/syntax`, flags `Perl`) and written anew.

use std::iter::Peekable;
use std::str::Chars;

/// The most that Go counts in `{n,m}`.
const MAX_COUNT: u32 = 1000;

/// A pattern of Go as one of the crate, or why it is none.
///
/// # Errors
/// What Go refuses: one lower-case sentence.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut reader =
        Reader { rest: pattern.chars().peekable(), out: String::with_capacity(pattern.len()), may_repeat: false };
    while let Some(c) = reader.rest.next() {
        reader.part(c)?;
    }
    // What is left to check, such as parentheses that are not closed, the crate checks as Go does.
    match regex::Regex::new(&reader.out) {
        Ok(_) => Ok(reader.out),
        Err(regex::Error::CompiledTooBig(_)) => Err("the regex is too large".to_owned()),
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("not a regex: {why}"))
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// What came last can be repeated: it is there, and is not itself a count.
    may_repeat: bool,
}

impl Reader<'_> {
    fn part(&mut self, c: char) -> Result<(), String> {
        match c {
            '*' | '+' | '?' => return self.repeat(&c.to_string()),
            '{' => match self.count() {
                Some(Ok(count)) => return self.repeat(&count),
                Some(Err(why)) => return Err(why),
                None => literal(c, &mut self.out),
            },
            '(' => return self.open(),
            '|' => {
                self.out.push('|');
                self.may_repeat = false;
                return Ok(());
            }
            ')' | '^' | '$' | '.' => self.out.push(c),
            '[' => self.class()?,
            '\\' => return self.escape(),
            _ => literal(c, &mut self.out),
        }
        self.may_repeat = true;
        Ok(())
    }

    /// `*`, `+`, `?` or a count, and whether as few as possible. Two of them are refused, as in Go: `a**`, `a++`.
    fn repeat(&mut self, how: &str) -> Result<(), String> {
        if !self.may_repeat {
            return Err(format!("not a regex of Go: nothing that `{how}` could repeat"));
        }
        self.out.push_str(how);
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.may_repeat = false;
        Ok(())
    }

    /// What follows a `{` if it is a count: `{2}`, `{2,}`, `{2,3}`.
    fn count(&mut self) -> Option<Result<String, String>> {
        let ahead = self.rest.clone();
        let inside: String = ahead.take_while(|c| *c != '}').take(16).collect();
        let (least, most) = inside.split_once(',').map_or((inside.as_str(), None), |(a, b)| (a, Some(b)));
        let number =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        let is_count = !least.is_empty() && number(least) && most.is_none_or(|most| most.is_empty() || number(most));
        let closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        if !is_count || !closed {
            return None;
        }
        for _ in 0..=inside.chars().count() {
            self.rest.next();
        }
        let value = |text: &str| text.parse::<u32>().ok().filter(|count| *count <= MAX_COUNT);
        let fits = value(least).is_some_and(|least| match most {
            None | Some("") => true,
            Some(most) => value(most).is_some_and(|most| least <= most),
        });
        Some(if fits {
            Ok(format!("{{{inside}}}"))
        } else {
            Err(format!("not a regex of Go: `{{{inside}}}` is no count up to {MAX_COUNT}"))
        })
    }

    /// A group, or flags. What a group takes is not asked for, so that none of them needs to keep it.
    fn open(&mut self) -> Result<(), String> {
        self.may_repeat = false;
        if self.rest.next_if_eq(&'?').is_none() {
            self.out.push_str("(?:");
            return Ok(());
        }
        let named = self.rest.next_if_eq(&'P').is_some();
        if self.rest.next_if_eq(&'<').is_some() {
            let mut name = String::new();
            for c in self.rest.by_ref() {
                match c {
                    '>' if !name.is_empty() => {
                        self.out.push_str("(?:");
                        return Ok(());
                    }
                    c if c.is_alphanumeric() || c == '_' => name.push(c),
                    _ => break,
                }
            }
            return Err(
                "not a regex of Go: a group's name is letters, digits and `_`; there is no look-behind".to_owned()
            );
        }
        self.out.push_str("(?");
        for c in self.rest.by_ref() {
            match c {
                'i' | 'm' | 's' | 'U' | '-' if !named => self.out.push(c),
                ':' | ')' if !named => {
                    self.out.push(c);
                    return Ok(());
                }
                _ => break,
            }
        }
        Err("not a regex of Go: after `(?` stand a name or the flags i, m, s, U; there is no look-around".to_owned())
    }

    /// What follows a backslash outside of brackets.
    fn escape(&mut self) -> Result<(), String> {
        self.may_repeat = true;
        match self.rest.peek().copied() {
            Some(c @ ('A' | 'z')) => self.out.extend(['\\', c]),
            Some('b') => self.out.push_str("(?-u:\\b)"),
            Some('B') => self.out.push_str("(?-u:\\B)"),
            Some('Q') => {
                self.rest.next();
                self.quoted();
                return Ok(());
            }
            _ => {
                if !self.named_class(true)? {
                    let c = self.character()?;
                    literal(c, &mut self.out);
                }
                return Ok(());
            }
        }
        self.rest.next();
        Ok(())
    }

    /// Everything up to `\E` or the end stands for itself.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            literal(c, &mut self.out);
        }
    }

    /// `\d`, `\pL` and the like, of which the backslash is read. Tells whether there was one.
    fn named_class(&mut self, alone: bool) -> Result<bool, String> {
        let Some(c) = self.rest.next_if(|c| "dDsSwWpP".contains(*c)) else { return Ok(false) };
        let inside = match c.to_ascii_lowercase() {
            'd' => "0-9",
            's' => "\\t\\n\\x0C\\r ",
            'w' => "0-9A-Za-z_",
            _ => {
                self.unicode(c == 'P')?;
                return Ok(true);
            }
        };
        match (c.is_ascii_uppercase(), alone) {
            (false, false) => self.out.push_str(inside),
            (is_not, _) => self.out.extend(["[", if is_not { "^" } else { "" }, inside, "]"]),
        }
        Ok(true)
    }

    /// `L`, `{Greek}` or `{^Greek}` of `\p`.
    fn unicode(&mut self, mut is_not: bool) -> Result<(), String> {
        let fault = || "not a regex of Go: `\\p` without a class such as `\\p{Greek}`".to_owned();
        let first = self.rest.next().ok_or_else(fault)?;
        let mut name = String::new();
        if first == '{' {
            if self.rest.next_if_eq(&'^').is_some() {
                is_not = !is_not;
            }
            loop {
                match self.rest.next().ok_or_else(fault)? {
                    '}' => break,
                    c if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
                    _ => return Err(fault()),
                }
            }
        } else {
            name.push(first);
        }
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(fault());
        }
        self.out.extend([if is_not { "\\P{" } else { "\\p{" }, &name, "}"]);
        Ok(())
    }

    /// The character that an escape means, of which the backslash is read.
    fn character(&mut self) -> Result<char, String> {
        let Some(c) = self.rest.next() else { return Err("not a regex of Go: a backslash at the end".to_owned()) };
        let fault = || format!("not a regex of Go: there is no escape `\\{c}`");
        Ok(match c {
            'a' => '\x07',
            'f' => '\x0C',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0B',
            'x' => self.hexadecimal().ok_or_else(fault)?,
            '0'..='7' => {
                let mut value = c.to_digit(8).unwrap_or_default();
                let mut digits = 1;
                while let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(8)).filter(|_| digits < 3) {
                    value = value * 8 + digit;
                    digits += 1;
                    self.rest.next();
                }
                if digits == 1 && c != '0' {
                    return Err(format!("not a regex of Go: there is no back-reference `\\{c}`"));
                }
                char::from_u32(value).ok_or_else(fault)?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return Err(fault()),
        })
    }

    /// Two digits, or up to eight in braces.
    fn hexadecimal(&mut self) -> Option<char> {
        let mut digits = String::new();
        if self.rest.next_if_eq(&'{').is_some() {
            loop {
                match self.rest.next()? {
                    '}' => break,
                    c if c.is_ascii_hexdigit() && digits.len() < 8 => digits.push(c),
                    _ => return None,
                }
            }
        } else {
            digits.extend([self.rest.next()?, self.rest.next()?]);
        }
        // `from_str_radix` would take a sign.
        if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
    }

    /// What follows a `[`.
    fn class(&mut self) -> Result<(), String> {
        let fault = || "not a regex of Go: a `[` is not closed".to_owned();
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let c = self.rest.next().ok_or_else(fault)?;
            match c {
                ']' if !first => break,
                '[' if self.rest.peek() == Some(&':') && self.posix()? => {}
                '\\' if self.named_class(false)? => {}
                _ => self.range(c)?,
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// `[:alpha:]`, of which the `[` is read. Tells whether there was one.
    fn posix(&mut self) -> Result<bool, String> {
        let inside: String = self.rest.clone().skip(1).take_while(|c| c.is_ascii_lowercase() || *c == '^').collect();
        let length = 1 + inside.len();
        if !self.rest.clone().skip(length).take(2).eq([':', ']']) {
            return Ok(false);
        }
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit",
        ];
        if !NAMES.contains(&inside.strip_prefix('^').unwrap_or(&inside)) {
            return Err(format!("not a regex of Go: there is no class `[:{inside}:]`"));
        }
        self.out.extend(["[:", &inside, ":]"]);
        for _ in 0..length + 2 {
            self.rest.next();
        }
        Ok(true)
    }

    /// A character within brackets, or two with a `-` between.
    fn range(&mut self, c: char) -> Result<(), String> {
        let low = if c == '\\' { self.character()? } else { c };
        literal(low, &mut self.out);
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || ahead.next().is_none_or(|next| next == ']') {
            return Ok(());
        }
        self.rest.next();
        let high = match self.rest.next() {
            Some('\\') => self.character()?,
            Some(c) => c,
            None => return Err("not a regex of Go: a `[` is not closed".to_owned()),
        };
        if high < low {
            return Err(format!("not a regex of Go: the range `{low}-{high}` is empty"));
        }
        self.out.push('-');
        literal(high, &mut self.out);
        Ok(())
    }
}

/// A character that stands for itself, within brackets and outside.
fn literal(c: char, out: &mut String) {
    if "\\.+*?()|[]{}^$#&-~".contains(c) {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests;
