//! Which pattern of a list a User-Agent matches.

use aho_corasick::AhoCorasick;
use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

use super::list::{self, Listed};
use super::pattern::Reading;
use crate::enrich::faults::Faults;

/// The most patterns that are more than a text. The published list has 36.
const MOST_EXPRESSIONS: usize = 1_000;

/// The most bytes of one compiled expression, and of all together: what a User-Agent costs at worst grows with it.
const MOST_COMPILED: (usize, usize) = (64 << 10, 1 << 20);

/// The bytes that a thread may keep of the automaton of the expressions. With less, User-Agents made to fill it cost ten times
/// as much.
const AUTOMATON: usize = 8 << 20;

/// A pattern, as it is shown.
#[derive(Debug)]
pub(super) struct Pattern {
    /// What it looks for.
    pub name: Box<str>,
    /// Its tags with commas between them.
    pub tags: Option<Box<str>>,
}

/// All patterns of a list.
///
/// Nearly all are texts. These are looked for in one pass, whose cost per byte is bounded whatever a client sends. All others
/// are one set of regular expressions. With texts in that set too, its automaton has a thousand threads, and a User-Agent made
/// of pieces of them costs 10 ms.
pub(super) struct Agents {
    patterns: Vec<Pattern>,
    texts: AhoCorasick,
    /// The pattern of each text.
    text_of: Vec<u32>,
    expressions: RegexSet,
    /// The pattern of each expression, ascending.
    expression_of: Vec<u32>,
}

impl Agents {
    /// Reads a list.
    ///
    /// # Errors
    /// The first faults of the list, and patterns that are no regular expression, or match everything.
    pub fn read(content: &[u8]) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let (mut texts, mut text_of) = (Vec::new(), Vec::new());
        let (mut expressions, mut expression_of) = (Vec::new(), Vec::new());
        let mut patterns = Vec::new();
        for Listed { line, pattern, tags } in list::read(content)? {
            let (reading, at) = (Reading::new(&pattern), patterns.len() as u32);
            patterns.push(Pattern { name: reading.name(&pattern).into(), tags });
            if reading.is_text {
                texts.push(reading.text);
                text_of.push(at);
                continue;
            }
            if let Err(reason) = check(&pattern, expressions.len())
                && faults.add(line, reason)
            {
                break;
            }
            expressions.push(pattern);
            expression_of.push(at);
        }
        faults.or(|| ())?;
        let texts = AhoCorasick::new(texts).map_err(|error| Faults::one(1, error.to_string()))?;
        let expressions = RegexSetBuilder::new(expressions)
            .unicode(false)
            .size_limit(MOST_COMPILED.1)
            .dfa_size_limit(AUTOMATON)
            .build()
            .map_err(|error| Faults::one(1, format!("all expressions together: {}", regex_reason(&error))))?;
        Ok(Self { patterns, texts, text_of, expressions, expression_of })
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// The first pattern of the list that a User-Agent matches.
    pub fn find(&self, agent: &str) -> Option<&Pattern> {
        let texts =
            self.texts.find_overlapping_iter(agent).filter_map(|found| self.text_of.get(found.pattern().as_usize()));
        let matched = self.expressions.matches(agent.as_bytes());
        let expressions = matched.iter().filter_map(|at| self.expression_of.get(at));
        texts.chain(expressions).min().and_then(|at| self.patterns.get(*at as usize))
    }
}

/// Why a pattern that is no text cannot be used, after so many others.
fn check(pattern: &str, expressions: usize) -> Result<(), String> {
    if expressions == MOST_EXPRESSIONS {
        return Err(format!("more than {MOST_EXPRESSIONS} patterns are regular expressions"));
    }
    let compiled = RegexBuilder::new(pattern).unicode(false).size_limit(MOST_COMPILED.0).build();
    let compiled = compiled.map_err(|error| format!("`{pattern}` cannot be used: {}", regex_reason(&error)))?;
    if compiled.is_match(b"") && compiled.is_match(b"x") {
        return Err(format!("`{pattern}` matches every User-Agent"));
    }
    Ok(())
}

/// The reason, without the picture of the place.
fn regex_reason(error: &regex::Error) -> String {
    let shown = error.to_string();
    shown.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::enrich::agent::cut;

    /// The list that is shipped, and the User-Agents that its makers give as examples, one a line.
    const LIST: &[u8] = include_bytes!("../../../../pipelines/reference/crawler-user-agents.json");
    const EXAMPLES: &[u8] = include_bytes!("../../../tests/data/crawler-instances.txt.gz");

    fn agents(patterns: &[&str]) -> Result<Agents, Faults> {
        let list: Vec<_> = patterns.iter().map(|pattern| serde_json::json!({ "pattern": pattern })).collect();
        Agents::read(serde_json::Value::Array(list).to_string().as_bytes())
    }

    fn found(agents: &Agents, agent: &str) -> Option<String> {
        agents.find(agent).map(|pattern| pattern.name.to_string())
    }

    #[test]
    fn the_first_pattern_of_the_list_counts() {
        let agents = agents(&["^b+x", "ab", "[cC]ab", "b"]).expect("valid");
        let all = ["cab", "b", "bbx", "ab", "é", ""].map(|agent| found(&agents, agent));
        let expected = [Some("ab"), Some("b"), Some("b"), Some("ab"), None, None];
        assert_eq!(all, expected.map(|name| name.map(str::to_owned)));
    }

    #[test]
    fn patterns_that_cannot_be_used_are_named() {
        let list = |patterns: &[&str]| agents(patterns).err().map(|faults| faults.text()).unwrap_or_default();
        let shown = list(&["fine", "(", "a*", "(a{250}){250}", "[é]", "\\"]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("1: `(` cannot be used: unclosed group"), "{shown}");
        assert!(lines[1].contains("`a*` matches every User-Agent"), "{shown}");
        assert!(lines[2].contains("exceeds size limit"), "{shown}");
        assert_eq!(lines.len(), 5);
        assert!(list(&vec!["[ab]c"; MOST_EXPRESSIONS + 1]).contains("more than 1000 patterns"));
        let large: Vec<String> = (0..100).map(|n| format!("x{n}[ab]{{400}}")).collect();
        let large: Vec<&str> = large.iter().map(String::as_str).collect();
        assert!(list(&large).starts_with("1: all expressions together"), "{}", list(&large));
    }

    #[test]
    fn published_examples_match_as_in_a_plain_loop() {
        let agents = Agents::read(LIST).expect("valid");
        let list: Vec<serde_json::Value> = serde_json::from_slice(LIST).expect("a list");
        let alone = |one: &serde_json::Value| regex::Regex::new(one["pattern"].as_str().expect("text")).expect("valid");
        let alone: Vec<regex::Regex> = list.iter().map(alone).collect();
        let mut examples = String::new();
        flate2::read::GzDecoder::new(EXAMPLES).read_to_string(&mut examples).expect("text");
        let people = ["", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"];
        let mut matched = 0;
        for example in examples.lines().chain(people).map(cut) {
            let expected = alone.iter().position(|pattern| pattern.is_match(example)).map(|nth| &agents.patterns[nth]);
            let found = agents.find(example);
            assert_eq!(
                found.map(std::ptr::from_ref),
                expected.map(std::ptr::from_ref),
                "{example}: {found:?}, {expected:?}"
            );
            matched += usize::from(expected.is_some());
        }
        assert_eq!((list.len(), agents.text_of.len(), matched), (1500, 1464, 2118));
    }

    #[test]
    fn what_clients_send_costs_little() {
        // Pieces of all patterns, in another order each time, so that no state of an automaton is met twice.
        let agents = Agents::read(LIST).expect("valid");
        let pieces: Vec<&str> = agents.patterns.iter().map(|pattern| &*pattern.name).collect();
        let begin = Instant::now();
        for nth in 0..1000 {
            let piece = |at: usize| pieces[(nth * 7919 + at * at * 104_729) % pieces.len()];
            let agent: String = (0..60)
                .map(|at| {
                    let text = piece(at);
                    &text[..text.floor_char_boundary(1 + at % 9)]
                })
                .collect();
            agents.find(cut(&agent));
        }
        // With all patterns in one automaton it is 10 s.
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
}
