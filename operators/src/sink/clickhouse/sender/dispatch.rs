//! Which inserts are on their way: several at a time, fewer while the server has trouble.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::error::ArrowError;
use engine::contract::NodeMetrics;
use timely::scheduling::SyncActivator;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::{Job, Target};
use crate::sink::clickhouse::deliver::Courier;
use crate::sink::clickhouse::encode::Parts;
use crate::sink::clickhouse::part::Part;

/// What a task has done.
enum Ended {
    /// The inserts of a job.
    Encoded(u64, Result<Parts, ArrowError>),
    /// Inserts of a job. Whether everything went well at once.
    Sent(u64, Result<bool, String>),
}

/// Sends jobs until they end. The next one is encoded while the inserts of the one before are on their way.
pub(super) async fn send(
    courier: Arc<Courier>,
    mut jobs: UnboundedReceiver<Job>,
    waker: &SyncActivator,
) -> Result<(), String> {
    let mut dispatcher = Dispatcher::new(courier);
    let mut open = true;
    while open || !dispatcher.is_idle() {
        dispatcher.start();
        let ended = tokio::select! {
            job = jobs.recv(), if open && dispatcher.wants_job() => {
                match job {
                    Some(job) => dispatcher.encode(job),
                    None => open = false,
                }
                continue;
            }
            Some(ended) = dispatcher.running.join_next(), if !dispatcher.running.is_empty() => ended,
        };
        match ended {
            Ok(Ended::Encoded(job, parts)) => dispatcher.encoded(job, parts)?,
            Ok(Ended::Sent(job, smooth)) => dispatcher.sent(job, smooth?),
            Err(error) => {
                let name = &dispatcher.courier.target.name;
                return Err(format!("defect: a batch of {name} was not sent: {error}"));
            }
        }
        if dispatcher.confirm() {
            let _ = waker.activate();
        }
    }
    Ok(())
}

/// Jobs from when they are taken until they are done.
struct Dispatcher {
    courier: Arc<Courier>,
    running: JoinSet<Ended>,
    /// Inserts that follow each other, and the job that they are of.
    ready: VecDeque<(u64, Vec<Part>)>,
    /// By job, what of it is not sent yet.
    left: BTreeMap<u64, usize>,
    /// Jobs that are done, while one before them is not.
    done: BTreeSet<u64>,
    /// The number of the next job.
    next: u64,
    /// Whether a job is being encoded.
    encoding: bool,
    /// How many tasks send inserts, and how many may.
    sending: usize,
    limit: usize,
}

impl Dispatcher {
    /// No job has come. The server is given one insert to begin with.
    fn new(courier: Arc<Courier>) -> Self {
        Self {
            courier,
            running: JoinSet::new(),
            ready: VecDeque::new(),
            left: BTreeMap::new(),
            done: BTreeSet::new(),
            next: 0,
            encoding: false,
            sending: 0,
            limit: 1,
        }
    }

    /// Whether all jobs are done.
    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.ready.is_empty()
    }

    /// Whether the next job can be encoded: all inserts before it are on their way.
    fn wants_job(&self) -> bool {
        !self.encoding && self.ready.is_empty()
    }

    /// Begins to send inserts that are ready, as many as may be on their way.
    fn start(&mut self) {
        while self.sending < self.limit
            && let Some((job, parts)) = self.ready.pop_front()
        {
            let courier = Arc::clone(&self.courier);
            self.sending += 1;
            self.running.spawn(async move {
                let mut smooth = true;
                for part in &parts {
                    match courier.deliver(part).await {
                        Ok(well) => smooth &= well,
                        Err(message) => return Ended::Sent(job, Err(message)),
                    }
                }
                Ended::Sent(job, Ok(smooth))
            });
        }
    }

    /// Begins to encode the next job.
    fn encode(&mut self, job: Job) {
        let (courier, number) = (Arc::clone(&self.courier), self.next);
        (self.next, self.encoding) = (number + 1, true);
        self.running.spawn(async move {
            let Target { layout, name, .. } = &courier.target;
            Ended::Encoded(number, layout.parts(name, job.first, &job.batches, job.limits))
        });
    }

    /// A job is encoded: its inserts are ready. Those of an ordered table follow each other.
    fn encoded(&mut self, job: u64, parts: Result<Parts, ArrowError>) -> Result<(), String> {
        self.encoding = false;
        let target = &self.courier.target;
        let parts = parts.map_err(|error| format!("rows of {} cannot be encoded: {error}", target.name))?;
        NodeMetrics::add(&self.courier.metrics.counter("bad_addresses"), parts.bad_addresses);
        let before = self.ready.len();
        if target.layout.is_ordered() {
            self.ready.push_back((job, parts.list));
        } else {
            self.ready.extend(parts.list.into_iter().map(|part| (job, vec![part])));
        }
        match self.ready.len() - before {
            0 => {
                self.done.insert(job);
            }
            more => {
                self.left.insert(job, more);
            }
        }
        Ok(())
    }

    /// Inserts of a job are with the server. If all went well at once, one more may be on its way, otherwise half as many.
    fn sent(&mut self, job: u64, smooth: bool) {
        self.sending -= 1;
        self.limit =
            if smooth { (self.limit + 1).min(self.courier.target.concurrency) } else { (self.limit / 2).max(1) };
        let left = self.left.entry(job).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.left.remove(&job);
            self.done.insert(job);
        }
    }

    /// Shows the worker up to where all jobs are done. Whether that is further than before.
    fn confirm(&mut self) -> bool {
        let mut state = self.courier.shared.lock();
        let before = state.done;
        while self.done.remove(&state.done) {
            state.done += 1;
        }
        state.done > before
    }
}
