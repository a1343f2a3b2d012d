//! The thread that directs a run beside its workers: it looks at counters and reference files, and answers requests for a
//! change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use crate::control::{Control, LOOK, Loader, look_at_folder};
use crate::expr::panic_message;
use crate::plan::Plan;
use crate::reload::Outcome;
use crate::shared::Shared;
use crate::signs::Signs;

/// Directs a run until its workers have ended.
pub(super) struct Director {
    /// The pipeline that the run was started with.
    started: Arc<Plan>,
    shared: Arc<Shared>,
    /// Of a run that can be continued and changed.
    control: Option<Control>,
    /// Of any other run: loads the pipeline again to see whether it would be another.
    loader: Option<Loader>,
    /// Why such a run cannot be changed.
    fixed: &'static str,
    /// Whether reference files may change while it runs.
    watches: bool,
    signs: Signs,
}

/// The thread, once it runs.
pub(super) struct Directing {
    shared: Arc<Shared>,
    until: Sender<()>,
    thread: JoinHandle<Option<Control>>,
}

impl Director {
    pub fn new(
        started: Arc<Plan>,
        shared: &Arc<Shared>,
        control: Option<Control>,
        (loader, fixed): (Option<Loader>, &'static str),
    ) -> Self {
        let watches = !started.is_bounded();
        Self { started, shared: Arc::clone(shared), control, loader, fixed, watches, signs: Signs::default() }
    }

    /// Starts the thread. A run without it is called off: nobody would end it.
    pub fn start(self) -> Option<Directing> {
        let shared = Arc::clone(&self.shared);
        let (until, ended) = mpsc::channel();
        match std::thread::Builder::new().name("control".into()).spawn(move || self.run(&ended)) {
            Ok(thread) => Some(Directing { shared, until, thread }),
            Err(error) => {
                shared.fail(format!("no thread to direct the run with: {error}"));
                shared.abort();
                None
            }
        }
    }

    /// Looks at the run until the workers have `ended`. What is returned is for the end of a run that can be continued.
    fn run(mut self, ended: &Receiver<()>) -> Option<Control> {
        let directed = catch_unwind(AssertUnwindSafe(|| {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                self.look();
            }
        }));
        // Nobody else would end the dataflows.
        if let Err(payload) = directed {
            let message = panic_message(payload.as_ref());
            self.shared.fail(format!("the thread that directs the run panicked: {message}"));
            self.shared.abort();
            return None;
        }
        if self.shared.failure().is_none() {
            self.signs.finish(running(self.control.as_ref(), &self.started), &self.shared);
        }
        self.control
    }

    /// Looks at the run once.
    fn look(&mut self) {
        self.signs.look(running(self.control.as_ref(), &self.started), &self.shared);
        if self.watches {
            self.shared.references.look(false);
        }
        look_at_folder(running(self.control.as_ref(), &self.started), &self.shared);
        match &mut self.control {
            Some(control) => control.look(),
            None if self.shared.reloads.take() => self.shared.answer(self.unchanged()),
            None => {}
        }
    }

    /// What becomes of a request for a change where there can be none: whether one would be needed.
    fn unchanged(&self) -> Outcome {
        match self.loader.as_ref().map(|loader| loader()) {
            Some(Ok(plan)) if plan.digest() == self.started.digest() => Outcome::Unchanged(String::new()),
            Some(Err(faults)) => Outcome::Refused(faults),
            Some(Ok(_)) | None => Outcome::Refused(self.fixed.to_owned()),
        }
    }
}

impl Directing {
    /// The workers have ended: waits for the thread to end too.
    pub fn join(self) -> Option<Control> {
        drop(self.until);
        self.thread.join().unwrap_or_else(|_| {
            self.shared.fail("the thread that directs the run ended out of order".to_owned());
            None
        })
    }
}

/// The pipeline that runs.
fn running<'a>(control: Option<&'a Control>, started: &'a Plan) -> &'a Plan {
    control.map_or(started, Control::plan)
}
