//! How far a run is.

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
#[derive(Debug)]
pub struct Status {
    started: Instant,
    started_at: SystemTime,
    state: Mutex<State>,
}

impl Default for Status {
    fn default() -> Self {
        Self { started: Instant::now(), started_at: SystemTime::now(), state: Mutex::new(State::Starting) }
    }
}

impl Status {
    /// A run that starts now.
    pub fn new() -> Self {
        Self::default()
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
        matches!(self.state(), State::Running | State::Finished)
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
