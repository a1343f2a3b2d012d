//! The file that keeps what was said: one JSON object a line, durable before it is answered.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use engine::contract::read_content;
use engine::files::{self, Lock};

use super::entry::{About, Entry};

/// What is in effect, and what takes something back that would be.
pub(super) type Entries = BTreeMap<About, Entry>;

/// No line is longer, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Lines beyond those of what is in effect, after which the file is written anew.
const SPARE: usize = 1000;

/// The file, which one process writes.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Keeps other processes away from it.
    lock: Option<Lock>,
    /// Bytes of its whole lines.
    length: u64,
    lines: usize,
    /// Behind them there may be a part of one.
    is_torn: bool,
}

impl Journal {
    /// Opens the file, or makes it. What ended before `now`, in ns, is left out. A last line that was not written to its end was
    /// never answered, and goes.
    ///
    /// # Errors
    /// If it cannot be read or written, or has a line that is none of its.
    pub fn open(path: &Path, now: i64) -> Result<(Self, Entries), String> {
        let fault = |what: &str, error: &dyn std::fmt::Display| format!("{} cannot be {what}: {error}", path.display());
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut bytes = read(path).map_err(|error| fault("read", &error))?;
        // Nobody else writes to it from here on.
        let files::Opened { mut file, lock, .. } = files::open(path, false).map_err(|error| fault("opened", &error))?;
        let read = bytes.len();
        mend_the_end(&mut bytes).map_err(|error| fault("used", &error))?;
        let whole = bytes.len();
        if whole < read {
            let bytes = read - whole;
            tracing::warn!(path = %path.display(), bytes, "a line of feedback that was not written to its end is left out");
        }
        let mut entries = Entries::new();
        let mut lines = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines += 1;
            let entry: Entry =
                serde_json::from_slice(line).map_err(|error| fault("used", &format!("line {lines}: {error}")))?;
            entries.insert(entry.about.clone(), entry);
        }
        entries.retain(|_, entry| entry.until > now);
        let mut mend = || -> io::Result<()> {
            file.set_len(whole.min(read) as u64)?;
            if whole > read {
                file.write_all(b"\n")?;
            }
            file.sync_all()?;
            // The name is to last too.
            File::open(folder)?.sync_all()
        };
        mend().map_err(|error| fault("written", &error))?;
        Ok((Self { path: path.to_owned(), file, lock, length: whole as u64, lines, is_torn: false }, entries))
    }

    /// Adds a line, durably.
    ///
    /// # Errors
    /// If it cannot be written. Then it is not there, as far as the disk obeys.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.is_removed() {
            return Err(io::Error::other(format!("{} was removed", self.path.display())));
        }
        if self.is_torn {
            self.file.set_len(self.length)?;
        }
        self.is_torn = true;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // If this fails too, the next call tries again, and a start leaves half a line out.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.is_torn = false;
        self.length += line.len() as u64;
        self.lines += 1;
        Ok(())
    }

    /// Whether somebody has removed the file: what is written to it now, nobody will ever read.
    pub fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Whether most of its lines are of no use any more.
    pub fn is_long(&self, entries: &Entries) -> bool {
        self.lines > 2 * entries.len() + SPARE
    }

    /// Writes the file anew.
    pub fn write_anew(&mut self, entries: &Entries) {
        if let Err(error) = self.replace(entries) {
            tracing::warn!(path = %self.path.display(), %error, "the file of feedback cannot be written anew, and grows");
        }
    }

    fn replace(&mut self, entries: &Entries) -> io::Result<()> {
        let new = self.path.with_extension("jsonl.new");
        let mut text = Vec::new();
        for entry in entries.values() {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        let mut file = files::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        let files::Opened { file, lock, .. } = files::open(&new, false)?;
        fs::rename(&new, &self.path)?;
        self.lock = lock;
        // Whatever follows, this is the file now.
        (self.file, self.length, self.lines, self.is_torn) = (file, text.len() as u64, entries.len(), false);
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The file's bytes; none if there is no file.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match read_content(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Cuts off a last line that was not written to its end. One that lacks nothing but its line feed, as an editor leaves it, gets
/// that.
fn mend_the_end(bytes: &mut Vec<u8>) -> Result<(), String> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let rest = bytes.len() - whole;
    if rest > MOST_BYTES {
        return Err(format!("its last {rest} bytes are no line"));
    }
    if rest > 0 && serde_json::from_slice::<Entry>(&bytes[whole..]).is_ok() {
        bytes.push(b'\n');
    } else {
        bytes.truncate(whole);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(host: &str, at: i64, until: i64) -> Entry {
        let document = json!({ "host": host, "label": "false_positive", "who": "ada" });
        Entry::of(document, at.to_string(), (at, until)).expect("valid")
    }

    #[test]
    fn what_was_added_is_there_again_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/feedback.jsonl");
        let (mut journal, entries) = Journal::open(&path, 0).expect("opened");
        assert!(entries.is_empty());
        for entry in [entry("a", 1, 10), entry("b", 2, 20), entry("a", 3, 30)] {
            journal.add(&entry).expect("written");
        }
        drop(journal);
        let mut text = fs::read_to_string(&path).expect("text");
        text.push_str("{\"id\": \"4\", \"given");
        fs::write(&path, text).expect("written");
        let (mut journal, entries) = Journal::open(&path, 20).expect("opened");
        assert_eq!(entries.into_values().collect::<Vec<_>>(), [entry("a", 3, 30)], "b has ended");
        journal.add(&entry("c", 5, 50)).expect("written");
        let (_, entries) = Journal::open(&path, 20).expect("the half line is gone");
        assert_eq!(entries.len(), 2);
        fs::write(&path, "{}\n").expect("written");
        let fault = Journal::open(&path, 0).expect_err("refused");
        assert!(fault.contains("line 1: missing field"), "{fault}");
    }

    #[test]
    fn any_end_of_the_file_is_mended_or_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feedback.jsonl");
        let line = serde_json::to_vec(&entry("\u{fc}", 1, 10)).expect("JSON");
        let first = [&line[..], b"\n"].concat();
        for cut in 0..=line.len() {
            fs::write(&path, [&first[..], &line[..cut]].concat()).expect("written");
            let (_, entries) = Journal::open(&path, 0).expect("opened");
            assert_eq!(entries.len(), 1, "cut behind {cut} bytes");
            let lines = if cut == line.len() { 2 } else { 1 };
            assert_eq!(fs::read(&path).expect("there"), first.repeat(lines), "cut behind {cut} bytes");
        }
        fs::write(&path, vec![0; MOST_BYTES + 1]).expect("written");
        let fault = Journal::open(&path, 0).expect_err("refused");
        assert!(fault.contains("are no line"), "{fault}");
        let fault = Journal::open(folder.path(), 0).expect_err("refused");
        assert!(fault.contains("not a regular file"), "{fault}");
    }

    #[test]
    fn the_file_does_not_grow_without_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feedback.jsonl");
        let (mut journal, mut entries) = Journal::open(&path, 0).expect("opened");
        for at in 1..=SPARE as i64 + 3 {
            let entry = entry("a", at, i64::MAX);
            journal.add(&entry).expect("written");
            entries.insert(entry.about.clone(), entry);
            if journal.is_long(&entries) {
                journal.write_anew(&entries);
            }
        }
        assert_eq!(journal.lines, 1);
        journal.add(&entry("b", 9, i64::MAX)).expect("written");
        let (_, again) = Journal::open(&path, 0).expect("opened");
        assert_eq!(again.len(), 2);
        assert_eq!(again.values().next(), entries.values().next());
    }
}
