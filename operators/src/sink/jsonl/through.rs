//! Rows written as they come: for a run of which nothing will be done again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::batch::{Batch, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::NodeMetrics;
use engine::contract::Reopen;
use parking_lot::Mutex;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::log_file::{LogFile, Rotation};
use crate::sink::written::Format;

/// Bytes gathered before the file is written.
const BUFFER: usize = 256 * 1024;

/// A file that several workers append to.
pub(super) struct Through {
    /// `None` is standard output.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    /// Why nothing is written any more: of what could not be written a part may be there.
    failure: Option<String>,
    file: Option<LogFile>,
    /// Lines of whole batches that have not been written, and the last tick among them.
    buffer: Vec<u8>,
    tick: Time,
}

impl Through {
    pub fn open(path: Option<&Path>, append: bool, rotation: Rotation, metrics: &NodeMetrics) -> Result<Self, String> {
        let length = (!append).then_some(0);
        let open = |path: &Path| {
            LogFile::open(path, length, None, rotation, metrics)
                .map_err(|error| format!("{} cannot be created: {error}", path.display()))
        };
        let file = path.map(open).transpose()?;
        let state = State { failure: None, file, buffer: Vec::with_capacity(BUFFER), tick: 0 };
        Ok(Self { path: path.map(Path::to_owned), state: Mutex::new(state) })
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
        self.path.as_ref().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }
}

impl State {
    fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() {
            match &mut self.file {
                Some(file) => file.write(self.tick, &self.buffer)?,
                None => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(&self.buffer)?;
                    out.flush()?;
                }
            }
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Reopen for Through {
    fn reopen(&self) -> Result<bool, String> {
        let mut reopened = Ok(self.path.is_some());
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
    output: Option<Result<Arc<Through>, String>>,
) -> Stream<'s> {
    let fail = context.failure();
    let mut output = output.and_then(|output| output.map_err(&fail).ok());
    let metrics = Arc::clone(&context.metrics);
    let mut text = Vec::new();
    let mut unflushed: Option<Time> = None;
    input.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(
        Pipeline,
        &context.id,
        move |_capability, _info| {
            move |(input, frontier), _output| {
                let mut result = Ok(());
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
