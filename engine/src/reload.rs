//! Changes while a run goes on: who asks for one, and what became of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::SystemTime;

use parking_lot::Mutex;

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new pipeline runs; what was changed.
    Applied(String),
    /// The old pipeline goes on; why.
    Refused(String),
    /// The new pipeline is the old one; what was done besides, if anything.
    Unchanged(String),
}

impl Outcome {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Refused(_) => "refused",
            Self::Unchanged(_) => "unchanged",
        }
    }

    /// What there is to say besides; may have several lines.
    pub fn message(&self) -> &str {
        match self {
            Self::Applied(message) | Self::Refused(message) | Self::Unchanged(message) => message,
        }
    }

    /// The same, with what became of the outputs that were to be opened again.
    pub(crate) fn with_outputs(mut self, said: Option<String>) -> Self {
        let (Self::Applied(message) | Self::Refused(message) | Self::Unchanged(message)) = &mut self;
        if let Some(said) = said {
            let end = message.trim_end().len();
            message.truncate(end);
            if !message.is_empty() {
                message.push_str("; ");
            }
            message.push_str(&said);
        }
        self
    }
}

/// Requests for a change and their outcomes: one for each request that is taken. Requests that come while one waits
/// count as that one.
#[derive(Default)]
pub struct Reloads {
    wanted: AtomicBool,
    /// The outputs are to be opened again too.
    reopen: AtomicBool,
    done: Mutex<Done>,
    told: Mutex<Option<Tell>>,
}

/// Hears of every outcome.
type Tell = Box<dyn Fn(&Outcome) + Send>;

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloads").field("wanted", &self.wanted).field("done", &self.done).finish_non_exhaustive()
    }
}

/// What became of the changes so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many were applied.
    pub applied: u64,
    /// How many were refused.
    pub refused: u64,
    /// How many changed nothing.
    pub unchanged: u64,
    /// The last one and when it was done.
    pub last: Option<(Outcome, SystemTime)>,
}

impl Reloads {
    /// Asks for a change.
    pub fn request(&self) {
        self.wanted.store(true, SeqCst);
    }

    /// Asks for a change, and for the outputs to be opened again: what SIGHUP means.
    pub fn request_all(&self) {
        self.reopen.store(true, SeqCst);
        self.request();
    }

    /// Takes a request, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.wanted.swap(false, SeqCst)
    }

    /// Whether the request that was taken asks for the outputs too.
    pub(crate) fn take_reopen(&self) -> bool {
        self.reopen.swap(false, SeqCst)
    }

    /// Has every outcome told, such as on a terminal.
    pub fn tell(&self, told: impl Fn(&Outcome) + Send + 'static) {
        *self.told.lock() = Some(Box::new(told));
    }

    /// Notes what became of a request, and tells it.
    pub(crate) fn record(&self, outcome: Outcome) {
        // Told first, and while nobody waits: a terminal may block.
        if let Some(told) = &*self.told.lock() {
            told(&outcome);
        }
        let mut done = self.done.lock();
        match &outcome {
            Outcome::Applied(_) => done.applied += 1,
            Outcome::Refused(_) => done.refused += 1,
            Outcome::Unchanged(_) => done.unchanged += 1,
        }
        done.last = Some((outcome, SystemTime::now()));
    }

    /// What became of the changes so far.
    pub fn done(&self) -> Done {
        self.done.lock().clone()
    }

    /// Counters in the Prometheus text format.
    pub fn render(&self) -> String {
        let done = self.done();
        let mut out = String::from(
            "# HELP ja4_engine_reloads_total Changes of the pipeline while it ran.\n# TYPE ja4_engine_reloads_total counter\n",
        );
        for (outcome, count) in [("applied", done.applied), ("refused", done.refused), ("unchanged", done.unchanged)] {
            out.push_str(&format!("ja4_engine_reloads_total{{outcome=\"{outcome}\"}} {count}\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_one_outcome() {
        let reloads = Reloads::default();
        assert!(!reloads.take());
        reloads.request();
        reloads.request();
        assert!(reloads.take() && !reloads.take());
        reloads.record(Outcome::Refused("p.yaml:3:1: unknown kind".to_owned()));
        assert!(!reloads.take_reopen());
        reloads.request_all();
        assert!(reloads.take() && reloads.take_reopen() && !reloads.take_reopen());
        let unchanged = Outcome::Unchanged(String::new()).with_outputs(Some("reopened rows".to_owned()));
        reloads.record(unchanged.clone());
        let done = reloads.done();
        assert_eq!((done.applied, done.refused, done.unchanged), (0, 1, 1));
        assert_eq!(done.last.map(|(outcome, _)| outcome), Some(unchanged));
        let refused =
            Outcome::Refused("p.yaml:3:1: no such kind\n".to_owned()).with_outputs(Some("reopened rows".to_owned()));
        assert_eq!(refused.message(), "p.yaml:3:1: no such kind; reopened rows");
        assert!(reloads.render().contains("ja4_engine_reloads_total{outcome=\"refused\"} 1\n"));
    }
}
