//! Whether an evidence folder is what its manifest says, and whether the JA4s follow from its packets. A folder may come from
//! anybody: nothing outside of it is read, and only so much.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::bundle::{self, HELLOS, MANIFEST, Manifest, PACKETS};
use super::packets;
use crate::history::Row;
use crate::history::text::visible;

/// The most bytes of a manifest and of the hellos.
const MAX_BYTES: u64 = 64 << 20;

/// The most sentences about hellos.
const MAX_SAID: usize = 20;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// What was checked, a line each.
    pub lines: Vec<String>,
    /// Whether everything agrees.
    pub agrees: bool,
}

/// Checks a folder.
///
/// # Errors
/// If there is no manifest that can be read.
pub fn verify(dir: &Path) -> Result<Verified, String> {
    let path = dir.join(MANIFEST);
    let text = read(&path)?;
    let manifest = manifest(&text).map_err(|why| format!("{} {why}", path.display()))?;
    let mut verified = Verified { agrees: true, ..Verified::default() };
    verified.say(format!(
        "made {} by ja4-engine {} about {}",
        visible(&manifest.made),
        visible(&manifest.engine),
        visible(&manifest.client)
    ));
    verified.say(format!("{MANIFEST} SHA-256 {}", bundle::content(&path)?.sha256));
    for (name, expected) in &manifest.files {
        if !is_plain(name) {
            verified.fault(format!("`{}` is no name of a file in the folder", visible(name)));
            continue;
        }
        match bundle::content(&dir.join(name)) {
            Ok(found) if found == *expected => verified.say(format!("{name}: as the manifest says")),
            Ok(_) => verified.fault(format!("{name} has been changed: its hash is another")),
            Err(error) => verified.fault(error),
        }
    }
    for name in bundle::names(dir)? {
        if name != MANIFEST && !manifest.files.contains_key(&name) {
            verified.fault(format!("{} is not in the manifest", visible(&name)));
        }
    }
    // What is not the file that the manifest names is not looked into.
    if verified.agrees && manifest.files.contains_key(PACKETS) {
        verified.packets(dir)?;
    }
    Ok(verified)
}

/// The manifest, whoever wrote it.
fn manifest(text: &str) -> Result<Manifest, String> {
    let found =
        engine::contract::document(text.as_bytes()).map_err(|why| format!("is no manifest: it is not JSON ({why})"))?;
    match &found["format"] {
        // What another version writes may have other parts.
        Value::Number(format) if format.as_u64() != Some(bundle::FORMAT) => {
            return Err(format!(
                "is of format {format}, which this version does not know: it knows {}",
                bundle::FORMAT
            ));
        }
        Value::Number(_) => {}
        _ => return Err("is no manifest of an evidence folder: it has no `format`, a number".to_owned()),
    }
    serde_json::from_value(found).map_err(|error| {
        format!(
            "says that it is a manifest of format {}, and is not what `explain --bundle` writes: {error}",
            bundle::FORMAT
        )
    })
}

impl Verified {
    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn fault(&mut self, line: String) {
        self.agrees = false;
        self.lines.push(format!("FAULT {line}"));
    }

    /// Fingerprints the packets again.
    fn packets(&mut self, dir: &Path) -> Result<(), String> {
        let text = read(&dir.join(HELLOS))?;
        let rows: Result<Vec<Row>, _> = text.lines().map(serde_json::from_str).collect();
        let rows = rows.map_err(|error| format!("{HELLOS}: {error}"))?;
        let agreement = packets::compare(&dir.join(PACKETS), &rows)?;
        self.say(format!("{PACKETS}: of {} hellos {} have the JA4 of their row", rows.len(), agreement.agree));
        if agreement.missing > 0 {
            self.say(format!("{} hellos are not in {PACKETS}: nothing is said of their JA4", agreement.missing));
        }
        for said in agreement.unknown.iter().take(MAX_SAID) {
            self.say(format!("{PACKETS} has a hello of no row: {}", visible(said)));
        }
        for said in agreement.disagree.iter().take(MAX_SAID) {
            self.fault(visible(said).into_owned());
        }
        if agreement.disagree.len() > MAX_SAID {
            self.fault(format!("… and {} more", agreement.disagree.len() - MAX_SAID));
        }
        Ok(())
    }
}

/// A name that leads nowhere else.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

fn read(path: &Path) -> Result<String, String> {
    let fault = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let about = fs::symlink_metadata(path).map_err(fault)?;
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(format!("{} is no file of at most {MAX_BYTES} bytes", path.display()));
    }
    fs::read_to_string(path).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_somebody_else_is_told_apart() {
        for (text, says) in [
            ("", "it is not JSON"),
            ("{\"format\":1,\"format\":1}", "`format` is there twice"),
            ("[]", "it has no `format`"),
            ("{\"manifest_version\":3}", "it has no `format`"),
            ("{\"format\":\"1\"}", "it has no `format`"),
            ("{\"format\":2}", "is of format 2, which this version does not know"),
            ("{\"format\":1}", "is not what `explain --bundle` writes: missing field `engine`"),
        ] {
            let fault = manifest(text).expect_err("refused");
            assert!(fault.contains(says), "{text}: {fault}");
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert!(is_plain("report.txt") && is_plain("a-b_c.json"));
        for wrong in ["", ".", "..", "../report.txt", "/etc/passwd", "a/b", "a\u{202e}b", ".hidden"] {
            assert!(!is_plain(wrong), "{wrong}");
        }
    }
}
