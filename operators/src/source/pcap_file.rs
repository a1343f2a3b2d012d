//! Packets of a capture file, on the worker that owns the source.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use capture_file::{CaptureFile, Error, Kind};
use engine::batch::{Batch, Time};
use engine::contract::NodeMetrics;
use engine::contract::Shared;
use engine::contract::{Poll, Reader};

use super::bpf::Filter;
use super::file_filter::FileFilter;
use super::packets::Packets;

/// Packets that are read before others have their turn, though the filter lets none through.
const MAX_FILTERED: usize = 65_536;

/// Opens a capture file.
///
/// # Errors
/// What is wrong with it, with its name.
fn open(path: &Path) -> Result<CaptureFile<File>, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    CaptureFile::open(path).map_err(|error| fault(path, &error))
}

/// Looks whether it is a capture file, up to its first packet, and which linktypes it has by then.
///
/// # Errors
/// What is wrong with it, with its name. One that was cut off is none the less one.
pub(super) fn linktypes(path: &Path) -> Result<BTreeSet<i32>, String> {
    let mut capture = open(path)?;
    match capture.next_record() {
        Err(error) if error.kind() != Kind::Truncated => Err(fault(path, &error)),
        _ => Ok(capture.linktypes().clone()),
    }
}

fn fault(path: &Path, error: &Error) -> String {
    format!("{} {error}", path.display())
}

/// Reads a file.
pub(super) struct FileReader {
    capture: CaptureFile<File>,
    filter: Option<FileFilter>,
    packets: Packets,
    /// Bytes of the file, and how many of them progress shows as read.
    bytes: u64,
    shown: u64,
    shared: Arc<Shared>,
    filtered: Arc<AtomicU64>,
    truncated: Arc<AtomicU64>,
    path: PathBuf,
    stopping: bool,
}

impl FileReader {
    /// Begins with a file. `packets` makes the rows.
    pub(super) fn new(
        path: &Path,
        filter: &Filter,
        packets: Packets,
        shared: &Arc<Shared>,
        metrics: &NodeMetrics,
    ) -> Result<Self, String> {
        let capture = open(path)?;
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        shared.progress.total.fetch_add(bytes, Relaxed);
        Ok(Self {
            capture,
            filter: FileFilter::new(filter),
            packets,
            bytes,
            shown: 0,
            shared: Arc::clone(shared),
            filtered: metrics.counter("filtered"),
            truncated: metrics.counter("truncated_file"),
            path: path.to_owned(),
            stopping: false,
        })
    }

    fn read(&mut self) -> Result<Poll, String> {
        let mut filtered = 0;
        let done = loop {
            let record = match self.capture.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break Ok(Poll::Done),
                Err(error) if error.kind() == Kind::Truncated => {
                    // What stands before the break is as good as in a whole file.
                    self.truncated.fetch_add(1, Relaxed);
                    let error = error.to_string();
                    tracing::warn!(file = %self.path.display(), error, "the capture breaks off; the packets before are used");
                    break Ok(Poll::Done);
                }
                Err(error) => break Err(fault(&self.path, &error)),
            };
            let passes = match &mut self.filter {
                Some(filter) => filter.passes(record.linktype, record.wire_len, record.data),
                None => Ok(true),
            };
            match passes {
                Ok(true) => {
                    if self.packets.take(&record) {
                        break Ok(Poll::Ready);
                    }
                }
                Ok(false) => {
                    filtered += 1;
                    if filtered == MAX_FILTERED {
                        break Ok(Poll::Ready);
                    }
                }
                Err(error) => {
                    let (path, linktype) = (self.path.display(), record.linktype);
                    break Err(format!("the filter does not suit packets of linktype {linktype} in {path}: {error}"));
                }
            }
        };
        self.filtered.fetch_add(filtered as u64, Relaxed);
        let read = if done == Ok(Poll::Done) { self.bytes } else { self.capture.bytes_read().min(self.bytes) };
        self.shared.progress.read.fetch_add(read - self.shown, Relaxed);
        self.shown = read;
        done
    }
}

impl Reader for FileReader {
    fn next(&mut self, out: &mut Vec<(usize, Batch)>) -> Result<Poll, String> {
        if self.stopping {
            return Ok(Poll::Done);
        }
        let done = self.read();
        if done != Ok(Poll::Ready) {
            self.packets.end();
        }
        // Also those before a fault.
        self.packets.flush(out)?;
        done
    }

    fn watermark(&self) -> Time {
        self.packets.watermark()
    }

    fn stop(&mut self) {
        self.stopping = true;
    }
}
