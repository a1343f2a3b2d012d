//! Where a run goes on with a file of lines that another one wrote.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use engine::contract::NodeMetrics;
use serde_json::Value;

use super::identity::Identity;
use super::log_file::{LogFile, Place, Rotation};

/// Opens a file behind what was confirmed; a file that nothing was confirmed of is emptied, unless it is appended to. Nothing
/// is cut of a file that is not the one that was written to.
pub(super) fn go_on(
    place: &Place,
    detail: &Value,
    append: bool,
    rotation: Rotation,
    metrics: &NodeMetrics,
) -> io::Result<LogFile> {
    let path = &place.path;
    let mut file = LogFile::open(place, rotation, metrics)?;
    // By its name alone: the folder may have been moved together with the spool.
    let name = |path: &Path| path.file_name().map(|name| name.to_os_string());
    if detail["path"].as_str().is_none_or(|other| name(Path::new(other)) != name(path)) {
        if !append {
            file.cut(0, None)?;
        }
        return Ok(file);
    }
    let (bytes, since) = (detail["bytes"].as_u64().unwrap_or(0), detail["since"].as_u64());
    let known = Identity::read(detail);
    if let Some(known) = known.as_ref().filter(|known| !file.has_number(known))
        && let Some(moved) = moved(path, known)
    {
        // It was put aside since, by us or by another program: what follows goes into the file that has the name now.
        let moved = Place { path: moved, follow_symlinks: false };
        let mut moved = LogFile::open(&moved, Rotation::default(), &NodeMetrics::default())?;
        if moved.is(known) {
            moved.cut(bytes, since)?;
            return Ok(file);
        }
    }
    if known.is_some_and(|known| file.is(&known)) {
        file.cut(bytes, since)?;
    } else if file.is_regular()? && (bytes > 0 || file.bytes() > 0) {
        let said = if file.bytes() < bytes {
            "the file is shorter than what was written to it"
        } else {
            "the file is not the one that was written to, or was changed: nothing is cut, and what follows is appended"
        };
        tracing::warn!(path = %path.display(), length = file.bytes(), expected = bytes, "{said}");
    }
    Ok(file)
}

/// The file with this number beside `path`, if it has another name now: one that begins as its own does up to the first dot, as
/// rotations give it.
fn moved(path: &Path, known: &Identity) -> Option<PathBuf> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name()?.as_encoded_bytes();
    let dot = name.iter().skip(1).position(|byte| *byte == b'.');
    let own = &name[..dot.map_or(name.len(), |dot| dot + 1)];
    let is_own = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(own);
    let same = |metadata: fs::Metadata| metadata.is_file() && known.has_number(&metadata);
    let is_it = |entry: &fs::DirEntry| is_own(entry) && entry.metadata().is_ok_and(same);
    fs::read_dir(folder).ok()?.flatten().find(is_it).map(|entry| entry.path())
}
