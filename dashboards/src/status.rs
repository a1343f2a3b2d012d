//! How far a run is.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The dataflow is being built.
    Starting,
    /// Sources are read.
    Running,
    /// Every source has ended; the tables are complete.
    Finished,
    /// The run has stopped with an error, which is the text.
    Failed(String),
}

impl State {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed(_) => "failed",
        }
    }
}

/// The state of a run, shared between the run and the service.
pub struct Status {
    started: Instant,
    started_at: SystemTime,
    state: Mutex<State>,
    has_begun: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::of(Box::new(|| true))
    }
}

impl Status {
    /// A run that starts now, and begins with its state.
    pub fn new() -> Self {
        Self::default()
    }

    /// A run that starts now, of which this says whether it has begun: its sources send, and its sinks are open.
    pub fn of(has_begun: Box<dyn Fn() -> bool + Send + Sync>) -> Self {
        let (started, started_at) = (Instant::now(), SystemTime::now());
        Self { started, started_at, state: Mutex::new(State::Starting), has_begun }
    }

    /// Notes a new state.
    pub fn set(&self, state: State) {
        *self.state.lock() = state;
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Whether the tables can be asked: the run goes on or has ended well.
    pub fn is_ready(&self) -> bool {
        match self.state() {
            State::Running => (self.has_begun)(),
            State::Finished => true,
            State::Starting | State::Failed(_) => false,
        }
    }

    /// When the run started.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// How long ago that was.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
