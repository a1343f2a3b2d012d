//! The list of crawlers' User-Agents: JSON as the npm package crawler-user-agents publishes it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::enrich::faults::Faults;

/// The most bytes of a list. The published one has 0.5 MB.
const MOST_BYTES: usize = 8 << 20;

/// The most patterns of a list. The published one has 1,500.
const MOST_PATTERNS: usize = 20_000;

/// The most bytes of a pattern. The longest published one has 56.
const MOST_PATTERN: usize = 256;

/// The most tags of a pattern, and bytes of each.
const MOST_TAGS: (usize, usize) = (16, 64);

/// What is used of an object of the list; there may be more in it.
#[derive(Deserialize)]
struct Entry {
    pattern: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// A pattern of the list.
#[derive(Debug)]
pub(super) struct Listed {
    /// Where its object begins.
    pub line: u64,
    /// The regular expression.
    pub pattern: String,
    /// The tags, with commas between them; `None` if there are none.
    pub tags: Option<Box<str>>,
}

/// Reads a list.
///
/// # Errors
/// If it is no JSON list, or too long; the first objects that are no pattern.
pub(super) fn read(content: &[u8]) -> Result<Vec<Listed>, Faults> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    if content.len() > MOST_BYTES {
        return Err(Faults::one(1, format!("the list has {} bytes; it may have {MOST_BYTES}", content.len())));
    }
    let objects: Vec<&RawValue> =
        serde_json::from_slice(content).map_err(|error| Faults::one(error.line() as u64, json_reason(&error)))?;
    let mut faults = Faults::default();
    let mut listed = Vec::with_capacity(objects.len().min(MOST_PATTERNS));
    let (mut line, mut counted) = (1, 0);
    for object in objects {
        let at = object.get().as_ptr().addr().saturating_sub(content.as_ptr().addr());
        let between = content.get(counted..at).unwrap_or_default();
        line += between.iter().filter(|byte| **byte == b'\n').count() as u64;
        counted = at;
        if listed.len() == MOST_PATTERNS {
            faults.add(line, format!("the list has more than {MOST_PATTERNS} patterns"));
            break;
        }
        match entry(object.get(), line) {
            Ok(entry) => listed.push(entry),
            Err((line, reason)) => {
                if faults.add(line, reason) {
                    break;
                }
            }
        }
    }
    faults.or(|| listed)
}

/// An object of the list, which begins in this line.
fn entry(object: &str, line: u64) -> Result<Listed, (u64, String)> {
    let entry: Entry = serde_json::from_str(object)
        .map_err(|error| (line + (error.line() as u64).saturating_sub(1), json_reason(&error)))?;
    let fault = |reason: String| Err((line, reason));
    match entry.pattern.len() {
        0 => return fault("the pattern is empty".to_owned()),
        1..=MOST_PATTERN => {}
        bytes => return fault(format!("the pattern has {bytes} bytes; it may have {MOST_PATTERN}")),
    }
    let tags = entry.tags.unwrap_or_default();
    let (most, bytes) = MOST_TAGS;
    if tags.len() > most || tags.iter().any(|tag| tag.is_empty() || tag.len() > bytes || tag.contains(',')) {
        return fault(format!("tags are at most {most} texts of 1 to {bytes} bytes without a comma"));
    }
    let tags = Some(tags.join(",").into_boxed_str()).filter(|tags| !tags.is_empty());
    Ok(Listed { line, pattern: entry.pattern, tags })
}

/// The reason alone: the place is named otherwise.
fn json_reason(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    reason.rfind(" at line ").map_or(reason.as_str(), |end| &reason[..end]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(content: &str) -> Vec<(u64, String)> {
        let faults = read(content.as_bytes()).err().unwrap_or_default();
        faults.list().into_iter().map(|(line, reason)| (line, reason.to_owned())).collect()
    }

    #[test]
    fn what_else_is_in_an_object_does_not_matter() {
        let content = r#"[
            { "pattern": "Googlebot\\/", "url": 7, "tags": ["a", "b"], "instances": [[[]]] },
            { "tags": null, "pattern": "x" }
        ]"#;
        let listed = read(format!("\u{feff}{content}").as_bytes()).unwrap_or_default();
        let shown: Vec<_> = listed.iter().map(|one| (one.line, one.pattern.as_str(), one.tags.as_deref())).collect();
        assert_eq!(shown, [(2, "Googlebot\\/", Some("a,b")), (3, "x", None)]);
        assert!(read(b"[]").is_ok_and(|listed| listed.is_empty()));
    }

    #[test]
    fn faults_are_named_by_line() {
        let found = faults(
            "[\n{\"pattern\": \"a\"},\n{\n\"pattern\":\n7},\n{\"tags\": []},\n5,\n{\"pattern\": \"\"}, {\"pattern\": \"b\", \"tags\": [\"a,b\"]},\n{}]",
        );
        let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [5, 6, 7, 8, 8], "{found:?}");
        assert!(found[0].1.starts_with("invalid type: integer `7`") && found[1].1 == "missing field `pattern`");
    }

    #[test]
    fn a_list_that_is_cut_or_is_none_is_refused() {
        let deep = "[".repeat(1 << 20);
        let unclosed = format!("[{}", "{\"a\":".repeat(1 << 16));
        for content in ["", "[", "[{\"pattern\": \"a\"},", "{}", "[{\"pattern\": \"a\"}] x", "\0", &deep, &unclosed] {
            assert_eq!(faults(content).len(), 1);
        }
        assert_eq!(faults("[\n{},\n{\"x\":")[0].0, 3);
        assert!(read(b"[{\"pattern\": \"\xff\"}]").is_err());
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(faults(&format!("[{{\"pattern\": \"{}\"}}]", "x".repeat(257)))[0].1.contains("257 bytes"));
        let many = vec!["{\"pattern\":\"x\"}"; MOST_PATTERNS + 1].join(",\n");
        assert_eq!(faults(&format!("[{many}]")), [(20_001, "the list has more than 20000 patterns".to_owned())]);
        assert!(faults(&" ".repeat(MOST_BYTES + 1))[0].1.contains("may have 8388608"));
        let tags = format!("[{{\"pattern\": \"x\", \"tags\": [{}\"a\"]}}]", "\"a\",".repeat(16));
        assert!(faults(&tags)[0].1.starts_with("tags are at most 16"));
    }
}
