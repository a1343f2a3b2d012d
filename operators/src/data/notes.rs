//! What is noted of fetched files, in a file beside them: without it nobody knows a year later what a list is and whether it
//! may be shown.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use engine::contract::read_text;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::write;

/// The name of the file.
pub(super) const FILE: &str = "sources.json";

/// What is noted of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Where its content comes from.
    pub source: String,
    pub licence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<String>,
    /// The day on which it was fetched.
    pub fetched: String,
    /// The content that this is said of.
    pub sha256: String,
}

/// The notes by the names of files.
pub(super) type Notes = BTreeMap<String, Note>;

/// The digest of a content, as it is noted.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The notes of a folder; none if there are none.
///
/// # Errors
/// If they cannot be read; the message names the file.
pub(super) fn read(folder: &Path) -> Result<Notes, String> {
    let path = folder.join(FILE);
    let text = match read_text(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Notes::new()),
        read => read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?,
    };
    serde_json::from_str(&text).map_err(|error| format!("{}:{}: {error}", path.display(), error.line()))
}

/// Notes something of a file.
///
/// # Errors
/// If the notes cannot be read or written.
pub(super) fn add(folder: &Path, file: &str, note: Note) -> Result<(), String> {
    let mut notes = read(folder)?;
    notes.insert(file.to_owned(), note);
    let text = serde_json::to_string_pretty(&notes).map_err(|error| error.to_string())?;
    write::replace(&folder.join(FILE), format!("{text}\n").as_bytes(), None)
}
