//! When a start is sure: all nodes of all workers are built, so sources are open and reference files are read, and nothing
//! has failed. Until then sources send nothing, and no sink changes what it writes to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Whether a run has begun.
#[derive(Debug, Default)]
pub struct Start {
    built: AtomicUsize,
    /// Other processes have to be ready too.
    has_others: AtomicBool,
    /// This process is.
    ready: AtomicBool,
    begun: AtomicBool,
}

impl Start {
    /// Whether the run is sure. It stays so.
    pub fn has_begun(&self) -> bool {
        self.begun.load(SeqCst)
    }

    /// One of the process's `threads` has built all that it starts with. With the last one the process is ready, unless the run
    /// has `failed`: then it never begins. Where there are no others, that begins it.
    pub(crate) fn built(&self, threads: usize, failed: impl Fn() -> bool) {
        let is_last = self.built.fetch_add(1, SeqCst) + 1 == threads;
        // What a thread could not build was noted before it came here.
        if is_last && !failed() {
            self.ready.store(true, SeqCst);
            if !self.has_others() {
                self.begin();
            }
        }
    }

    /// Other processes run the pipeline too: the run begins when all are ready.
    pub(crate) fn wait_for_others(&self) {
        self.has_others.store(true, SeqCst);
    }

    pub(crate) fn has_others(&self) -> bool {
        self.has_others.load(SeqCst)
    }

    /// Whether this process has built all that it starts with, and nothing has failed.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(SeqCst)
    }

    /// All are ready.
    pub(crate) fn begin(&self) {
        self.begun.store(true, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begins_with_the_last_thread_unless_it_has_failed() {
        let start = Start::default();
        start.built(2, || false);
        assert!(!start.has_begun());
        start.built(2, || false);
        assert!(start.has_begun());
        let failed = Start::default();
        failed.built(1, || true);
        assert!(!failed.has_begun());
        let together = Start::default();
        together.wait_for_others();
        together.built(1, || false);
        assert!(together.is_ready() && !together.has_begun());
        together.begin();
        assert!(together.has_begun());
    }
}
