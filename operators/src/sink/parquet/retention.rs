//! What of a table's files is removed, by age and by size.
//!
//! Age is of event time: a day of rows goes as a whole, once it has ended longer ago than `retain` by the table's own time,
//! which is how far its rows are confirmed, or its latest row. So a run over an old recording keeps what it writes, and the same input
//! leaves the same files. Files of the day in which that time is, and later ones, always stay.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use engine::batch::Time;
use engine::contract::Segment;

use super::store::{entries, there};
use crate::value::Format;

const MS_PER_DAY: u64 = 86_400_000;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retention {
    /// For how long after its end a day is kept.
    pub retain: Option<Duration>,
    /// The most bytes of a table's files.
    pub max_bytes: Option<u64>,
}

/// A table's files, the oldest first: by day, then by name, which begins with the first tick.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<(String, String), Segment>,
    bytes: u64,
}

/// What is to be removed, for one reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Old {
    /// The option that says so.
    pub option: &'static str,
    pub segments: Vec<Segment>,
}

impl Retention {
    pub fn is_set(&self) -> bool {
        self.retain.is_some() || self.max_bytes.is_some()
    }
}

impl Files {
    /// Every file beneath a table's directory, also one that is not shown. `found` are those that are.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn list(dir: &Path, found: &[Segment]) -> io::Result<Self> {
        let found: BTreeMap<&Path, &Segment> = found.iter().map(|segment| (segment.path.as_path(), segment)).collect();
        let mut files = Self::default();
        for day in entries(dir)?.into_iter().filter(|path| path.is_dir()) {
            for path in there(entries(&day))? {
                match found.get(path.as_path()) {
                    Some(segment) => files.add(segment),
                    None => {
                        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                        files.add(&Segment::new(path, 0, bytes));
                    }
                }
            }
        }
        Ok(files)
    }

    /// Adds a file, if it is one of a day.
    pub fn add(&mut self, segment: &Segment) {
        let Some(name) = name(&segment.path) else { return };
        let Some(day) = segment.path.parent().and_then(name_of_day) else { return };
        if name.starts_with('.') || !name.ends_with(".parquet") {
            return;
        }
        self.bytes += segment.bytes;
        if let Some(before) = self.files.insert((day, name), segment.clone()) {
            self.bytes -= before.bytes;
        }
    }

    /// Takes out what is not kept any more at `now`, in ms of event time.
    pub fn take_old(&mut self, retention: &Retention, now: Time) -> Vec<Old> {
        let mut all = Vec::new();
        let limit = |retain: Duration| now.checked_sub(u64::try_from(retain.as_millis()).ok()?);
        if let Some(limit) = retention.retain.and_then(limit) {
            all.push(Old { option: "retain", segments: self.take_before(&day(limit), |_| true) });
        }
        if let Some(most) = retention.max_bytes {
            all.push(Old { option: "max_bytes", segments: self.take_before(&day(now), |bytes| bytes > most) });
        }
        all.retain(|old| !old.segments.is_empty());
        all
    }

    /// Takes out the oldest files of days before `day` while `more` says so of the bytes that are left.
    fn take_before(&mut self, day: &str, more: impl Fn(u64) -> bool) -> Vec<Segment> {
        let mut taken = Vec::new();
        while more(self.bytes)
            && let Some(first) = self.files.first_entry().filter(|first| first.key().0.as_str() < day)
        {
            let segment = first.remove();
            self.bytes -= segment.bytes;
            taken.push(segment);
        }
        taken
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Removes a file of which the served table has let go, and its day's directory with the last one. One that is gone already is
/// removed. False if a query still reads it: then it stays for now.
///
/// # Errors
/// If the file is there and stays.
pub(super) fn remove(segment: &Segment) -> io::Result<bool> {
    if segment.is_shared() {
        return Ok(false);
    }
    there(fs::remove_file(&segment.path))?;
    if let Some(day) = segment.path.parent() {
        // It has other files, unless it was the last.
        let _ = fs::remove_dir(day);
    }
    Ok(true)
}

/// The days of segments that are in order, for messages.
pub(super) fn days(segments: &[Segment]) -> String {
    let day = |segment: Option<&Segment>| segment.and_then(|s| name_of_day(s.path.parent()?)).unwrap_or_default();
    let (first, last) = (day(segments.first()), day(segments.last()));
    if first == last { first } else { format!("{first} to {last}") }
}

/// The UTC day of a time in ms, as directories are named.
fn day(time: Time) -> String {
    let mut text = Vec::new();
    Format::default().date(&mut text, i64::try_from(time / MS_PER_DAY).unwrap_or(i64::MAX));
    String::from_utf8_lossy(&text).into_owned()
}

fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// The directory's name, if it is a day.
fn name_of_day(dir: &Path) -> Option<String> {
    let shape = |(at, c): (usize, char)| if at == 4 || at == 7 { c == '-' } else { c.is_ascii_digit() };
    name(dir).filter(|name| name.len() == 10 && name.chars().enumerate().all(shape))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    /// 2026-11-23 12:00.
    const NOON: Time = 20_780 * MS_PER_DAY + MS_PER_DAY / 2;

    fn files() -> Files {
        let mut files = Files::default();
        for (day, name, bytes) in [
            ("2026-11-23", "3", 30),
            ("2026-11-21", "1", 10),
            ("2026-11-22", "2", 20),
            ("2026-11-22", "1", 20),
            ("2026-12-24", "4", 5),
            ("other", "1", 1000),
        ] {
            let path = PathBuf::from(format!("/t/{day}/{name}.parquet"));
            files.add(&Segment::new(path, 1, bytes));
        }
        files
    }

    fn taken(retain: Option<Duration>, max_bytes: Option<u64>, now: Time) -> Vec<(&'static str, String, usize)> {
        let old = files().take_old(&Retention { retain, max_bytes }, now);
        old.iter().map(|old| (old.option, days(&old.segments), old.segments.len())).collect()
    }

    #[test]
    fn a_day_goes_when_it_has_ended_for_so_long() {
        assert_eq!(taken(Some(DAY), None, NOON), [("retain", "2026-11-21".to_owned(), 1)]);
        let midnight = NOON + MS_PER_DAY / 2;
        assert_eq!(taken(Some(DAY), None, midnight - 1), [("retain", "2026-11-21".to_owned(), 1)]);
        assert_eq!(taken(Some(DAY), None, midnight), [("retain", "2026-11-21 to 2026-11-22".to_owned(), 3)]);
        assert_eq!(taken(Some(DAY / 24), None, NOON), [("retain", "2026-11-21 to 2026-11-22".to_owned(), 3)]);
        assert!(taken(Some(30 * DAY), None, NOON).is_empty());
        assert!(taken(Some(DAY), None, 0).is_empty(), "nothing is known of the time yet");
    }

    #[test]
    fn the_oldest_go_until_the_rest_is_small_enough_but_not_todays() {
        assert!(taken(None, Some(85), NOON).is_empty());
        assert_eq!(taken(None, Some(84), NOON), [("max_bytes", "2026-11-21".to_owned(), 1)]);
        assert_eq!(taken(None, Some(60), NOON), [("max_bytes", "2026-11-21 to 2026-11-22".to_owned(), 2)]);
        assert_eq!(taken(None, Some(1), NOON), [("max_bytes", "2026-11-21 to 2026-11-22".to_owned(), 3)]);
        let mut files = files();
        files.take_old(&Retention { retain: Some(DAY), max_bytes: Some(1) }, NOON);
        assert_eq!(files.bytes(), 35, "of today and later");
    }

    #[test]
    fn a_file_that_a_query_reads_stays_until_it_has_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let day = dir.path().join("2026-11-21");
        fs::create_dir(&day).expect("made");
        let path = day.join("1.parquet");
        fs::write(&path, "rows").expect("written");
        let found = [Segment::new(path.clone(), 1, 4)];
        let mut files = Files::list(dir.path(), &found).expect("listed");
        let mut take =
            || files.take_old(&Retention { retain: Some(DAY), max_bytes: None }, NOON).remove(0).segments.remove(0);
        let segment = take();
        assert!(
            !remove(&segment).expect("no fault") && path.exists(),
            "the table that was found has it, as a query has its snapshot"
        );
        drop(found);
        assert!(remove(&segment).expect("no fault") && !day.exists());
    }
}
