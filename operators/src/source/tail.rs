//! A log that grows, is truncated, is rotated, or is replaced by another of the same name.
//!
//! A text is known again by its file and by samples of its bytes: at its beginning and before the place up to which it was read.
//! So what a log had when it was rotated is found under its other name, in the copy that `copytruncate` makes, and in what
//! that was compressed to; a copy beside the log is not read again; and a file that was cut and written anew is read from its
//! beginning, however fast that went. Files that were rotated more than once since they were last read are taken in the order of
//! their last byte. What cannot be read any more is counted.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

mod names;
mod opened;
mod place;
mod search;
mod succession;
#[cfg(test)]
mod tests;

pub(super) use names::is_packed;
use opened::{Opened, Step};
pub(super) use opened::{open_regular, read};
pub(super) use place::{Identity, Mark, Place, SAMPLE, are_alike, bytes_at, identity};
use place::{Known, Last, is_text};
use search::{Around, Refused, Search};

/// How long a file that has been replaced is still read after its last byte: writers hold it open for a while.
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 500 });

/// The longest that a file which has been replaced keeps the next one waiting, though more is written to it.
const MAX_GRACE: Duration = Duration::from_secs(5);

/// How long a file that has been left is kept open though it is deleted: its bytes stay on the disk until then.
const KEEP: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 60_000 });

/// How long a file is left alone that could not be read, or that is being rotated.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 100 });

/// How many texts that were read before are known again.
const MAX_KNOWN: usize = 16;

/// How many rotated files that cannot be read are not tried again.
const MAX_REFUSED: usize = 256;

/// Where a file is begun of which no place is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Start {
    /// At its first line.
    #[default]
    Beginning,
    /// Behind its last line.
    End,
}

/// Says whether a file that has this path and identity is read under another name.
pub(super) type Taken<'a> = dyn Fn(&Path, Identity) -> bool + 'a;

/// Follows a file by name, as `tail -F` does.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    open: Option<Opened>,
    /// Where an earlier run was.
    resume: Option<Place>,
    start: Start,
    /// In bytes.
    max_line: usize,
    /// The file whose text was read before the next one.
    last: Option<Last>,
    /// Rotated files that cannot be read.
    refused: Vec<Refused>,
    /// Files that had the name meanwhile, the oldest first: a link that leads elsewhere leaves no name behind.
    coming: VecDeque<Opened>,
    /// The file that was read before, to which somebody may still write, and since when.
    left: Option<(Opened, Instant)>,
    /// Texts that were read before, the latest last.
    known: Vec<Known>,
    /// When it is looked again after something that takes time to mend.
    pause: Option<Instant>,
    /// Whether those were looked at again since the start.
    looked_back: bool,
    /// It goes on where an earlier run was, and has not come to the file of the name yet.
    catching_up: bool,
    /// Files that may be the log's and are not read: their names do not say it. Nobody has asked for them yet.
    unrecognised: Vec<PathBuf>,
    /// Counts files of which something was never read: gone, cut, or compressed in a way that cannot be read.
    skipped: Arc<AtomicU64>,
}

/// What a read of a followed file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many bytes came, perhaps none yet.
    Bytes(usize),
    /// Nothing new.
    Waiting,
    /// Nobody has looked: what was wrong a moment ago is given some time.
    Paused,
    /// What follows is another text: the file was truncated, or another has its name.
    Restarted,
}

impl Tail {
    /// Follows `path`, which need not exist yet. With a place reading goes on there: in the file of that name, or in what that
    /// has become. If neither is there any more, what came after it is read, then the file of that name from its beginning.
    pub(super) fn new(
        path: PathBuf,
        place: Option<Place>,
        start: Start,
        max_line: usize,
        skipped: Arc<AtomicU64>,
    ) -> Self {
        let known = place.iter().flat_map(|place| place.earlier.clone()).collect();
        Self {
            path,
            open: None,
            catching_up: place.is_some(),
            unrecognised: Vec::new(),
            resume: place,
            start,
            max_line,
            last: None,
            refused: Vec::new(),
            coming: VecDeque::new(),
            left: None,
            known,
            pause: None,
            looked_back: false,
            skipped,
        }
    }

    /// The name that is followed.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that is read.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.open.as_ref().map(|open| open.identity).or_else(|| self.resume.as_ref().map(|place| place.identity))
    }

    /// Whether the file is read, or open because it was read before.
    pub(super) fn has(&self, identity: Identity) -> bool {
        self.identity() == Some(identity) || self.left.as_ref().is_some_and(|(left, _)| left.identity == identity)
    }

    /// By what the file that is read, or was read before, is known again.
    pub(super) fn mark(&self, identity: Identity) -> Option<Mark> {
        let left = self.left.as_ref().map(|(left, _)| left);
        self.open.iter().chain(left).find(|one| one.identity == identity).and_then(Opened::mark)
    }

    /// The beginning of the text that is read, and how far.
    pub(super) fn head(&self) -> Option<(&[u8], u64)> {
        self.open.as_ref().map(|open| (open.head.as_slice(), open.read))
    }

    /// Where reading is, `unread` bytes before the end of what was read.
    pub(super) fn place(&self, unread: usize) -> Option<Place> {
        let Some(open) = &self.open else { return self.resume.clone() };
        let mut place = Place { earlier: self.known.clone(), ..open.place(unread) };
        if let (0, Some(before)) = (place.offset, self.last) {
            // Others may have been there between that one and this.
            place.modified = before.modified;
        }
        Some(place)
    }

    /// Files beside the log that may have been rotated away from it while nobody read, and that are not read because nothing says
    /// so for certain; each once.
    pub(super) fn unrecognised(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.unrecognised)
    }

    /// Whether a text that begins with `head` was read here before, and up to where.
    pub(super) fn knows_of(&self, head: &[u8]) -> Option<u64> {
        self.known.iter().rev().find(|known| known.is(head)).map(|known| known.to)
    }

    /// Whether a text that begins with `head` is the one in which an earlier run was, and has not been found yet.
    pub(super) fn awaits(&self, head: &[u8]) -> bool {
        self.resume.as_ref().is_some_and(|place| is_text(head, place.head))
    }

    /// Whether the file has more than was read.
    pub(super) fn has_more(&self) -> bool {
        self.open.as_ref().is_some_and(Opened::has_grown)
    }

    /// Tries whether the file can be read, if it exists.
    ///
    /// # Errors
    /// What keeps it from being read.
    pub(super) fn probe(path: &Path) -> Result<(), String> {
        match open_regular(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(fault(path, &error)),
            _ => Ok(()),
        }
    }

    /// Reads on. `taken` says which files are read under other names.
    ///
    /// # Errors
    /// What keeps the file from being read now. Nothing is lost by it: the next call tries again.
    pub(super) fn read(&mut self, room: &mut [u8], taken: &Taken<'_>) -> Result<Progress, String> {
        if self.pause.take_if(|until| *until <= Instant::now()).is_none() && self.pause.is_some() {
            return Ok(Progress::Paused);
        }
        self.step(room, taken).map_err(|error| {
            self.pause = Some(Instant::now() + PAUSE);
            fault(&self.path, &error)
        })
    }

    /// What is being rotated just now is given some time.
    fn pause(&mut self) -> Progress {
        self.pause = Some(Instant::now() + PAUSE);
        Progress::Paused
    }

    fn step(&mut self, room: &mut [u8], taken: &Taken<'_>) -> io::Result<Progress> {
        self.left.take_if(|(left, since)| since.elapsed() >= KEEP && left.is_deleted());
        let Some(open) = &mut self.open else { return self.begin(taken) };
        let is_first = open.read == 0 && open.grows;
        match open.read(room)? {
            Step::Bytes(1..) if is_first && self.is_ahead(taken)? => Ok(Progress::Restarted),
            Step::Bytes(bytes) => Ok(Progress::Bytes(bytes)),
            Step::End => self.at_end(taken),
            Step::Other(lost) => self.rewritten(lost),
            Step::Damaged(why) => self.damaged(&why, taken),
        }
    }

    /// The rest of a compressed file is lost.
    fn damaged(&mut self, why: &str, taken: &Taken<'_>) -> io::Result<Progress> {
        let Some(open) = &self.open else { return Ok(Progress::Waiting) };
        self.skipped.fetch_add(1, Relaxed);
        let path = open.at.display();
        tracing::warn!(%path, why, "the rest of a compressed file cannot be read and is lost");
        self.next(taken)
    }

    /// Opens the first file.
    fn begin(&mut self, taken: &Taken<'_>) -> io::Result<Progress> {
        if let Some(place) = &self.resume {
            let opened = match Around::new(&self.path, Some(Path::new(&place.at))).text(place, None)? {
                Search::Found(opened) => *opened,
                Search::Later => return Ok(self.pause()),
                Search::Gone => {
                    self.skipped.fetch_add(1, Relaxed);
                    let (path, offset) = (self.path.display(), place.offset);
                    tracing::warn!(%path, offset, "the file that was read up to here is gone or was cut: what followed is lost");
                    // An older position does not say when its file was written to.
                    self.last = Some(last_of(place)).filter(|last| last.modified > 0);
                    self.resume = None;
                    return Ok(Progress::Bytes(0));
                }
            };
            // Of a text that has not begun another may have come before it.
            self.last = Some(last_of(place)).filter(|last| place.offset == 0 && last.modified > 0);
            self.resume = None;
            self.follow(opened, "goes on at the saved position");
            return Ok(Progress::Bytes(0));
        }
        if let Some(last) = self.last {
            return self.succeed(last, taken);
        }
        let named = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // From its first line on, whenever that comes.
                self.start = Start::Beginning;
                return Ok(Progress::Waiting);
            }
            named => named?,
        };
        if taken(&self.path, identity(&named)) {
            return Ok(Progress::Waiting);
        }
        match std::mem::take(&mut self.start) {
            Start::Beginning => {
                let opened = Opened::new(&self.path)?;
                self.last = Some(opened.last());
                self.follow(opened, "begins at the beginning");
            }
            Start::End => {
                let opened = Opened::at_end(&self.path, self.max_line).inspect_err(|_| self.start = Start::End)?;
                self.follow(opened, "begins at the end");
            }
        }
        Ok(Progress::Restarted)
    }

    fn follow(&mut self, opened: Opened, what: &str) {
        let (file, offset) = (opened.at.display(), opened.read);
        tracing::info!(target: "follow", path = %self.path.display(), %file, offset, "following a file: {what}");
        self.open = Some(opened);
    }

    /// Begins with a file of which the first bytes are read already under another name.
    pub(super) fn begin_at(&mut self, offset: u64) -> Result<(), String> {
        let opened = Opened::new(&self.path).and_then(|opened| opened.from(offset));
        let opened = opened.map_err(|error| fault(&self.path, &error))?;
        self.follow(opened, "a copy, of which only what comes is read");
        Ok(())
    }

    /// There is nothing more in the file: another may have come in its place.
    fn at_end(&mut self, taken: &Taken<'_>) -> io::Result<Progress> {
        let Some(open) = &mut self.open else { return Ok(Progress::Waiting) };
        let named = match fs::metadata(&self.path) {
            // A name that is gone may come back; until then the file is read on.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Progress::Waiting),
            named => named?,
        };
        if identity(&named) == open.identity {
            open.replaced = None;
            return self.look_back();
        }
        if taken(&self.path, identity(&named)) {
            return Ok(Progress::Waiting);
        }
        let now = Instant::now();
        let (first, since) = *open.replaced.get_or_insert((now, now));
        if self.coming.back().is_none_or(|last| last.identity != identity(&named)) && self.coming.len() < MAX_KNOWN {
            self.coming.push_back(Opened::new(&self.path)?);
        }
        // What is written to as long as the next one is empty is not left yet.
        let is_left = named.len() > 0 || !open.grows;
        let waits = since.elapsed() < GRACE && first.elapsed() < MAX_GRACE;
        if waits && (open.grows || !open.ends_line()) {
            return Ok(Progress::Waiting);
        }
        if !is_left {
            open.replaced = Some((now, now));
        }
        self.next(taken)
    }

    /// Remembers a text and how far it was read.
    fn knows(&mut self, text: &Opened) {
        self.remember(text.known());
    }

    fn remember(&mut self, text: Option<Known>) {
        self.known.extend(text);
        self.known.drain(..self.known.len().saturating_sub(MAX_KNOWN));
    }
}

/// A file that is not open.
fn last_of(place: &Place) -> Last {
    Last { identity: place.identity, modified: place.modified, head: place.head, held: false }
}

/// The file of a name, if it is there.
pub(super) fn named(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|found| identity(&found))
}

fn fault(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}
