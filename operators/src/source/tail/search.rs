//! Files that were rotated away: where a text has gone, and what came after it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Taken;
use super::names::{is_rotated, may_be_rotated, short_date};
use super::opened::Opened;
use super::place::{Identity, Known, Last, Place, are_alike, begins_with, identity, is_hollow, is_text};

mod candidate;

pub(super) use candidate::Refused;
use candidate::{Candidate, is_before, there};

/// Names of a folder that are looked at, and folders in it.
const MAX_NAMES: usize = 20_000;
const MAX_FOLDERS: usize = 64;

/// Where a search has led.
pub(super) enum Search {
    Found(Box<Opened>),
    /// Some of it is being compressed: ask again.
    Later,
    Gone,
}

/// Names of one log and the folders that they are in.
pub(super) struct Around {
    path: PathBuf,
    names: BTreeSet<(PathBuf, OsString)>,
}

impl Around {
    /// Around a log's name, what that links to, and where the log was before.
    pub fn new(path: &Path, at: Option<&Path>) -> Self {
        let real = fs::canonicalize(path).ok();
        let mut names = BTreeSet::new();
        for one in [path].into_iter().chain(real.as_deref()).chain(at) {
            let folder = one.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if let Some(name) = one.file_name() {
                names.insert((fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()), name.to_owned()));
            }
        }
        Self { path: path.to_owned(), names }
    }

    fn is_rotated(&self, other: &Path) -> bool {
        let is = |other: &OsStr| self.names.iter().any(|(_, name)| is_rotated(name, other));
        other.file_name().is_some_and(is)
    }

    /// The files in its folders, and rotated ones in folders below these (`olddir`).
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in self.names.iter().map(|(folder, _)| folder).collect::<BTreeSet<_>>() {
            let mut folders = Vec::new();
            for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_NAMES) {
                if folders.len() < MAX_FOLDERS && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
                found.push(entry.path());
            }
            for below in folders {
                let names = fs::read_dir(below).into_iter().flatten().flatten().take(MAX_NAMES);
                found.extend(names.map(|entry| entry.path()).filter(|path| self.is_rotated(path)));
            }
        }
        found
    }

    /// The rotated files, as far as they can be read.
    fn rotated(&self) -> io::Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for path in self.files() {
            let dates = self.names.iter().filter_map(|(_, name)| short_date(name, path.file_name()?));
            let date = dates.into_iter().next();
            if date.is_some() || self.is_rotated(&path) {
                let one = Candidate::look(&path)?;
                found.extend(one.filter(|one| date.is_none_or(|date| is_of_day(one.modified, date))));
            }
        }
        Ok(found)
    }

    /// Files that may be this log's by their names, of which nothing else tells, and that were last written to after `last`
    /// was: what they have is neither read nor known.
    pub fn unrecognised(&self, last: Last, known: &[Known], taken: &Taken<'_>) -> io::Result<Vec<PathBuf>> {
        let current = Candidate::look(&self.path)?;
        let read: BTreeSet<PathBuf> = self.rotated()?.into_iter().map(|one| one.path).collect();
        let files = self.files();
        let may_be = |path: &PathBuf| {
            let Some(name) = path.file_name() else { return false };
            let is_own = self.names.iter().any(|(folder, own)| {
                Some(folder.as_path()) == path.parent() && own != name && may_be_rotated(own, name)
            });
            // A rotated file of another log that is there.
            let is_others =
                || files.iter().any(|log| log != path && log.file_name().is_some_and(|log| is_rotated(log, name)));
            is_own && !read.contains(path) && !is_others()
        };
        let mut found = Vec::new();
        for path in files.iter().filter(|path| may_be(path)) {
            let Some(one) = Candidate::look(path)? else { continue };
            // Files of programs that watch the log stand beside it, too, but are no text of its kind.
            let is_kind = match current.as_ref().and_then(|current| current.head.first()) {
                Some(first) => one.fault().is_some() || one.head.first() == Some(first),
                None => true,
            };
            let is_copy = current.as_ref().is_some_and(|current| current.is_like(&one));
            if one.modified >= last.modified
                && one.length > 0
                && is_kind
                && !is_copy
                && !last.is(one.identity, &one.head)
                && !known.iter().any(|known| one.is(known))
                && !taken(&one.path, one.identity)
            {
                found.push(one.path);
            }
        }
        Ok(found)
    }

    /// The text of a place: the same file under whatever name, else another with the same beginning, such as a copy or a
    /// compressed one. `not` is a file that has another text by now.
    pub fn text(&self, place: &Place, not: Option<Identity>) -> io::Result<Search> {
        let own = |path: &Path| fs::metadata(path).is_ok_and(|found| identity(&found) == place.identity);
        let files = if not == Some(place.identity) { Vec::new() } else { self.files() };
        for path in std::iter::once(&self.path).filter(|_| not.is_none()).chain(&files).filter(|path| own(path)) {
            let packed = Candidate::look(path)?.filter(|one| one.packed && path != &self.path);
            let opened = match packed {
                Some(one) if begins_with(&one.head, place.head) => {
                    there(Opened::rotated(path, place.offset, one.modified))?
                }
                Some(_) => None,
                None => there(Opened::at(path, place))?.flatten(),
            };
            if let Some(opened) = opened.filter(|opened| opened.identity == place.identity) {
                return Ok(Search::Found(Box::new(opened)));
            }
        }
        if place.head.0 == 0 {
            return Ok(Search::Gone);
        }
        let mut like = self.rotated()?;
        like.extend(Candidate::look(&self.path)?);
        like.retain(|one| {
            let is_hollow = is_hollow(&one.head) && !one.packed && place.before.0 > 0;
            let is_alike = is_text(&one.head, place.head) || is_hollow && begins_with(&one.head, place.head);
            Some(one.identity) != not && is_alike
        });
        // The latest is the most complete; a file and what it is compressed to are equally old.
        like.sort_by_key(|one| (one.modified, !one.packed, one.length));
        for one in like.into_iter().rev() {
            if one.is_unfinished() {
                return Ok(Search::Later);
            }
            if !one.packed && (one.length < place.offset || !is_before(&one.path, place)?) {
                continue;
            }
            let opened = there(Opened::rotated(&one.path, place.offset, one.modified))?;
            if let Some(mut opened) = opened {
                opened.grows = fs::metadata(&self.path).is_ok_and(|named| identity(&named) == opened.identity);
                return Ok(Search::Found(Box::new(opened)));
            }
        }
        Ok(Search::Gone)
    }

    /// The file that came after one and was rotated away as well, the oldest if there are several, and where to begin in it.
    /// Those that cannot be read are said and added to `refused`. `last` is the file before; only files count that were not
    /// written to after the time of `until` and do not have the text that begins as it says.
    pub fn after(
        &self,
        last: Last,
        until: (i64, &[u8]),
        known: &[Known],
        taken: &Taken<'_>,
        refused: &mut Vec<Refused>,
    ) -> io::Result<Search> {
        let mut found = self.successors(last, until, known, taken, refused)?;
        while let Some(first) = found.first() {
            if let Some(why) = first.fault() {
                if first.is_unfinished() {
                    return Ok(Search::Later);
                }
                tracing::warn!(path = %first.path.display(), "{why}");
                refused.push(Refused::of(first));
                found.remove(0);
                continue;
            }
            // Copies of one text: the latest is the most complete.
            let same = found.iter().filter(|one| one.is_like(first));
            let best = same.max_by_key(|one| (one.modified, !one.packed, one.length)).unwrap_or(first);
            let read_to = best.read_to(known);
            if read_to.is_some_and(|to| !best.has_more(to)) {
                let first = found.remove(0);
                found.retain(|one| !one.is_like(&first));
                continue;
            }
            if best.is_unfinished() {
                return Ok(Search::Later);
            }
            let opened = there(Opened::rotated(&best.path, read_to.unwrap_or(0), first.modified))?;
            return match opened.filter(|opened| opened.identity == best.identity) {
                Some(opened) => Ok(Search::Found(Box::new(opened))),
                // Renamed meanwhile.
                None => Ok(Search::Later),
            };
        }
        Ok(Search::Gone)
    }

    /// The files that [`Around::after`] chooses from, the oldest first.
    fn successors(
        &self,
        last: Last,
        until: (i64, &[u8]),
        known: &[Known],
        taken: &Taken<'_>,
        refused: &[Refused],
    ) -> io::Result<Vec<Candidate>> {
        let current = Candidate::look(&self.path)?;
        let is_current =
            |one: &Candidate| current.as_ref().is_some_and(|now| now.is_like(one)) || are_alike(&one.head, until.1);
        let mut found = self.rotated()?;
        let folders = self.own_folders(&found, known);
        found.retain(|one| one.path.parent().is_some_and(|folder| folders.contains(folder)));
        found.retain(|one| {
            let later = (last.modified..=until.0).contains(&one.modified)
                || one.read_to(known).is_some_and(|to| one.has_more(to));
            later
                && one.length > 0
                && !last.is(one.identity, &one.head)
                && !is_current(one)
                && !taken(&one.path, one.identity)
                && !refused.iter().any(|refused| refused.is(one))
        });
        found.sort_by(|a, b| (a.modified, a.packed, &a.path).cmp(&(b.modified, b.packed, &b.path)));
        Ok(found)
    }

    /// The log's folders. One below them only if a file of this log's is there: others may have logs of the same name.
    fn own_folders(&self, rotated: &[Candidate], known: &[Known]) -> BTreeSet<PathBuf> {
        rotated
            .iter()
            .filter(|one| known.iter().any(|known| one.is(known)))
            .filter_map(|one| one.path.parent().map(Path::to_owned))
            .chain(self.names.iter().map(|(folder, _)| folder.clone()))
            .collect()
    }

    /// A text that was read to its end and has been written to since then.
    pub fn grown(&self, known: &[Known]) -> io::Result<Option<Opened>> {
        for one in self.rotated()? {
            if let Some(to) = one.read_to(known).filter(|to| one.has_more(*to)) {
                return Opened::rotated(&one.path, to, one.modified).map(Some);
            }
        }
        Ok(None)
    }
}

/// Whether a file that was last written to then, in ns since the epoch, may be called by this month and day: in some zone, or
/// on the day after.
fn is_of_day(modified: i64, date: (u32, u32)) -> bool {
    let days = [-1, 0, 1].map(|days| chrono::DateTime::from_timestamp_nanos(modified) + chrono::TimeDelta::days(days));
    days.iter().any(|day| (chrono::Datelike::month(day), chrono::Datelike::day(day)) == date)
}
