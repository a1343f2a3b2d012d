//! SQL files: parameters, statements, expectations.
//!
//! A parameter is written `${name}`. Within a quoted text it becomes text, escaped; elsewhere an identifier in backquotes.

use std::collections::BTreeMap;

/// Values by name.
pub type Parameters = BTreeMap<String, String>;

/// One statement, and what it must answer if it is there to verify something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The SQL, without its semicolon.
    pub sql: String,
    /// Answers that are right: of `-- expect: a | b`.
    pub expect: Vec<String>,
}

/// Fills in the parameters and cuts a file into statements.
///
/// # Errors
/// If a parameter has no value; the message names it.
pub fn statements(file: &str, parameters: &Parameters) -> Result<Vec<Statement>, String> {
    let mut found = Vec::new();
    let (mut sql, mut expect) = (String::new(), Vec::new());
    let mut rest = file;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("--") {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            if let Some(answers) = line.strip_prefix("-- expect:") {
                expect = answers.split('|').map(|answer| plain(answer.trim(), parameters)).collect::<Result<_, _>>()?;
            }
            rest = after;
        } else if c == '\'' {
            let end = quoted(rest);
            sql.push_str(&filled(&rest[..end], parameters, escaped)?);
            rest = &rest[end..];
        } else if c == ';' {
            push(&mut found, &mut sql, &mut expect);
            rest = &rest[1..];
        } else {
            let end = rest[c.len_utf8()..].find(['\'', ';', '-']).map_or(rest.len(), |at| at + c.len_utf8());
            sql.push_str(&filled(&rest[..end], parameters, identifier)?);
            rest = &rest[end..];
        }
    }
    push(&mut found, &mut sql, &mut expect);
    Ok(found)
}

fn push(found: &mut Vec<Statement>, sql: &mut String, expect: &mut Vec<String>) {
    let text = std::mem::take(sql).trim().to_owned();
    if !text.is_empty() {
        found.push(Statement { sql: text, expect: std::mem::take(expect) });
    }
}

/// How long the quoted text is that begins here, quotes included.
fn quoted(text: &str) -> usize {
    let mut escape = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escape => escape = false,
            '\\' => escape = true,
            '\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn plain(text: &str, parameters: &Parameters) -> Result<String, String> {
    filled(text, parameters, str::to_owned)
}

fn filled(text: &str, parameters: &Parameters, quote: impl Fn(&str) -> String) -> Result<String, String> {
    let mut parts = text.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, after) = part.split_once('}').ok_or_else(|| format!("`${{{part}` has no end"))?;
        let value =
            parameters.get(name).ok_or_else(|| format!("the parameter `{name}` has no value: --set {name}=…"))?;
        out.push_str(&quote(value));
        out.push_str(after);
    }
    Ok(out)
}

/// Text for a place between quotes.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

/// A name as SQL has it.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MIGRATIONS;

    fn parameters() -> Parameters {
        let pairs =
            [("database", "d`b"), ("password", "it's; \\ --x"), ("dictionary_user", "u"), ("dictionary_password", "")];
        let more = [("data_writer", "w"), ("analyst", "a"), ("data_writer_password", "p"), ("analyst_password", "q")];
        pairs.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_parameter_is_text_between_quotes_and_an_identifier_elsewhere() {
        let file = "-- ${nothing}; here\nSELECT 1 - 1 FROM ${database}.t WHERE x = '${password}';\n-- expect: 1 | ${database}\nSELECT 'a;\\'b' ;";
        let got = statements(file, &parameters()).expect("valid");
        assert_eq!(got[0].sql, "SELECT 1 - 1 FROM `d\\`b`.t WHERE x = 'it\\'s; \\\\ --x'");
        assert_eq!(
            got[1],
            Statement { sql: "SELECT 'a;\\'b'".to_owned(), expect: vec!["1".to_owned(), "d`b".to_owned()] }
        );
        assert_eq!(got.len(), 2);
        let error = statements("SELECT ${x}", &parameters()).expect_err("refused");
        assert!(error.contains("`x` has no value"), "{error}");
    }

    #[test]
    fn every_migration_can_be_read_verified_and_rolled_back() {
        for (nth, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::from(migration.number), nth, "in order, none missing");
            for file in [migration.up, migration.down] {
                assert!(!statements(file, &parameters()).expect("valid").is_empty(), "{}", migration.name);
            }
            let queries = statements(migration.verify, &parameters()).expect("valid");
            assert!(!queries.is_empty() && queries.iter().all(|query| !query.expect.is_empty()), "{}", migration.name);
            assert!(!migration.up.contains("CHANGE_ME"), "secrets are parameters");
        }
    }
}
