//! One file that is followed: what is new in it, and what keeps it from being read.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use engine::contract::NodeMetrics;
use engine::contract::wall_clock_ns;

use super::super::super::chunks::count_zeros;
use super::super::super::tail::{self, Identity, Progress};
use super::{FollowReader, FollowedFile};

/// How long time stands still for a file that cannot be read: mostly it is being rotated.
const HOLD: Duration = Duration::from_secs(10);

/// How often it is said again that a file cannot be read.
const REPEAT: Duration = Duration::from_secs(60);

/// What keeps a file from being read.
pub(super) struct Trouble {
    text: String,
    since: Instant,
    said: Instant,
}

impl FollowReader {
    /// Looks whether a file has something new.
    pub(super) fn look(&mut self, number: usize) {
        let Some(mut file) = self.files[number].take() else { return };
        let before = file.tail.identity();
        let now = wall_clock_ns();
        let is_pattern = !self.followed.paths.iter().any(|path| path == file.tail.path());
        let taken = |path: &Path, identity: Identity| {
            let others = self.files.iter().flatten();
            others.into_iter().any(|other| other.tail.identity() == Some(identity))
                || is_pattern && self.read.has(path, identity)
        };
        let progress = file.tail.read(file.lines.room(), &taken);
        self.changed |= matches!(progress, Ok(Progress::Bytes(_) | Progress::Restarted));
        file.ready = matches!(progress, Ok(Progress::Bytes(_) | Progress::Restarted));
        match progress {
            Ok(Progress::Bytes(bytes)) => {
                file.lines.filled(bytes);
                NodeMetrics::add(&self.metrics.bytes, bytes);
                self.mend(&mut file);
            }
            Ok(Progress::Restarted) => {
                // A line at the end of a text needs no line feed.
                if let Some(line) = file.lines.finish() {
                    self.intake.take_of(number, line);
                }
                self.mend(&mut file);
            }
            Ok(Progress::Waiting) => {
                self.mend(&mut file);
                self.intake.idle_of(number, now);
            }
            Ok(Progress::Paused) => {}
            Err(text) => {
                let since = self.complain(&mut file, text);
                if since.elapsed() > HOLD {
                    self.intake.idle_of(number, now);
                }
            }
        }
        count_zeros(&mut file.lines, &self.metrics);
        self.say_unrecognised(&mut file.tail);
        // A file that was cut has its name still, while its copy is read.
        let has_left =
            |before: &Identity| file.tail.identity() != Some(*before) && tail::named(file.tail.path()) != Some(*before);
        if let Some(before) = before.filter(has_left)
            && let Some(mark) = file.tail.mark(before)
        {
            self.read.add(before, mark, None);
        }
        self.files[number] = Some(file);
    }

    /// Says that a file cannot be read, and since when that is so.
    fn complain(&self, file: &mut FollowedFile, text: String) -> Instant {
        self.metrics.counter("read_errors").fetch_add(1, Relaxed);
        let now = Instant::now();
        let before = file.trouble.take();
        let since = before.as_ref().map_or(now, |trouble| trouble.since);
        let mut said = before.as_ref().map_or(now, |trouble| trouble.said);
        let is_new = before.is_none_or(|before| before.text != text);
        if is_new || said.elapsed() > REPEAT {
            said = now;
            tracing::warn!("{text}: it is tried again until it can be");
            self.metrics.set_trouble(&file.tail.path().display().to_string(), Some(text.clone()));
        }
        file.trouble = Some(Trouble { text, since, said });
        since
    }

    /// A file can be read.
    fn mend(&self, file: &mut FollowedFile) {
        if file.trouble.take().is_some() {
            let path = file.tail.path().display();
            tracing::info!(%path, "the file can be read again");
            self.metrics.set_trouble(&path.to_string(), None);
        }
    }
}
