//! Files that match a pattern: which are new, which were only renamed, and which are copies of others.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use capture_file::Decompressed;

use super::super::super::paths::Pattern;
use super::super::super::tail::{
    Identity, Mark, SAMPLE, Start, Tail, are_alike, bytes_at, identity, named, open_regular, read,
};
use super::read::Covers;
use super::{FollowReader, MAX_FOLLOWED, seats};

/// How often it is looked for new files.
pub(super) const EVERY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1000 });

/// After so long without being written to a copy is complete.
const SETTLED: Duration = Duration::from_secs(5);

/// How long a file is followed after its name has gone.
pub(super) const LINGER: Duration = Duration::from_millis(if cfg!(test) { 400 } else { 60_000 });

/// A file that is not followed yet.
struct New {
    path: PathBuf,
    identity: Identity,
    length: u64,
    head: Vec<u8>,
    mark: Mark,
    settled: bool,
    modified: SystemTime,
}

/// What another file says of a new one.
enum Copy {
    /// It has a text of its own.
    No,
    /// That cannot be told yet.
    Unknown,
    /// So much of it is read in another file.
    UpTo(u64),
}

impl FollowReader {
    /// Follows files that match and are not followed yet. Those of the start must be readable.
    pub(super) fn discover(&mut self, start: Start, first: bool) -> Result<(), String> {
        let due = self.discovered.is_none_or(|last| last.elapsed() >= EVERY);
        if !due {
            return Ok(());
        }
        self.discovered = Some(Instant::now());
        let before = std::mem::take(&mut self.refused);
        self.name_all(start, &before);
        let mut new = Vec::new();
        for path in self.followed.patterns.iter().flat_map(Pattern::files).collect::<Vec<_>>() {
            if self.files.iter().flatten().any(|file| file.tail.path() == path) {
                continue;
            }
            if self.is_full() && before.contains(&path) {
                self.refused.insert(path);
                continue;
            }
            let part = path.display().to_string();
            match self.look_at(&path) {
                Ok(found) => {
                    new.extend(found);
                    if self.denied.remove(&part) {
                        self.metrics.set_trouble(&part, None);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let text = format!("{part} cannot be read: {error}");
                    if first {
                        return Err(text);
                    }
                    self.metrics.counter("read_errors").fetch_add(1, Relaxed);
                    if self.denied.insert(part.clone()) {
                        tracing::warn!("{text}: it is tried again until it can be");
                        self.metrics.set_trouble(&part, Some(text));
                    }
                }
            }
        }
        if new.len() > MAX_FOLLOWED.saturating_sub(self.files.iter().flatten().count()).min(seats::free()) {
            // Those that are written to now, and not the first by name.
            new.sort_by_key(|one: &New| std::cmp::Reverse(one.modified));
        }
        for at in 0..new.len() {
            self.take_up(&new, at, start, &before);
        }
        self.say_refused(!before.is_empty());
        self.leave();
        self.read.prune();
        Ok(())
    }

    /// A file that matches, unless it is known.
    fn look_at(&mut self, path: &Path) -> std::io::Result<Option<New>> {
        let Ok(found) = std::fs::metadata(path) else { return Ok(None) };
        let identity = identity(&found);
        if self.files.iter().flatten().any(|file| file.tail.has(identity)) {
            return Ok(None);
        }
        match self.read.covers(path, identity, &found) {
            Covers::All => return Ok(None),
            Covers::Nothing => {}
            Covers::UpTo(to) => {
                self.follow_from(path, to);
                return Ok(None);
            }
        }
        let file = open_regular(path)?;
        let found = file.metadata()?;
        let mark = Mark::of(&file)?;
        let head = bytes_at(&file, 0, SAMPLE)?;
        let mut text = Decompressed::new(file)?;
        if let Some(by) = text.compression() {
            let mut head = vec![0; SAMPLE];
            let mut there = 0;
            while let Ok(more @ 1..) = read(&mut text, &mut head[there..]) {
                there += more;
            }
            self.read.add(identity, mark, None);
            if self.has_text(&head[..there]) {
                return Ok(None);
            }
            self.skipped.fetch_add(1, Relaxed);
            tracing::warn!(path = %path.display(), %by, "a compressed file matches and is skipped: such are read without `follow`");
            return Ok(None);
        }
        // A time in the future says nothing.
        let age = found.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let settled = age.is_none_or(|age| age > SETTLED);
        let modified = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Some(New { path: path.to_owned(), identity, length: found.len(), head, mark, settled, modified }))
    }

    /// Follows a new file, or leaves it out as a copy.
    fn take_up(&mut self, new: &[New], at: usize, start: Start, refused: &HashSet<PathBuf>) {
        let one = &new[at];
        // Whether it is a copy that is being made shows by its first line.
        if !one.settled && one.head.len() < SAMPLE && !one.head.contains(&b'\n') {
            return;
        }
        // Of copies that are found together the longest comes first.
        let rank = |other: usize| (new[other].length, std::cmp::Reverse(other));
        let is_behind = |other: usize| are_alike(&one.head, &new[other].head) && rank(other) > rank(at);
        if (0..new.len()).any(|other| other != at && is_behind(other)) {
            return;
        }
        match self.copied(one) {
            Copy::Unknown => {}
            Copy::No => {
                if self.add_free(&one.path, start).is_none() {
                    self.refuse(&one.path, refused);
                }
            }
            // A log that was just cut will find the rest of its text in the copy by itself.
            Copy::UpTo(to) if one.length > to && self.read.again(one.identity) => self.follow_from(&one.path, to),
            Copy::UpTo(to) if one.length > to => {}
            Copy::UpTo(_) if one.settled => {
                tracing::info!(path = %one.path.display(), "a copy of a file that is followed is left out");
                self.read.add(one.identity, one.mark.clone(), Some(one.length));
            }
            // It may still be written.
            Copy::UpTo(_) => {}
        }
    }

    /// Whether a new file is a copy of one that is followed.
    fn copied(&self, one: &New) -> Copy {
        for file in self.files.iter().flatten() {
            if let Some((head, read)) = file.tail.head()
                && are_alike(head, &one.head)
            {
                let is_through = !file.ready && file.lines.rest() == 0 && !file.tail.has_more();
                return if is_through { Copy::UpTo(read) } else { Copy::Unknown };
            }
            if file.tail.awaits(&one.head) {
                return Copy::Unknown;
            }
            if let Some(read) = file.tail.knows_of(&one.head) {
                return Copy::UpTo(read);
            }
            // One that has not begun may have the same text.
            if file.tail.head().is_none_or(|(head, _)| head.is_empty()) && file.ready && starts_alike(&file.tail, one) {
                return Copy::Unknown;
            }
        }
        Copy::No
    }

    /// Whether a text that begins so is or was read.
    fn has_text(&self, head: &[u8]) -> bool {
        self.files.iter().flatten().any(|file| {
            let is_open = file.tail.head().is_some_and(|(own, _)| are_alike(own, head));
            is_open || file.tail.awaits(head) || file.tail.knows_of(head).is_some()
        })
    }

    fn follow_from(&mut self, path: &Path, to: u64) {
        let Some(number) = self.add_free(path, Start::Beginning) else { return };
        if let Some(Err(text)) = self.files[number].as_mut().map(|file| file.tail.begin_at(to)) {
            tracing::warn!("{text}");
            self.files[number] = None;
            self.intake.end(number);
        }
    }

    /// Follows files that are named and had no place before.
    fn name_all(&mut self, start: Start, before: &HashSet<PathBuf>) {
        for path in self.followed.paths.clone() {
            if self.add_free(&path, start).is_none() {
                self.refuse(&path, before);
            }
        }
    }

    /// There are too many files. It is tried again when others have gone.
    fn refuse(&mut self, path: &Path, before: &HashSet<PathBuf>) {
        if !before.contains(path) {
            self.skipped.fetch_add(1, Relaxed);
        }
        self.refused.insert(path.to_owned());
    }

    /// Says whether there are files without a place.
    fn say_refused(&mut self, were_there: bool) {
        let first = self.refused.iter().min();
        let text = first.map(|path| {
            let others = self.refused.len() - 1;
            let followed = self.files.iter().flatten().count();
            format!(
                "{followed} files are followed, the newest first, and no more can be: {} and {others} others wait for a place",
                path.display()
            )
        });
        if let Some(text) = text.as_ref().filter(|_| !were_there) {
            tracing::warn!("{text}");
        }
        if text.is_some() || were_there {
            self.metrics.set_trouble("files", text);
        }
    }

    /// Ends files whose names have gone for a while.
    fn leave(&mut self) {
        for number in 0..self.files.len() {
            let Some(file) = &self.files[number] else { continue };
            let path = file.tail.path();
            if self.followed.paths.iter().any(|named| named == path) {
                continue;
            }
            let here = named(path).is_some_and(|identity| {
                let others = self.files.iter().flatten().filter(|other| other.tail.path() != path);
                !self.read.has(path, identity)
                    && !others.into_iter().any(|other| other.tail.identity() == Some(identity))
            });
            let idle = !file.ready && file.lines.rest() == 0;
            let read = file.tail.identity().and_then(|identity| Some((identity, file.tail.mark(identity)?)));
            let Some(file) = &mut self.files[number] else { continue };
            if here || !idle {
                file.gone = None;
            } else if file.gone.get_or_insert_with(Instant::now).elapsed() >= LINGER {
                tracing::info!(path = %file.tail.path().display(), "the file has gone and is not followed any more");
                self.metrics.set_trouble(&file.tail.path().display().to_string(), None);
                self.files[number] = None;
                self.intake.end(number);
                if let Some((identity, mark)) = read {
                    self.read.add(identity, mark, None);
                }
                self.changed = true;
            }
        }
    }
}

fn starts_alike(tail: &Tail, one: &New) -> bool {
    let head = open_regular(tail.path()).and_then(|file| bytes_at(&file, 0, SAMPLE));
    head.is_ok_and(|head| are_alike(&head, &one.head))
}
