//! The logs of a run: what was received, with how far the source was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::contract::{Cursor, Resume};
use crate::plan::{LogPorts, Plan};
use crate::spool::{Archive, Log, Settings, SpoolError};

mod notes;

use notes::resume;
pub(crate) use notes::{after, note};

/// Bytes of the newest rows of a log that its readers find in memory.
const MEMORY: u64 = 32 << 20;

/// The log of a source, and how the source ended.
#[derive(Debug)]
pub struct SourceLog {
    /// The log.
    pub log: Arc<Log>,
    /// The source ended by itself: nothing will ever follow.
    complete: AtomicBool,
    /// Where the source goes on after all that was appended.
    resume: Mutex<Resume>,
}

/// What a dataflow behind the logs reads one of them from.
#[derive(Clone, Debug)]
pub enum LogInput {
    /// A log of this run, from a position on.
    Log(Arc<SourceLog>, u64),
    /// What another run has left, or had written when this one began.
    Archive(Arc<Archive>),
}

impl SourceLog {
    /// Opens the log of a source, or of a durable node, or makes it.
    ///
    /// # Errors
    /// If the folder cannot be used, such as while another process uses it.
    pub fn open(plan: &Plan, ports: &LogPorts) -> Result<Arc<Self>, SpoolError> {
        let spec = plan.spool.clone().unwrap_or_default();
        let settings = Settings {
            dir: plan.spool_dir().join(&plan.nodes[ports.source].id),
            commit: spec.commit,
            segment_bytes: spec.segment_size,
            max_bytes: spec.max_size,
            max_age: Some(plan.nodes[ports.source].durable.unwrap_or(spec.retain)),
            when_full: spec.when_full.into(),
            memory_bytes: MEMORY,
        };
        let log = Log::open(settings, &plan.log_schemas(ports))?;
        let resume = resume(&log)?;
        Ok(Arc::new(Self { log, complete: AtomicBool::new(false), resume: Mutex::new(resume) }))
    }

    /// Where the source goes on after all that was appended.
    pub fn resume(&self) -> Resume {
        self.resume.lock().clone()
    }

    /// The source is further: the position of its next row, its watermark, and what it last said of itself.
    pub(crate) fn advance(&self, seq: u64, watermark: u64, cursor: Option<Cursor>) {
        let mut resume = self.resume.lock();
        (resume.seq, resume.watermark) = (seq, watermark);
        if cursor.is_some() {
            resume.cursor = cursor;
        }
    }

    /// Nothing will ever follow: readers that come to the end have ended.
    pub fn complete(&self) {
        self.complete.store(true, SeqCst);
    }

    /// Whether the source ended by itself.
    pub fn is_complete(&self) -> bool {
        self.complete.load(SeqCst)
    }
}
