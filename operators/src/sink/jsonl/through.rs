//! Rows written as they come: for a run of which nothing will be done again.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Batch, Stream, Time};
use engine::contract::NodeMetrics;
use engine::contract::Reopen;
use engine::contract::Shared;
use engine::contract::{BuildContext, Here};
use parking_lot::Mutex;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::log_file::{LogFile, Place, Rotation};
use crate::sink::standard_output;
use crate::sink::written::Format;

/// How soon it is looked again whether the run has begun.
const SOON: Duration = Duration::from_millis(1);

/// Bytes gathered before the file is written.
const BUFFER: usize = 256 * 1024;

/// A file that several workers append to.
pub(super) struct Through {
    /// `None` is standard output.
    place: Option<Place>,
    append: bool,
    rotation: Rotation,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    state: Mutex<State>,
}

struct State {
    /// Why nothing is written any more: of what could not be written a part may be there.
    failure: Option<String>,
    is_open: bool,
    file: Option<LogFile>,
    /// Lines of whole batches that have not been written, and the last tick among them.
    buffer: Vec<u8>,
    tick: Time,
}

impl Through {
    /// Nothing is opened yet.
    pub fn new(
        place: Option<Place>,
        append: bool,
        rotation: Rotation,
        (shared, metrics): (&Arc<Shared>, &Arc<NodeMetrics>),
    ) -> Self {
        let state = State { failure: None, is_open: false, file: None, buffer: Vec::with_capacity(BUFFER), tick: 0 };
        let (shared, metrics) = (Arc::clone(shared), Arc::clone(metrics));
        Self { place, append, rotation, shared, metrics, state: Mutex::new(state) }
    }

    /// Opens the file, and empties it unless it is appended to; the first call counts.
    fn open(&self) -> Result<(), String> {
        self.with(|state| {
            if std::mem::replace(&mut state.is_open, true) {
                return Ok(());
            }
            let Some(place) = &self.place else { return Ok(()) };
            let mut file = LogFile::open(place, self.rotation, &self.metrics)?;
            if !self.append {
                file.cut(0, None)?;
            }
            state.file = Some(file);
            self.shared.outputs_opened(&place.path);
            Ok(())
        })
    }

    fn write(&self, tick: Time, text: &[u8]) -> Result<(), String> {
        self.with(|state| {
            if state.file.as_ref().is_some_and(|file| file.is_due(tick)) {
                state.flush()?;
                if let Some(file) = &mut state.file {
                    file.sync()?;
                    file.rotate()?;
                }
            }
            state.tick = state.tick.max(tick);
            state.buffer.extend_from_slice(text);
            if state.buffer.len() >= BUFFER { state.flush() } else { Ok(()) }
        })
    }

    fn flush(&self) -> Result<(), String> {
        self.with(State::flush)
    }

    fn with(&self, work: impl FnOnce(&mut State) -> std::io::Result<()>) -> Result<(), String> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        work(&mut state).map_err(|error| {
            let failure = format!("{} cannot be written: {error}", self.name());
            state.failure.insert(failure).clone()
        })
    }

    fn name(&self) -> String {
        self.place.as_ref().map_or_else(|| "standard output".to_owned(), |place| place.path.display().to_string())
    }
}

impl State {
    /// Writes what is there, if it is known where.
    fn flush(&mut self) -> std::io::Result<()> {
        if self.is_open && !self.buffer.is_empty() {
            match &mut self.file {
                Some(file) => file.write(self.tick, &self.buffer)?,
                None => {
                    standard_output::write(&self.buffer)?;
                    std::io::stdout().lock().flush()?;
                }
            }
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Reopen for Through {
    fn reopen(&self) -> Result<bool, String> {
        if !self.shared.start.has_begun() {
            return Ok(false);
        }
        let mut reopened = Ok(self.place.is_some());
        self.with(|state| {
            state.flush()?;
            if let Some(Err(error)) = state.file.as_mut().map(LogFile::reopen) {
                // It goes on in the file that is open.
                reopened = Err(format!("{} cannot be opened: {error}", self.name()));
            }
            Ok(())
        })?;
        reopened
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        // What could not be written was reported where it failed.
        let _ = self.flush();
    }
}

/// Builds the operator. Without an output the file is another process's, to whose workers all rows go.
pub(super) fn build<'s>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    format: Format,
    output: Option<Arc<Through>>,
) -> Stream<'s> {
    let fail = context.failure();
    let mut output = output;
    let (scope, shared, mut is_open) = (context.scope, Arc::clone(&context.shared), false);
    let metrics = Arc::clone(&context.metrics);
    let mut text = Vec::new();
    let mut unflushed: Option<Time> = None;
    input.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(
        Pipeline,
        &context.id,
        move |_capability, info| {
            let here = Here::new(&context.id);
            let activator = scope.activator_for(info.address);
            move |(input, frontier), _output| {
                let _here = here.enter();
                let mut result = Ok(());
                if !is_open && shared.start.has_begun() {
                    is_open = true;
                    result = output.as_ref().map_or(Ok(()), |output| output.open());
                } else if !is_open && !shared.is_called_off() {
                    // Rows come when the run has begun; the file is made also if there are none.
                    activator.activate_after(SOON);
                }
                input.for_each_stamp(|time, data| {
                    let tick = time.least().copied();
                    for batch in data.flat_map(|batches| batches.drain(..)) {
                        let Some(output) = &output else { continue };
                        text.clear();
                        if result.is_err() || !format.write(&mut text, &batch) {
                            continue;
                        }
                        result = output.write(tick.unwrap_or_default(), &text);
                        NodeMetrics::add(&metrics.bytes, text.len());
                        unflushed = unflushed.max(tick);
                    }
                });
                if let Some(output) = &output
                    && unflushed.is_some_and(|time| !frontier.frontier().less_equal(&time))
                {
                    unflushed = None;
                    result = result.and_then(|()| output.flush());
                }
                if let Err(message) = result {
                    fail(message);
                    output = None;
                }
            }
        },
    )
}
