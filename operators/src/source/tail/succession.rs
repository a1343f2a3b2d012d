//! What is read after a file: the one that was rotated next, the one that has the name, or one that was read before.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::opened::Opened;
use super::place::{Known, Last, identity, is_telling};
use super::search::{Around, Search};
use super::{MAX_REFUSED, Progress, Tail, Taken, named};

impl Tail {
    /// Goes on to the next file.
    pub(super) fn next(&mut self, taken: &Taken<'_>) -> io::Result<Progress> {
        let Some(open) = &self.open else { return Ok(Progress::Waiting) };
        // Of a text that has not begun others may have come before.
        let mut last = open.last();
        if let Some(before) = self.last.filter(|_| open.read == 0) {
            last.modified = before.modified;
        }
        self.succeed(last, taken)
    }

    /// Whether a text that begins just now is not the next one: before it others were there, all between two looks.
    pub(super) fn is_ahead(&mut self, taken: &Taken<'_>) -> io::Result<bool> {
        let Some(last) = self.last else { return Ok(false) };
        let open = self.open.as_ref().map(|open| (open.modified(), open.head.clone()));
        let (until, head) = open.unwrap_or_default();
        let found = self.after(last, (until, &head), &self.known.clone(), taken);
        let Some(open) = &mut self.open else { return Ok(false) };
        let found = found.inspect_err(|_| drop(open.rewind()))?;
        match found {
            Search::Gone => {
                self.last = None;
                Ok(false)
            }
            Search::Later => {
                open.rewind()?;
                self.pause();
                Ok(true)
            }
            Search::Found(before) => {
                tracing::info!(path = %self.path.display(), file = %before.at.display(), "following a file that came before");
                self.open = Some(*before);
                Ok(true)
            }
        }
    }

    /// The rotated file that comes after another, as [`Around::after`] says.
    fn after(&mut self, last: Last, until: (i64, &[u8]), known: &[Known], taken: &Taken<'_>) -> io::Result<Search> {
        let around = Around::new(&self.path, self.open.as_ref().map(|open| open.at.as_path()));
        let mut open = self.open.iter().chain(self.left.as_ref().map(|(left, _)| left));
        let last = Last { held: open.any(|open| open.identity == last.identity), ..last };
        let before = self.refused.len();
        let found = around.after(last, until, known, taken, &mut self.refused);
        self.skipped.fetch_add((self.refused.len() - before) as u64, Relaxed);
        self.refused.drain(..self.refused.len().saturating_sub(MAX_REFUSED));
        found
    }

    /// The texts that were read, and up to where.
    fn all_known(&self) -> Vec<Known> {
        self.known.iter().cloned().chain(self.open.as_ref().and_then(Opened::known)).collect()
    }

    /// Opens the file that comes after another.
    pub(super) fn succeed(&mut self, last: Last, taken: &Taken<'_>) -> io::Result<Progress> {
        let (next, text_goes_on) = match self.after(last, (i64::MAX, &[]), &self.all_known(), taken)? {
            Search::Later => return Ok(self.pause()),
            Search::Found(opened) => (*opened, false),
            Search::Gone if self.catching_up => {
                // Files that came in between were rotated away while nobody looked, under whatever names.
                let around = Around::new(&self.path, self.open.as_ref().map(|open| open.at.as_path()));
                self.unrecognised = around.unrecognised(last, &self.all_known(), taken)?;
                self.catching_up = false;
                return self.succeed(last, taken);
            }
            Search::Gone => match self.came() {
                Some(opened) => (opened, false),
                None => match self.named(&self.all_known(), taken)? {
                    Some(found) => found,
                    None => {
                        self.pause();
                        return Ok(Progress::Waiting);
                    }
                },
            },
        };
        self.coming.retain(|one| one.identity != next.identity);
        let before = self.open.replace(next);
        self.last = Some(last);
        if let Some(before) = before {
            self.knows(&before);
            self.left = Some((before, Instant::now()));
        }
        if let Some(open) = &self.open {
            let first = open.first()?;
            self.known.retain(|known| !known.is(&first));
            tracing::info!(path = %self.path.display(), file = %open.at.display(), offset = open.read, "following the next file");
        }
        Ok(if text_goes_on { Progress::Bytes(0) } else { Progress::Restarted })
    }

    /// The oldest of the files that had the name meanwhile and have not been read, unless it still has it.
    fn came(&mut self) -> Option<Opened> {
        let known = self.all_known();
        let now = named(&self.path);
        self.coming.retain(|one| {
            let is_known = one.first().is_ok_and(|head| known.iter().any(|known| known.is(&head)));
            one.has_grown() && Some(one.identity) != now && !is_known
        });
        self.coming.pop_front()
    }

    /// The file of the name, unless it is empty while the one before may still be written to, and whether its text is the same
    /// as before.
    fn named(&self, known: &[Known], taken: &Taken<'_>) -> io::Result<Option<(Opened, bool)>> {
        let named = match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            named => named?,
        };
        if taken(&self.path, identity(&named)) || named.len() == 0 && self.open.as_ref().is_some_and(|open| open.grows)
        {
            return Ok(None);
        }
        if let Some(open) = self.open.as_ref().filter(|open| is_telling(&open.head))
            && let Some(same) = Opened::at(&self.path, &open.place(0))?
        {
            return Ok(Some((same, true)));
        }
        let opened = Opened::new(&self.path)?;
        let head = opened.first()?;
        let read = known.iter().rev().find(|known| known.to <= named.len() && known.is(&head));
        match read {
            Some(known) => Ok(Some((opened.from(known.to)?, false))),
            None => Ok(Some((opened, false))),
        }
    }

    /// The file was cut, and may have been written to again: what had not been read is in the copy, if one was made.
    pub(super) fn rewritten(&mut self, lost: u64) -> io::Result<Progress> {
        let Some(open) = &mut self.open else { return Ok(Progress::Waiting) };
        let place = open.place(0);
        let around = Around::new(&self.path, Some(&open.at));
        let copy = match around.text(&place, Some(open.identity))? {
            Search::Later => return Ok(self.pause()),
            Search::Found(copy) => Some(*copy),
            Search::Gone => None,
        };
        if let Some(copy) = copy {
            tracing::info!(path = %self.path.display(), copy = %copy.at.display(), "the file was cut: what was not read is in the copy");
            self.open = Some(copy);
            return Ok(Progress::Bytes(0));
        }
        if lost > 0 {
            self.skipped.fetch_add(1, Relaxed);
            tracing::warn!(path = %self.path.display(), bytes = lost, "the file was cut before all of it was read: what followed is lost");
        } else {
            tracing::info!(path = %self.path.display(), "the file was cut, and is read from its beginning");
        }
        let known = open.known();
        self.last = Some(open.last());
        open.rewind()?;
        self.remember(known);
        Ok(Progress::Restarted)
    }

    /// Goes back to a file that was read before, if more has been written to it.
    pub(super) fn look_back(&mut self) -> io::Result<Progress> {
        let Some(open) = &self.open else { return Ok(Progress::Waiting) };
        if !open.ends_line() {
            return Ok(Progress::Waiting);
        }
        let mut grown = self.left.take_if(|(left, _)| left.has_grown()).map(|(left, _)| left);
        if !std::mem::replace(&mut self.looked_back, true) && grown.is_none() && !self.known.is_empty() {
            grown = Around::new(&self.path, Some(&open.at)).grown(&self.known)?;
        }
        let Some(mut grown) = grown else { return Ok(Progress::Waiting) };
        grown.grows = false;
        grown.replaced = None;
        tracing::info!(path = %self.path.display(), file = %grown.at.display(), "following a file again that is still written to");
        let first = grown.first()?;
        self.known.retain(|known| !known.is(&first));
        if let Some(before) = self.open.replace(grown) {
            self.knows(&before);
        }
        Ok(Progress::Restarted)
    }
}
