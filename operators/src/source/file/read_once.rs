//! Files that are read to their end, as they are or compressed.
//!
//! Of several files the one that is furthest behind in event time is read on, of equal ones that which was named first, so that
//! files of the same time are read side by side. Which line comes next depends on the lines alone.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use capture_file::Decompressed;
use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Shared;
use engine::contract::{Poll, Reader};

use super::super::chunks::count_zeros;
use super::super::intake::{Intake, Settings};
use super::super::lines::Lines;
use super::super::numbers::Numbers;
use super::super::tail::{is_packed, read};

/// No compressed file is shorter, in bytes.
const SHORTEST: u64 = 6;

/// Reads files on the worker that owns the source.
pub(super) struct OnceReader {
    files: Vec<Text>,
    /// The file that is read, and the time and number of the one that is read when this one has passed it.
    now: Option<(usize, (i64, usize))>,
    intake: Intake,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    id: String,
    stopping: bool,
}

/// A file's text.
struct Text {
    path: PathBuf,
    /// `None` at its end.
    text: Option<Decompressed<File>>,
    lines: Lines,
    /// It had a whole line.
    has_line: bool,
    /// Bytes of the file that progress shows as read.
    shown: u64,
    length: u64,
}

impl OnceReader {
    /// Opens all files.
    ///
    /// # Errors
    /// Which one cannot be read, and why.
    pub(super) fn open(
        paths: &[PathBuf],
        settings: &Settings,
        shared: &Arc<Shared>,
        metrics: &Arc<NodeMetrics>,
        id: &str,
    ) -> Result<Self, String> {
        let mut intake = Intake::of_files(settings, 0, Numbers::new(0, false), metrics);
        let mut files = Vec::with_capacity(paths.len());
        for (number, path) in paths.iter().enumerate() {
            let file = File::open(path).map_err(|error| fault(path, &error))?;
            let length = file.metadata().map_err(|error| fault(path, &error))?.len();
            let text = Decompressed::new(file).map_err(|error| fault(path, &error))?;
            if text.compression().is_none() && length < SHORTEST && is_packed(path) {
                return Err(format!(
                    "{} breaks off: by its name it is compressed, and it has only {length} bytes",
                    path.display()
                ));
            }
            shared.progress.total.fetch_add(length, Relaxed);
            let lines = Lines::of_several(settings.max_line, paths.len());
            files.push(Text { path: path.clone(), text: Some(text), lines, has_line: false, shown: 0, length });
            intake.begin(number, 0);
        }
        let (shared, metrics) = (Arc::clone(shared), Arc::clone(metrics));
        Ok(Self { files, now: None, intake, shared, metrics, id: id.to_owned(), stopping: false })
    }

    /// Reads until a batch is full.
    fn read(&mut self) -> Result<Poll, String> {
        while !self.stopping {
            let Some(at) = self.choose() else {
                if !self.intake.has_read() {
                    tracing::warn!(
                        node = self.id,
                        "{} empty",
                        if self.files.len() == 1 { "the file is" } else { "the files are" }
                    );
                }
                return Ok(Poll::Done);
            };
            let file = &mut self.files[at];
            if let Some(line) = file.lines.next() {
                file.has_line = true;
                if self.intake.take_of(at, line) {
                    return Ok(Poll::Ready);
                }
            } else if !file.fill(&self.shared, &self.metrics)? {
                if let Some(line) = file.lines.finish() {
                    self.intake.take_of(at, line);
                }
                count_zeros(&mut file.lines, &self.metrics);
                file.text = None;
                self.intake.end(at);
                self.now = None;
            }
        }
        Ok(Poll::Done)
    }

    /// The file whose line is next.
    fn choose(&mut self) -> Option<usize> {
        if let Some((at, limit)) = self.now
            && (self.intake.time_of(at), at) < limit
        {
            return Some(at);
        }
        let open = self.files.iter().enumerate().filter(|(_, file)| file.text.is_some());
        let mut times: Vec<(i64, usize)> = open.map(|(at, _)| (self.intake.time_of(at), at)).collect();
        times.sort_unstable();
        let (_, first) = *times.first()?;
        self.now = Some((first, times.get(1).copied().unwrap_or((i64::MAX, usize::MAX))));
        Some(first)
    }
}

impl Text {
    /// Reads on; false at the end.
    fn fill(&mut self, shared: &Shared, metrics: &NodeMetrics) -> Result<bool, String> {
        count_zeros(&mut self.lines, metrics);
        let Some(text) = &mut self.text else { return Ok(false) };
        let bytes = match read(text, self.lines.room()) {
            Ok(bytes) => bytes,
            Err(error) if !text.has_failed() && error.kind() == ErrorKind::UnexpectedEof => {
                metrics.counter("truncated_file").fetch_add(1, Relaxed);
                let by = text.compression().map(|by| by.to_string());
                if !self.has_line {
                    let (path, by) = (self.path.display(), by.unwrap_or_default());
                    return Err(format!("{path} breaks off before the end of its first line: its {by} data is cut"));
                }
                tracing::warn!(file = %self.path.display(), by, "the compressed file breaks off; the lines before are used");
                0
            }
            Err(error) if !text.has_failed() => {
                let by = text.compression().map_or_else(String::new, |by| format!("{by} "));
                let (path, at) = (self.path.display(), text.bytes_read());
                return Err(format!("{path} cannot be understood: its {by}data is damaged before byte {at}: {error}"));
            }
            Err(error) => return Err(fault(&self.path, &error)),
        };
        self.lines.filled(bytes);
        let read = if bytes == 0 { self.length } else { text.bytes_read().min(self.length) };
        let came = read.saturating_sub(self.shown);
        self.shown += came;
        shared.progress.read.fetch_add(came, Relaxed);
        metrics.bytes.fetch_add(came, Relaxed);
        Ok(bytes > 0)
    }
}

fn fault(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

impl Reader for OnceReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        let result = self.read();
        if result == Ok(Poll::Done) {
            self.intake.finish();
        }
        // Also what comes before a fault.
        self.intake.flush(out)?;
        result
    }

    fn watermark(&self) -> Time {
        self.intake.watermark()
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}
