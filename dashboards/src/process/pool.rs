//! The run's side: query processes, each driven by a thread of its own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use engine::catalog::Catalog;
use libc::{SIGABRT, SIGKILL};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::child::Process;
use super::now::{Now, tables};
use super::places::{Client, Places};
use super::wire::{self, Ask, Order, Reply};
use crate::Limits;
use crate::error::Error;
use crate::query::Statement;

/// How often a query is asked at most: again when a file was removed while it was read, or its process was killed from outside.
const ATTEMPTS: usize = 2;

/// How long an answer may take to be read while others wait.
const WITH_OTHERS: Duration = Duration::from_secs(5);

/// Bytes of an answer that are in this process at a time.
const PIECE: usize = 64 << 10;

/// The program that becomes a query process: one that calls [`crate::query_process`].
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// An answer, as it comes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub rows: usize,
    pub truncated: bool,
    /// Of the whole answer.
    pub bytes: usize,
    pub body: mpsc::Receiver<io::Result<Bytes>>,
}

/// A query that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub client: Client,
    pub statement: Statement,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

impl Job {
    pub fn new(client: Client, statement: Statement, reply: oneshot::Sender<Result<Answer, Error>>) -> Self {
        Self { client, statement, reply }
    }

    /// Whether nobody waits for it any more.
    pub fn is_over(&self) -> bool {
        self.reply.is_closed()
    }

    pub fn refuse(self, why: Error) {
        // Nobody may be there any more.
        let _ = self.reply.send(Err(why));
    }
}

/// Query processes that take queries from one line.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    catalog: Arc<Catalog>,
    limits: Limits,
    program: Program,
    places: Places,
    /// Whether it was said what a process is not confined by.
    told: AtomicBool,
    /// Processes that were started.
    started: AtomicU64,
    /// Processes that were killed, or have ended by themselves.
    ended: AtomicU64,
}

impl Pool {
    /// Starts the threads; a process is started with the first query that needs it.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(
        name: &str,
        catalog: Arc<Catalog>,
        limits: Limits,
        processes: usize,
        program: Program,
    ) -> io::Result<Self> {
        let places = Places::new(processes);
        let (started, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let told = AtomicBool::new(false);
        let shared = Arc::new(Shared { catalog, limits, program, places, told, started, ended });
        for nth in 1..=processes.max(1) {
            let mut seat = Seat { shared: Arc::clone(&shared), process: None };
            std::thread::Builder::new().name(format!("{name}-{nth}")).spawn(move || seat.work())?;
        }
        Ok(Self { shared })
    }

    /// Runs a statement. Dropping the future ends the query.
    pub async fn run(&self, client: Client, statement: Statement) -> Result<Answer, Error> {
        let (reply, mut answer) = oneshot::channel();
        let wait = self.shared.limits.queue;
        let id = self.shared.places.wait(Job::new(client, statement, reply));
        let answered = match tokio::time::timeout(wait, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if self.shared.places.give_up(id) => return Err(Error::Busy(wait)),
            // It runs.
            Err(_) => answer.await,
        };
        answered.unwrap_or(Err(Error::Internal))
    }

    /// Queries that run, and queries that wait.
    pub fn counts(&self) -> (usize, usize) {
        self.shared.places.counts()
    }

    /// Processes that were started, and those that have ended.
    pub fn processes(&self) -> (u64, u64) {
        (self.shared.started.load(Relaxed), self.shared.ended.load(Relaxed))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.places.close();
    }
}

impl Shared {
    /// Whether a client may still take its time to read an answer.
    fn is_patient(&self, begun: Instant, until: Instant) -> bool {
        let now = Instant::now();
        now < until && (now < begun + WITH_OTHERS || self.places.counts().1 == 0)
    }
}

/// Why a process gave no answer.
pub(super) enum Fault {
    /// Nobody waits for it any more.
    Unwanted,
    /// It took too long.
    Late,
    /// The process has gone, or does not do what it should.
    Process(io::Error),
    /// It did not start, but ended by this signal.
    Start(Option<i32>),
    /// It could not be asked.
    Rows(io::Error),
}

/// What a process answers.
enum Reached {
    Rows { rows: usize, truncated: bool, bytes: usize },
    Gone,
    Refused(Error),
}

/// A thread with its process.
struct Seat {
    shared: Arc<Shared>,
    process: Option<Process>,
}

impl Seat {
    fn work(&mut self) {
        let shared = Arc::clone(&self.shared);
        while let Some(job) = shared.places.next(|| self.forget()) {
            let (client, started) = (job.client, Instant::now());
            // A fault of this thread is not one of the client's place.
            if catch_unwind(AssertUnwindSafe(|| self.answer(job))).is_err() {
                self.end();
            }
            shared.places.done(client, started.elapsed());
        }
        self.end();
    }

    fn answer(&mut self, job: Job) {
        let until = Instant::now() + self.shared.limits.timeout;
        let mut why = Error::Internal;
        for _ in 0..ATTEMPTS {
            match self.ask(&job, until) {
                Ok(Reached::Rows { rows, truncated, bytes }) => return self.pass_on(job, rows, truncated, bytes),
                Ok(Reached::Refused(error)) => return job.refuse(error),
                Ok(Reached::Gone) => why = Error::Gone,
                Err(Fault::Unwanted) => return self.end(),
                Err(Fault::Late) => {
                    self.end();
                    return job.refuse(Error::Timeout(self.shared.limits.timeout));
                }
                Err(Fault::Rows(error)) => {
                    tracing::error!(%error, "the rows of the tables cannot be handed to a query process");
                    return job.refuse(Error::Internal);
                }
                Err(fault @ (Fault::Process(_) | Fault::Start(_))) => {
                    let by = match fault {
                        Fault::Start(signal) => signal,
                        Fault::Process(error) => {
                            tracing::debug!(%error, "a query process does not answer");
                            self.ended_by()
                        }
                        _ => None,
                    };
                    match by {
                        // From outside: by the system, which has no memory left, or by a person. It may go better next time.
                        Some(SIGKILL) => tracing::warn!("a query process was killed"),
                        Some(SIGABRT) => return job.refuse(Error::Memory),
                        signal => {
                            tracing::error!(signal, "a query process has ended");
                            return job.refuse(Error::Internal);
                        }
                    }
                }
            }
        }
        job.refuse(why);
    }

    fn ask(&mut self, job: &Job, until: Instant) -> Result<Reached, Fault> {
        let tables = tables(&self.shared.catalog, &job.statement.sql).map_err(Fault::Rows)?;
        let process = self.process(&tables)?;
        process.hand_over(&tables).map_err(Fault::Process)?;
        let ask = Ask { statement: job.statement.clone(), tables: tables.iter().map(Now::message).collect() };
        wire::send(&process.socket, &Order::Ask(Box::new(ask)), &[]).map_err(Fault::Process)?;
        let reply = process.reply(|| {
            if job.reply.is_closed() {
                return Err(Fault::Unwanted);
            }
            if Instant::now() >= until { Err(Fault::Late) } else { Ok(()) }
        })?;
        Ok(match reply {
            // A row may be larger than what was left of the bound.
            Reply::Rows { bytes, .. } if bytes > self.shared.limits.max_bytes.saturating_mul(4) => {
                return Err(Fault::Process(ErrorKind::InvalidData.into()));
            }
            Reply::Rows { rows, truncated, bytes } => Reached::Rows { rows, truncated, bytes },
            Reply::Gone => Reached::Gone,
            Reply::Ready(_) => return Err(Fault::Process(ErrorKind::InvalidData.into())),
            Reply::Refused(refused) => {
                if let Some(cause) = &refused.cause {
                    tracing::error!(cause, "a query failed");
                }
                let status = StatusCode::from_u16(refused.status).ok();
                let status = status.filter(|status| status.is_client_error() || status.is_server_error());
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Reached::Refused(Error::Answered { status, message: refused.message, help: refused.help })
            }
        })
    }

    /// Passes the answer on as fast as it is taken. The process has no other query until then.
    fn pass_on(&mut self, job: Job, rows: usize, truncated: bool, bytes: usize) {
        let (pieces, body) = mpsc::channel(1);
        let is_taken = job.reply.send(Ok(Answer { rows, truncated, bytes, body })).is_ok();
        let Some(process) = self.process.as_mut().filter(|_| is_taken) else { return self.end() };
        let shared = Arc::clone(&self.shared);
        let begun = Instant::now();
        let until = begun + shared.limits.delivery;
        let mut left = bytes;
        while left > 0 {
            let mut piece = vec![0; left.min(PIECE)];
            let read = process.fill(&mut piece, || if Instant::now() >= until { Err(Fault::Late) } else { Ok(()) });
            let sent = read.is_ok() && deliver(&pieces, piece.into(), || shared.is_patient(begun, until));
            if !sent {
                // The client sees that something is missing: it was told the length.
                let _ = pieces.try_send(Err(ErrorKind::TimedOut.into()));
                return self.end();
            }
            left -= left.min(PIECE);
        }
    }

    /// The process, which is started if there is none, or one that may not read all directories that the tables are in now.
    fn process(&mut self, tables: &[Now]) -> Result<&mut Process, Fault> {
        let mut directories: BTreeSet<PathBuf> = tables.iter().flat_map(Now::directories).collect();
        let connects = tables.iter().any(|table| table.handed.snapshot.stored.is_some());
        let fits = |process: &Process| directories.is_subset(&process.readable) && (process.connects || !connects);
        if !self.process.as_mut().is_some_and(|process| fits(process) && process.is_alive()) {
            // What the one before could read, too: otherwise two tables in turn would start a process each time.
            directories.extend(self.process.iter().flat_map(|process| process.readable.iter().cloned()));
            self.end();
            self.shared.started.fetch_add(1, Relaxed);
            let process = Process::start(&self.shared.limits, &self.shared.program, directories, connects)?;
            if !process.missing.is_empty() && !self.shared.told.swap(true, Relaxed) {
                tracing::warn!(
                    missing = process.missing.join("; "),
                    "query processes are confined by less than they could be"
                );
            }
            return Ok(self.process.insert(process));
        }
        self.process.as_mut().ok_or_else(|| Fault::Process(ErrorKind::NotFound.into()))
    }

    /// Tells an idle process what it need not keep in memory.
    fn forget(&mut self) {
        if let Some(process) = &mut self.process
            && process.forget().is_err()
        {
            self.end();
        }
    }

    fn end(&mut self) {
        self.ended_by();
    }

    /// Kills the process if it has not ended; the signal that has ended it.
    fn ended_by(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        self.shared.ended.fetch_add(1, Relaxed);
        process.end()
    }
}

/// Passes a piece on when the one before is taken; whether it was in time.
fn deliver(pieces: &mpsc::Sender<io::Result<Bytes>>, piece: Bytes, is_patient: impl Fn() -> bool) -> bool {
    let mut piece = Ok(piece);
    while is_patient() {
        match pieces.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(back)) => {
                piece = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    false
}
