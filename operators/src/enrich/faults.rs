//! What is wrong with a file of reference data.

use std::fmt::Write;

/// How many bad rows are named.
const MOST: usize = 5;

/// The most characters of a reason: it may quote the file.
const MOST_CHARACTERS: usize = 300;

/// The first bad rows of a file, with their lines.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(u64, String)>);

impl Faults {
    /// One fault, which ends the reading.
    pub fn one(line: u64, reason: impl Into<String>) -> Self {
        Self(vec![(line, reason.into())])
    }

    /// Notes a bad row. True if there are enough of them, so that nothing more need be read.
    pub fn add(&mut self, line: u64, reason: impl Into<String>) -> bool {
        self.0.push((line, reason.into()));
        self.0.len() >= MOST
    }

    /// The value that was read, if nothing is wrong with it.
    ///
    /// # Errors
    /// If there are faults.
    pub fn or<T>(self, value: impl FnOnce() -> T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value()) } else { Err(self) }
    }

    /// Each as `line: reason` in a line of its own, whatever a reason quotes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (line, reason) in &self.0 {
            let separator = if text.is_empty() { "" } else { "\n" };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{line}: {}", one_line(reason));
        }
        text
    }

    /// Lines and reasons, for tests.
    #[cfg(test)]
    pub fn list(&self) -> Vec<(u64, &str)> {
        self.0.iter().map(|(line, reason)| (*line, reason.as_str())).collect()
    }
}

/// A reason that fits into a line, whatever it quotes.
pub(super) fn one_line(reason: &str) -> String {
    reason.chars().take(MOST_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_line() {
        let mut faults = Faults::one(3, "`a\nb\u{1b}[31m` is no text");
        assert!(!faults.add(4, "x".repeat(1000)));
        let shown = faults.text();
        assert_eq!(shown.lines().next(), Some("3: `a b [31m` is no text"));
        assert_eq!(shown.lines().nth(1).map(str::len), Some(3 + MOST_CHARACTERS));
        assert_eq!((4..8).filter(|line| faults.add(*line, "x")).collect::<Vec<_>>(), [6, 7]);
        assert!(faults.or(|| ()).is_err() && Faults::default().or(|| 7).is_ok_and(|value| value == 7));
    }
}
