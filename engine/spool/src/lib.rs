//! The spool: the log that stands on durable edges, behind a live source or wherever rows are kept. Rows are on disk
//! before the dataflow computes with them.
//!
//! A log is a sequence of records, each with a position: consecutive from 0, never used twice. It is a directory of
//! segments, `<first position>.seg`. One thread writes: it takes what is queued, appends it, and makes it durable with
//! one fdatasync (group commit). A record is visible to readers once it is durable, so nothing that the dataflow has
//! seen can be missing after a crash. No file is trusted: after damage, reading goes on at the next whole record, and what
//! is missing is counted.
//!
//! This crate knows no dataflow, no operator and no pipeline. It knows rows: [`batch`] has the form that they have in
//! memory, in a log and between processes. Whoever opens a log says where it is and what its columns are.

mod adapt;
mod archive;
pub mod batch;
mod counters;
mod files;
mod format;
mod index;
pub mod inspect;
mod intake;
mod lock;
mod log;
mod merge;
mod reader;
mod repair;
mod segment;
mod state;
mod tail;
mod writer;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use arrow::array::RecordBatch;
use thiserror::Error;

use crate::batch::Time;

pub use archive::{Archive, ArchiveReader};
pub use counters::{Count, Counters};
pub use log::{Log, Subscription};
pub use reader::{LogReader, Next};
pub use repair::repair;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The log's directory; made if it does not exist.
    pub dir: PathBuf,
    /// Data is made durable at most this often; 0 is as often as the disk allows. Delays what is received by as much, and
    /// what comes meanwhile goes into few records; with 0 each entry is a record.
    pub commit: Duration,
    /// Bytes after which a new segment is begun; at most a quarter of `max_bytes`.
    pub segment_bytes: u64,
    /// Bytes that all segments may have.
    pub max_bytes: u64,
    /// How long rows are kept after they were trimmed, in event time before the newest row, while there is room.
    pub max_age: Option<Duration>,
    /// What happens when the log is full.
    pub when_full: WhenFull,
    /// Bytes of the newest records that are kept in memory for readers, as they are there or on disk, whichever is more.
    pub memory_bytes: u64,
}

impl Settings {
    /// A log in `dir` with the defaults: commit as often as possible, segments of 128 MiB, 16 GiB in all, nothing kept
    /// after it was trimmed, block when full, 64 MiB in memory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            commit: Duration::ZERO,
            segment_bytes: 128 << 20,
            max_bytes: 16 << 30,
            max_age: None,
            when_full: WhenFull::Block,
            memory_bytes: 64 << 20,
        }
    }
}

/// What happens when a log or its disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Sources wait until something was trimmed.
    #[default]
    Block,
    /// The oldest segment is deleted; what readers lose by it is counted.
    DropOldest,
}

/// What is written to a log and read from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Rows that a source sent.
    Batch {
        /// Index of the output port.
        port: usize,
        /// Time of the message in ms.
        time: Time,
        /// Whether the rows are late.
        late: bool,
        /// The rows, of the port's schema.
        rows: RecordBatch,
    },
    /// Words of the one who writes for the one who goes on after it: no row, and nothing to a reader that computes.
    Note(Vec<u8>),
    /// No on-time row before this time, in ms, will follow.
    Watermark(Time),
}

impl Entry {
    /// Bytes in memory. Of a few rows with many columns that is several times what is on disk.
    pub(crate) fn memory(&self) -> u64 {
        match self {
            Self::Batch { rows, .. } => rows.get_array_memory_size() as u64,
            Self::Note(words) => words.capacity() as u64,
            Self::Watermark(_) => 0,
        }
    }
}

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another process writes to the log.
    #[error("the spool {} is in use by another process: stop it, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// A file or directory could not be read or written.
    #[error("the spool {} cannot be used: {error}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A port's rows cannot be stored.
    #[error("rows that the spool cannot store: {0}")]
    Schema(String),
}

impl SpoolError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { path: path.into(), error }
    }
}

#[cfg(test)]
mod tests;
