//! What the pattern of a list looks for, as text.

/// A pattern, read as far as it is text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The text.
    pub text: String,
    /// Whether the pattern is this text and nothing else, so that it need not be compiled.
    pub is_text: bool,
}

impl Reading {
    /// Reads a pattern: escapes are resolved, anchors passed over; of alternatives and of classes the first counts. What
    /// follows something that repeats, or is no text at all, is left out.
    pub fn new(pattern: &str) -> Self {
        let mut reading = Self { text: String::new(), is_text: true };
        let is_whole = reading.read(pattern).is_some();
        reading.is_text &= is_whole;
        reading
    }

    /// The name of what a pattern looks for: its text between the first and the last letter or digit.
    pub fn name<'a>(&'a self, pattern: &'a str) -> &'a str {
        let name = self.text.trim_matches(|c: char| !c.is_alphanumeric());
        if name.is_empty() { pattern } else { name }
    }

    /// `None` where the text ends before the pattern does.
    fn read(&mut self, pattern: &str) -> Option<()> {
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => self.text.push(escaped(&mut chars)?),
                '^' | '$' => self.is_text = false,
                '[' => {
                    self.is_text = false;
                    self.text.push(class(&mut chars)?);
                }
                '(' => {
                    self.is_text = false;
                    self.text.push_str(&group(&mut chars)?);
                }
                '*' | '?' | '{' => {
                    self.text.pop();
                    return None;
                }
                '.' | '+' | '|' | ')' => return None,
                c => self.text.push(c),
            }
        }
        Some(())
    }
}

/// The character behind a backslash, unless it stands for others or for a place. `\<` and `\>` are places.
fn escaped(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    chars.next().filter(|c| c.is_ascii_punctuation() && !matches!(c, '<' | '>'))
}

/// The first character of a class whose `[` was read, up to its `]`; of a class that is more than some letters there is none.
fn class(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next().filter(|c| c.is_alphanumeric())?;
    chars.find(|c| matches!(c, ']' | '\\' | '[' | '-' | '&')).filter(|c| *c == ']').map(|_| first)
}

/// The first alternative of a group whose `(` was read, up to its `)`.
fn group(chars: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut text = String::new();
    let mut is_first = true;
    loop {
        match chars.next()? {
            ')' => return Some(text),
            '|' => is_first = false,
            '^' | '$' => {}
            '\\' => {
                let c = escaped(chars)?;
                text.extend(is_first.then_some(c));
            }
            '(' | '[' | '.' | '*' | '+' | '?' | '{' => return None,
            c => text.extend(is_first.then_some(c)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_published_patterns() {
        let names = [
            ("Googlebot\\/", "Googlebot", true),
            ("AdsBot-Google([^-]|$)", "AdsBot-Google", false),
            ("[wW]get", "wget", false),
            ("(sistrix|SISTRIX) [cC]rawler", "sistrix crawler", false),
            ("Ahrefs(Bot|SiteAudit)", "AhrefsBot", false),
            ("S[eE][mM]rushBot", "SemrushBot", false),
            ("(^| )sentry\\/", "sentry", false),
            ("BlogTraffic\\/\\d\\.\\d+ Feed-Fetcher", "BlogTraffic", false),
            ("developers\\.google\\.com\\/\\+\\/web\\/snippet", "developers.google.com/+/web/snippet", true),
            ("Automaton|Newsify Feed Fetcher", "Automaton", false),
            ("Spider[\\s\\S]*spider\\.com", "Spider", false),
            ("^Apache-HttpClient", "Apache-HttpClient", false),
            (";Owler", "Owler", true),
            ("SSL Labs$", "SSL Labs", false),
        ];
        for (pattern, name, is_text) in names {
            let reading = Reading::new(pattern);
            assert_eq!((reading.name(pattern), reading.is_text), (name, is_text), "{pattern}");
        }
    }

    #[test]
    fn whatever_a_pattern_is_it_has_a_name() {
        let patterns = [
            "", "(", "((((", "[", "[]", "[^a]", "[a-z]", "\\", "\\<a", "a\\", "(?i)x", ".*", "é+", "(a|", "[a", "a{2}",
            ")",
        ];
        for pattern in patterns {
            let reading = Reading::new(pattern);
            assert!(pattern.is_empty() || !reading.name(pattern).is_empty(), "{pattern}");
            assert!(!reading.is_text || pattern.is_empty(), "{pattern}");
        }
        assert_eq!((Reading::new("bots?").text, Reading::new("co+l").text), ("bot".to_owned(), "co".to_owned()));
        assert!(Reading::new("{x}").text.is_empty() && Reading::new("x]}").is_text);
    }
}
