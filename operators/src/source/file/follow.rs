//! Files that are followed side by side, each from its own place.
//!
//! What a log has of lines that a start reads again is known by the position of the line in its file, so a start after a crash
//! gives every line once, in whatever order the files are read then.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Resume;
use engine::contract::wall_clock_ns;
use engine::contract::{Poll, Reader};

use super::super::intake::{Intake, Settings};
use super::super::lines::Lines;
use super::super::numbers::{MAX_FILES, Numbers};
use super::super::paths::Pattern;
use super::super::tail::{self, Place, Start, Tail};
use super::saved::{Saved, SavedFile, name, path_of};
use super::seats::{self, MAX_FOLLOWED, Seat};

mod discover;
mod look;
mod read;
#[cfg(test)]
mod tests;

use look::Trouble;
use read::Read;

/// Files that are looked at in a turn though they had nothing new the last time.
const LOOKS: usize = 16;

/// Reads of files before others have their turn, though no batch is full.
const READS: usize = 64;

/// How often the places of several files are noted at most, and how many bytes of them a second.
const NOTE_EVERY: Duration = Duration::from_millis(200);
const NOTE_BYTES: usize = 256 << 10;

/// The longest that a note waits.
const NOTE_LATEST: Duration = Duration::from_secs(2);

/// What is followed.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub paths: Vec<PathBuf>,
    pub patterns: Vec<Pattern>,
    pub start: Start,
}

impl Followed {
    /// Whether there is one file, whatever happens.
    fn is_one(&self) -> bool {
        self.paths.len() == 1 && self.patterns.is_empty()
    }
}

/// Follows files on the worker that owns the source.
pub(super) struct FollowReader {
    followed: Followed,
    /// By their numbers.
    files: Vec<Option<FollowedFile>>,
    /// Files that a pattern matches and that are read under other names.
    read: Read,
    /// When it was last looked which files match.
    discovered: Option<Instant>,
    /// The file that was looked at last.
    turn: usize,
    intake: Intake,
    metrics: Arc<NodeMetrics>,
    skipped: Arc<AtomicU64>,
    /// Files that match and cannot be read.
    denied: HashSet<String>,
    /// Files for which there is no place.
    refused: HashSet<PathBuf>,
    /// There is something to note, and whether that waits no longer.
    changed: bool,
    notes: bool,
    /// When something was noted last, and how long the next waits.
    noted: Option<(Instant, Duration)>,
    /// Bytes of the last note.
    noted_bytes: Cell<usize>,
    max_line: usize,
    stopping: bool,
}

/// A file that is followed.
struct FollowedFile {
    _seat: Seat,
    tail: Tail,
    lines: Lines,
    /// There may be more to read at once.
    ready: bool,
    trouble: Option<Trouble>,
    /// Found by a pattern, and not any more since then.
    gone: Option<Instant>,
}

impl FollowReader {
    /// Goes on where an earlier run was, or begins.
    ///
    /// # Errors
    /// Which file cannot be read, and why; one that does not exist may come later.
    pub(super) fn open(
        followed: &Followed,
        settings: &Settings,
        resume: &Resume,
        metrics: &Arc<NodeMetrics>,
    ) -> Result<Self, String> {
        let saved = Saved::of(resume)?;
        let one = followed.is_one();
        let counted = one && !matches!(saved, Some(Saved::Several { .. }));
        let mut reader = Self {
            followed: followed.clone(),
            files: Vec::new(),
            read: Read::default(),
            discovered: None,
            turn: 0,
            intake: if counted {
                Intake::new(settings, resume, metrics)
            } else {
                Intake::of_files(settings, resume.watermark, Numbers::new(resume.seq, !one), metrics)
            },
            metrics: Arc::clone(metrics),
            skipped: metrics.counter("skipped_files"),
            denied: HashSet::new(),
            refused: HashSet::new(),
            changed: true,
            notes: false,
            noted: None,
            noted_bytes: Cell::new(0),
            max_line: settings.max_line,
            stopping: false,
        };
        for path in &followed.paths {
            Tail::probe(path)?;
        }
        let start = if saved.is_some() { Start::Beginning } else { followed.start };
        match saved {
            Some(Saved::One(place)) if one => reader.add(0, &followed.paths[0], Some(place), 0, start),
            saved => reader.resume(saved, resume),
        }
        for path in &followed.paths {
            // One that was not named before begins where the option says. If there is no place it is tried again.
            let _ = reader.add_free(path, followed.start);
        }
        reader.discover(start, true)?;
        Ok(reader)
    }

    /// Goes on with the files that are still followed.
    fn resume(&mut self, saved: Option<Saved>, resume: &Resume) {
        let (Some(saved), Some(cursor)) = (saved, &resume.cursor) else { return };
        let was_one = matches!(saved, Saved::One(_));
        let identities: Vec<_> = self.followed.paths.iter().map(|path| (path.as_path(), tail::named(path))).collect();
        let (files, read) = saved.several(&identities);
        self.read = Read::new(read);
        let candidates: Vec<PathBuf> = self.followed.patterns.iter().flat_map(Pattern::files).collect();
        for SavedFile { path: saved, number, lines, place } in files {
            let mut paths = self.followed.paths.iter().chain(&candidates);
            let path = paths.find(|path| name(path) == saved).cloned();
            // One whose name is gone may have been rotated.
            let path = path.or_else(|| {
                let path = path_of(&saved)?;
                self.followed.patterns.iter().any(|pattern| pattern.matches(&path)).then_some(path)
            });
            if let Some(path) = path {
                self.add(number, &path, place, lines, Start::Beginning);
            }
        }
        if was_one {
            self.intake.pass_over_lines(0, cursor.seq, &cursor.logged);
        } else {
            self.intake.pass_over(&cursor.logged);
        }
    }

    /// Follows a file under a number, of which `lines` were read before the place.
    fn add(&mut self, number: usize, path: &Path, place: Option<Place>, lines: u64, start: Start) {
        let directives = place.as_ref().and_then(|place| place.directives.clone());
        let tail = Tail::new(path.to_owned(), place, start, self.max_line, Arc::clone(&self.skipped));
        let expected = if self.followed.is_one() { 1 } else { MAX_FILES / 8 };
        let file = FollowedFile {
            _seat: Seat::take(),
            tail,
            lines: Lines::of_several(self.max_line, expected),
            ready: true,
            trouble: None,
            gone: None,
        };
        self.files.resize_with(self.files.len().max(number + 1), || None);
        self.files[number] = Some(file);
        self.intake.begin(number, lines);
        if let Some(directives) = directives {
            self.intake.remember(number, &directives);
        }
        self.changed = true;
    }

    /// Follows a file under the next number that is free, unless it is followed already; `None` if there is none.
    fn add_free(&mut self, path: &Path, start: Start) -> Option<usize> {
        let has = |file: &Option<FollowedFile>| file.as_ref().is_some_and(|file| file.tail.path() == path);
        if let Some(at) = self.files.iter().position(has) {
            return Some(at);
        }
        let free = self.files.iter().position(Option::is_none).unwrap_or(self.files.len());
        if self.is_full() {
            return None;
        }
        self.add(free, path, None, 0, start);
        Some(free)
    }

    /// Whether no more files can be followed.
    fn is_full(&self) -> bool {
        !self.followed.is_one() && (self.files.iter().flatten().count() >= MAX_FOLLOWED || seats::free() == 0)
    }

    /// Reads until a batch is full or nothing new is there.
    fn read(&mut self) -> Result<Poll, String> {
        if self.stopping {
            self.intake.finish();
            return Ok(Poll::Done);
        }
        self.discover(Start::Beginning, false)?;
        for _ in 0..LOOKS.min(self.files.len()) {
            self.turn = (self.turn + 1) % self.files.len();
            if self.files[self.turn].as_ref().is_some_and(|file| !file.ready) {
                self.look(self.turn);
            }
        }
        for _ in 0..READS {
            let Some((number, limit)) = self.choose() else {
                self.intake.idle_without(wall_clock_ns());
                return Ok(Poll::Idle);
            };
            self.changed = true;
            let Some(file) = &mut self.files[number] else { continue };
            let mut passed = false;
            while !passed && let Some(line) = file.lines.next() {
                if self.intake.take_of(number, line) {
                    return Ok(Poll::Ready);
                }
                passed = self.intake.time_of(number) > limit;
            }
            if !passed {
                self.look(number);
            }
        }
        Ok(Poll::Ready)
    }

    /// Of the files that may have more to read the one that is furthest behind, and the time of the next one.
    fn choose(&self) -> Option<(usize, i64)> {
        let mut first: Option<(i64, usize)> = None;
        let mut limit = i64::MAX;
        for (number, file) in self.files.iter().enumerate() {
            if !file.as_ref().is_some_and(|file| file.ready) {
                continue;
            }
            let own = (self.intake.time_of(number), number);
            if first.is_none_or(|first| own < first) {
                limit = first.map_or(limit, |(time, _)| limit.min(time));
                first = Some(own);
            } else {
                limit = limit.min(own.0);
            }
        }
        first.map(|(_, number)| (number, limit))
    }

    /// Says which files may have lines of this log that are not read.
    fn say_unrecognised(&self, tail: &mut Tail) {
        let is_followed = |path: &PathBuf| {
            self.followed.paths.contains(path) || self.followed.patterns.iter().any(|pattern| pattern.matches(path))
        };
        for path in tail.unrecognised().iter().filter(|path| !is_followed(path)) {
            self.skipped.fetch_add(1, Relaxed);
            let (file, log) = (path.display(), tail.path().display());
            let text = format!(
                "{file} may have been rotated away from {log} while nobody read it, but its name does not say so: it is not read. \
                 If it is, read it with a `source.file` of its own"
            );
            tracing::warn!("{text}");
            self.metrics.set_trouble(&file.to_string(), Some(text));
        }
    }
}

/// How long the next note waits after one of so many bytes.
fn pause_after(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / NOTE_BYTES as f64).clamp(NOTE_EVERY, NOTE_LATEST)
}

impl Reader for FollowReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        self.intake.look_at_clock();
        let result = self.read();
        self.intake.flush(out)?;
        let due = self.noted.is_none_or(|(at, wait)| at.elapsed() >= wait);
        self.notes = self.followed.is_one() || self.stopping || due && self.changed;
        if self.notes {
            self.changed = false;
            self.noted = Some((Instant::now(), pause_after(self.noted_bytes.get())));
        }
        result
    }

    fn watermark(&self) -> Time {
        self.intake.watermark()
    }

    /// Of several files not each time: places are many bytes, and what was read since then is known by its positions.
    fn cursor(&self) -> Option<(u64, Vec<u8>)> {
        if !self.notes {
            return None;
        }
        let place = |file: &FollowedFile, number| {
            let directives = self.intake.memory(number);
            file.tail.place(file.lines.rest()).map(|place| Place { directives, ..place })
        };
        let saved = if self.followed.is_one() {
            let mut files = self.files.iter().enumerate();
            Saved::One(files.find_map(|(number, file)| place(file.as_ref()?, number))?)
        } else {
            let files = self.files.iter().enumerate().filter_map(|(number, file)| {
                let file = file.as_ref()?;
                let (path, lines) = (name(file.tail.path()), self.intake.lines_of(number));
                Some(SavedFile { path, number, lines, place: place(file, number) })
            });
            Saved::Several { files: files.collect(), read: self.read.list() }
        };
        let words = serde_json::to_vec(&saved).ok()?;
        self.noted_bytes.set(words.len());
        Some((self.intake.seq(), words))
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}
