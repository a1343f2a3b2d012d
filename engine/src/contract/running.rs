//! The dataflow that a node is part of, as far as the contract knows it.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use timely::scheduling::SyncActivator;

use super::sink_state::SinkState;
use super::source::Resume;
use crate::batch::Time;
use crate::time::{Backlog, Pace};

/// A dataflow while it runs.
pub(crate) trait Running: Debug + Send + Sync {
    /// The logs that it reads, in the order of [`Origin`](crate::batch::Origin), each with whether it keeps what other nodes
    /// have computed.
    fn read_logs(&self) -> Vec<(String, bool)>;

    /// The logs that there were before the change which it is part of.
    fn known_logs(&self) -> Vec<String>;

    /// Where its source goes on; `None` if what it receives goes into no log of this process.
    fn resume(&self) -> Option<Resume>;

    /// Whether the log of its source takes nothing at the moment.
    fn is_log_full(&self) -> bool;

    /// Its source has been opened, in this process.
    fn has_opened_source(&self);

    /// Where its sources are.
    fn pace(&self) -> &Pace;

    /// Where its sinks note how far they are; `None` if a run cannot be continued.
    fn notes(&self) -> Option<PathBuf>;

    /// Where versions of reference files are kept; `None` if there is no such place.
    fn versions(&self) -> Option<PathBuf>;

    /// It reads what was received in another run.
    fn is_replay(&self) -> bool;

    /// Rows before this message time were received before it was built.
    fn received_before(&self) -> Time;

    /// Rows that its sinks have taken and not confirmed.
    fn held(&self) -> Arc<Backlog>;

    /// The run depends on it.
    fn is_in_charge(&self) -> bool;

    /// Its sources are to end.
    fn is_ending(&self) -> bool;

    /// Its sinks are to make durable what is complete, because the run ends.
    fn is_parking(&self) -> bool;

    /// Whether a node that has failed lets time pass.
    fn lets_go(&self) -> bool;

    /// Ends its sources.
    fn end(&self);

    /// Notes a failure while the run does not depend on it. False if it does: then the run has failed.
    fn fail(&self, message: &str) -> bool;

    /// The first failure while the run did not depend on it.
    fn failure(&self) -> Option<String>;

    /// Has an operator woken when something was decided.
    fn add_waker(&self, waker: SyncActivator);

    /// It has this sink.
    fn add_sink(&self, sink: Arc<SinkState>);

    /// The sinks of those whose place it takes.
    fn earlier_sinks(&self) -> Vec<Arc<SinkState>>;
}
