//! The thread that sends parcels, in their order, each until the receiver has taken it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use engine::batch::Time;
use engine::contract::{NodeMetrics, printable};
use parking_lot::{Condvar, Mutex};

use super::{Parcel, Settings};

/// The pause after the first attempt that has failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How often a thread without work looks whether anybody is left to give it some.
const LOOK: Duration = Duration::from_millis(500);

/// How often trouble that lasts is said again.
const REMINDER: Duration = Duration::from_secs(60);

/// Takes parcels to a receiver.
pub(in crate::sink) trait Carrier: Send + 'static {
    /// Takes a parcel there. It may block, but not for longer than a timeout.
    ///
    /// # Errors
    /// If the receiver has not taken it, or may not have. The parcel is sent again.
    fn carry(&mut self, parcel: &Parcel) -> Result<(), Trouble>;
}

/// Why a parcel is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) struct Trouble {
    /// In words.
    pub message: String,
    /// The pause that the receiver asks for.
    pub pause: Option<Duration>,
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self { message, pause: None }
    }
}

/// What is left to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Rows.
    pub rows: usize,
    /// The tick of the first of them.
    pub first: Option<Time>,
    /// The last attempt has failed.
    pub is_stalled: bool,
}

/// The sink's end.
pub(super) struct Carriage(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// One stays here until it is taken.
    parcels: VecDeque<Arc<Parcel>>,
    rows: usize,
    is_stalled: bool,
    is_stopped: bool,
}

impl Carriage {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be none.
    pub fn start(carrier: impl Carrier, settings: &Settings, metrics: &Arc<NodeMetrics>) -> Result<Self, String> {
        let shared = Arc::new(Shared::default());
        let thread = Thread {
            shared: Arc::downgrade(&shared),
            carrier,
            place: settings.place.clone(),
            max_pause: settings.max_pause,
            metrics: Arc::clone(metrics),
            sent_rows: metrics.counter("sent_rows"),
            retries: metrics.counter("retries"),
            said: None,
        };
        let builder = std::thread::Builder::new().name("delivery".into());
        builder.spawn(move || thread.run()).map_err(|error| format!("no thread to send from: {error}"))?;
        Ok(Self(shared))
    }

    pub fn push(&self, parcel: Parcel) {
        let mut state = self.0.state.lock();
        state.rows += parcel.rows;
        state.parcels.push_back(Arc::new(parcel));
        self.0.changed.notify_one();
    }

    pub fn look(&self) -> Left {
        let state = self.0.state.lock();
        let first = state.parcels.front().map(|parcel| parcel.tick);
        Left { rows: state.rows, first, is_stalled: state.is_stalled }
    }

    /// Ends the thread; what is left is not sent.
    pub fn stop(&self) {
        self.0.state.lock().is_stopped = true;
        self.0.changed.notify_one();
    }
}

struct Thread<C> {
    shared: Weak<Shared>,
    carrier: C,
    place: String,
    max_pause: Duration,
    metrics: Arc<NodeMetrics>,
    sent_rows: Arc<AtomicU64>,
    retries: Arc<AtomicU64>,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl<C: Carrier> Thread<C> {
    fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while let Some(shared) = self.shared.upgrade() {
            let mut state = shared.state.lock();
            if state.parcels.is_empty() && !state.is_stopped {
                shared.changed.wait_for(&mut state, LOOK);
            }
            if state.is_stopped {
                return;
            }
            let Some(parcel) = state.parcels.front().cloned() else { continue };
            drop(state);
            let outcome = self.carrier.carry(&parcel);
            let mut state = shared.state.lock();
            match outcome {
                Ok(()) => {
                    state.parcels.pop_front();
                    state.rows -= parcel.rows;
                    state.is_stalled = false;
                    drop(state);
                    NodeMetrics::add(&self.sent_rows, parcel.rows);
                    NodeMetrics::add(&self.metrics.bytes, parcel.lines.len());
                    pause = FIRST_PAUSE;
                    self.relieved();
                }
                Err(trouble) => {
                    state.is_stalled = true;
                    let wait = trouble.pause.map_or(pause, |asked| asked.max(pause)).min(self.max_pause);
                    pause = (pause * 2).min(self.max_pause);
                    self.complain(&trouble.message);
                    let end = Instant::now() + wait;
                    while !state.is_stopped && !shared.changed.wait_until(&mut state, end).timed_out() {}
                }
            }
        }
    }

    /// An attempt has failed: counted, shown in the status, and said when that is new, and again once a minute.
    fn complain(&mut self, message: &str) {
        self.retries.fetch_add(1, Relaxed);
        let message = printable(message).into_owned();
        self.metrics.set_trouble(&self.place, Some(format!("not confirmed, sent again: {message}")));
        if self.said.as_ref().is_none_or(|(said, at)| *said != message || at.elapsed() > REMINDER) {
            tracing::warn!(place = self.place, "not confirmed, sent again: {message}");
            self.said = Some((message, Instant::now()));
        }
    }

    fn relieved(&mut self) {
        if self.said.take().is_some() {
            self.metrics.set_trouble(&self.place, None);
            tracing::warn!(place = self.place, "the receiver takes rows again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::most;
    use super::*;

    /// Refuses each parcel so many times.
    struct Refusing {
        left: usize,
        carried: Arc<Mutex<Vec<Time>>>,
    }

    impl Carrier for Refusing {
        fn carry(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
            if self.left > 0 {
                self.left -= 1;
                return Err("no".to_owned().into());
            }
            self.carried.lock().push(parcel.tick);
            Ok(())
        }
    }

    #[test]
    fn parcels_are_sent_in_order_each_until_it_is_taken() {
        let metrics = Arc::new(NodeMetrics::default());
        let carried = Arc::new(Mutex::new(Vec::new()));
        let settings = Settings {
            place: "here".into(),
            target: "here".into(),
            most: most(1, 1),
            max_pause: Duration::from_millis(1),
        };
        let carrier = Refusing { left: 3, carried: Arc::clone(&carried) };
        let carriage = Carriage::start(carrier, &settings, &metrics).expect("a thread");
        for tick in [1, 2, 3] {
            carriage.push(Parcel { name: String::new(), tick, rows: 2, lines: b"1\n2\n".to_vec() });
        }
        let end = Instant::now() + Duration::from_secs(20);
        while carriage.look() != Left::default() {
            assert!(Instant::now() < end, "{:?}", carriage.look());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*carried.lock(), [1, 2, 3]);
        assert_eq!((metrics.counter("retries").load(Relaxed), metrics.counter("sent_rows").load(Relaxed)), (3, 6));
        carriage.stop();
    }
}
