//! What all sinks have in common: rows come to the worker that writes, wait until their tick is complete, are written,
//! and time passes as far as they are confirmed. A sink that takes another's place first waits until that is done.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use serde_json::Value;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::build_context::BuildContext;
use super::exchange::{arrivals, kept};
use super::sink_handle::{Claim, SinkHandle, Turn};
use super::standing::Standing;
use crate::batch::{Batch, Stream, Time};
use crate::time::Backlog;

/// How soon a sink that waits, for another writer or for what it writes to, looks again.
const PATIENCE: Duration = Duration::from_millis(20);

/// The end of all input.
pub const CLOSED: Time = Time::MAX;

/// How often a sink is asked again at once, before other operators get their turn.
const AT_ONCE: usize = 8;

/// What a sink does with rows.
pub trait Sink {
    /// What it writes to, so that two sinks that write to the same are known.
    fn target(&self) -> String;

    /// Before it is its turn: whether it can write at all.
    ///
    /// # Errors
    /// If it cannot; then it never gets its turn.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Opens what it writes to, once. No row of a tick before `from` will come; `detail` is what was noted last, or null.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn open(&mut self, from: Time, detail: &Value) -> Result<(), String>;

    /// Takes rows of a tick. Ticks come in order, unless the sink writes [at once](Sink::writes_at_once).
    ///
    /// # Errors
    /// If the rows cannot be taken. As after any error, the run ends, and the sink is dropped.
    fn write(&mut self, tick: Time, batch: Batch) -> Result<(), String>;

    /// Every row of the ticks before `upto` was given.
    ///
    /// # Errors
    /// If they cannot be written.
    fn flush(&mut self, upto: Time, then: Then) -> Result<(), String>;

    /// How far it is.
    ///
    /// # Errors
    /// If that cannot be made durable.
    fn written(&mut self) -> Result<Written, String>;

    /// What [`Sink::written`] said last has been noted, durably.
    ///
    /// # Errors
    /// If what waited for that fails.
    fn noted(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Whether rows are written when they come and not when their tick is complete.
    fn writes_at_once(&self) -> bool {
        false
    }

    /// Whether it writes rows that may change, so that its changes must add up.
    fn writes_changes(&self) -> bool {
        false
    }
}

/// What follows the rows that a sink was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More rows.
    More,
    /// The end of the run: what is complete should be made durable. The next run goes on.
    Stop,
    /// Another sink writes what follows.
    Another,
    /// Nothing: all input has ended.
    Nothing,
}

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Every row of a tick before this is durable.
    pub upto: Time,
    /// What it needs besides to go on there.
    pub detail: Value,
    /// Nothing that it was given is on its way.
    pub is_idle: bool,
    /// What it writes to takes nothing: it must not keep the run from ending.
    pub is_stalled: bool,
    /// It goes on as soon as this is noted.
    pub goes_on: bool,
}

/// Builds a sink all of whose rows that are to be `keep`t go to worker `owner`, which makes it with the address of the
/// operator. The stream's frontier is how far they are confirmed.
pub fn build<'s, S: Sink + 'static>(
    context: &BuildContext<'s>,
    input: Stream<'s>,
    (name, owner): (&str, u64),
    keep: impl Fn(&Batch) -> bool + 'static,
    make: impl FnOnce(Rc<[usize]>, &SinkHandle) -> Result<S, String>,
) -> Stream<'s> {
    let kept = kept(input, context, keep);
    let is_owner = context.worker as u64 == owner;
    let (fail, arrived) = (context.failure(), arrivals(context));
    let exchange = Exchange::new(move |_: &Batch| owner);
    kept.unary_frontier::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(exchange, name, move |capability, info| {
        let activator = context.scope.activator_for(info.address.clone());
        // Also if there is no sink because it failed: what is behind this frontier counts as confirmed.
        let mut held = is_owner.then_some(capability);
        let lets_go = context.lets_go();
        let made = is_owner.then(|| {
            let handle = context.sink(name, info.address.clone())?;
            let sink = make(info.address, &handle)?;
            Writer::new(sink, handle)
        });
        let mut writer = made.and_then(|made| made.map_err(&fail).ok());
        move |(input, frontier), _output| {
            let mut step = Ok(None);
            input.for_each_stamp(|time, data| {
                let tick = time.least().copied().unwrap_or_default();
                let batches = data.inspect(|batches| arrived(batches)).flat_map(|batches| batches.drain(..));
                for batch in batches {
                    if let Some(writer) = writer.as_mut().filter(|_| step.is_ok())
                        && let Err(message) = writer.take(tick, batch)
                    {
                        step = Err(message);
                    }
                }
            });
            let frontier = frontier.frontier().first().copied().unwrap_or(CLOSED);
            if let Some(writer) = &mut writer {
                step = step.and_then(|_| writer.advance(frontier).map(Some));
            }
            match step {
                Ok(Some(Step { hold, again })) => {
                    if let Some(held) = held.as_mut().filter(|held| *held.time() < hold) {
                        held.downgrade(&hold);
                    }
                    // One whose turn has not come yet still has something to open when it has.
                    if hold == CLOSED && writer.as_ref().is_none_or(|writer| writer.is_over) {
                        held = None;
                    }
                    if again {
                        activator.activate_after(PATIENCE);
                    }
                }
                Ok(None) => {}
                Err(message) => {
                    fail(message);
                    writer = None;
                }
            }
            if writer.is_none() && held.is_some() {
                if lets_go() {
                    held = None;
                } else {
                    // Nothing else wakes it once its input has ended.
                    activator.activate_after(PATIENCE);
                }
            }
        }
    })
}

/// What a sink does next.
struct Step {
    /// All that it has to write before this time is confirmed.
    hold: Time,
    /// It must look again, also if nothing arrives.
    again: bool,
}

/// The difference between what the sink before has shown and what is true.
struct Corrections {
    /// The tick with which they are written.
    at: Time,
    rows: Vec<(i8, RecordBatch)>,
    /// What the sink before has shown.
    before: Standing,
}

/// A sink and the rows that are on their way to it.
struct Writer<S> {
    sink: S,
    handle: SinkHandle,
    /// Rows by tick, until that is complete and it is the sink's turn.
    waiting: BTreeMap<Time, Vec<Batch>>,
    /// Of those, rows that the sources wait for because it is not its turn.
    counted: usize,
    held: Arc<Backlog>,
    /// Rows that it, or the sink before it, has shown and that may change.
    standing: Option<Standing>,
    corrections: Option<Corrections>,
    is_open: bool,
    /// It has nothing left to do.
    is_over: bool,
    noted: Written,
}

impl<S: Sink> Writer<S> {
    fn new(sink: S, handle: SinkHandle) -> Result<Self, String> {
        let standing = sink.writes_changes().then(Standing::default);
        let held = handle.held();
        let (waiting, noted) = (BTreeMap::new(), Written::default());
        let (is_open, is_over) = (false, false);
        let mut writer =
            Self { sink, handle, waiting, counted: 0, held, standing, corrections: None, is_open, is_over, noted };
        if writer.handle.turn(0) == Turn::Write {
            writer.open()?;
        }
        Ok(writer)
    }

    fn take(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        match self.handle.claim(tick, batch.origin) {
            Claim::Later => {}
            Claim::Earlier => self.show(&batch)?,
            Claim::Write if self.is_open && self.sink.writes_at_once() => self.sink.write(tick, batch)?,
            Claim::Write | Claim::Wait => self.waiting.entry(tick).or_default().push(batch),
        }
        Ok(())
    }

    /// Notes rows that are shown and may change.
    fn show(&mut self, batch: &Batch) -> Result<(), String> {
        match &mut self.standing {
            Some(standing) if !batch.settled => {
                standing.add(&batch.rows, batch.diff).map_err(|error| format!("rows cannot be compared: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn advance(&mut self, frontier: Time) -> Result<Step, String> {
        let turn = self.handle.turn(frontier);
        if self.is_over {
            return Ok(Step { hold: frontier, again: false });
        }
        if turn != Turn::Write {
            return self.wait(turn, frontier);
        }
        if !self.is_open && !self.open()? {
            return Ok(Step { hold: self.noted.upto, again: true });
        }
        let (limit, ends) = (self.handle.limit(frontier), self.handle.ends(frontier));
        self.correct(limit)?;
        self.write(frontier)?;
        let then = match frontier {
            _ if ends => Then::Another,
            CLOSED => Then::Nothing,
            _ if self.handle.is_parking() => Then::Stop,
            _ => Then::More,
        };
        let written = self.flush(limit, then)?;
        let is_through = written.is_idle && self.noted.upto >= written.upto;
        let is_over = is_through && matches!(then, Then::Another | Then::Nothing);
        if is_over {
            if ends && limit < CLOSED && !self.handle.confirm(limit, written.detail)? {
                return Ok(Step { hold: self.noted.upto, again: true });
            }
            // Another change has come within the tick: what the next sink finds is what the one before this has shown.
            let before = self.corrections.take().map(|corrections| corrections.before);
            if let Some(standing) = before.or(self.standing.take()) {
                self.handle.leave(&self.sink.target(), standing);
            }
            self.is_over = true;
            self.handle.finished();
            return Ok(Step { hold: frontier, again: false });
        }
        if then == Then::Stop && (is_through || written.is_stalled) {
            self.handle.parked();
        }
        Ok(Step { hold: self.noted.upto.min(frontier), again: !is_through || then != Then::More })
    }

    /// It is not its turn yet.
    fn wait(&mut self, turn: Turn, frontier: Time) -> Result<Step, String> {
        if turn == Turn::Prepare {
            self.sink.check()?;
            if self.handle.is_given_up() {
                self.waiting.clear();
                self.count(0);
                self.is_over = true;
                return Ok(Step { hold: CLOSED, again: false });
            }
        }
        self.let_go()?;
        let first = self.waiting.first_key_value().map_or(frontier, |(tick, _)| *tick);
        Ok(Step { hold: first.min(frontier), again: true })
    }

    /// Forgets waiting rows that the sink before this one has written meanwhile; the others count as held.
    fn let_go(&mut self) -> Result<(), String> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut rows = 0;
        for (tick, batches) in waiting {
            for batch in batches {
                match self.handle.claim(tick, batch.origin) {
                    Claim::Earlier => self.show(&batch)?,
                    Claim::Later => {}
                    Claim::Write | Claim::Wait => {
                        rows += batch.rows.num_rows();
                        self.waiting.entry(tick).or_default().push(batch);
                    }
                }
            }
        }
        self.count(rows);
        Ok(())
    }

    /// So many rows are held because it is not the sink's turn.
    fn count(&mut self, rows: usize) {
        self.held.sent(rows);
        self.held.arrived(std::mem::replace(&mut self.counted, rows));
    }

    /// Goes on where the last writer was. False if it cannot be noted now: then nothing may be written.
    fn open(&mut self) -> Result<bool, String> {
        let target = self.sink.target();
        let opening = self.handle.open(&target)?;
        self.sink.open(opening.from, &opening.detail)?;
        self.is_open = true;
        self.noted.upto = opening.from;
        let written = self.sink.written()?;
        if !self.handle.confirm(written.upto, written.detail.clone())? {
            self.is_open = false;
            return Ok(false);
        }
        self.noted = written;
        self.sink.noted()?;
        self.let_go()?;
        self.count(0);
        // Of what was shown before, at a start, this sink knows as much as the last one: it is the same rows.
        if let (Some(standing), true) = (&self.standing, opening.takes_over) {
            let before = opening.standing.unwrap_or_default();
            let changes =
                standing.changes_from(&before).map_err(|error| format!("rows cannot be compared: {error}"))?;
            let rows: Vec<(i8, RecordBatch)> = changes.into_iter().collect();
            let taken_back = rows.iter().filter(|(diff, _)| *diff < 0).map(|(_, rows)| rows.num_rows()).sum();
            self.handle.took_back(taken_back);
            self.corrections = Some(Corrections { at: opening.from, rows, before });
        }
        Ok(true)
    }

    /// Gives the sink the corrections, if it writes the tick that they belong to: `limit` is behind what it writes.
    fn correct(&mut self, limit: Time) -> Result<(), String> {
        let is_due = |corrections: &mut Corrections| limit > corrections.at || self.sink.writes_at_once();
        if let Some(corrections) = self.corrections.take_if(is_due) {
            for (diff, rows) in corrections.rows {
                self.sink.write(corrections.at, Batch { diff, settled: false, ..Batch::new(rows) })?;
            }
        }
        Ok(())
    }

    /// Gives the sink the rows of complete ticks.
    fn write(&mut self, frontier: Time) -> Result<(), String> {
        let at_once = self.sink.writes_at_once();
        while let Some(entry) = self.waiting.first_entry().filter(|entry| at_once || *entry.key() < frontier) {
            let (tick, batches) = entry.remove_entry();
            for batch in batches {
                match self.handle.claim(tick, batch.origin) {
                    Claim::Write => {
                        self.show(&batch)?;
                        self.sink.write(tick, batch)?;
                    }
                    Claim::Earlier => self.show(&batch)?,
                    Claim::Later | Claim::Wait => {}
                }
            }
        }
        Ok(())
    }

    /// Has the sink write what it was given, and notes how far it is.
    fn flush(&mut self, limit: Time, then: Then) -> Result<Written, String> {
        for _ in 0..AT_ONCE {
            self.sink.flush(limit, then)?;
            let written = self.sink.written()?;
            if (written.upto, &written.detail) != (self.noted.upto, &self.noted.detail) {
                if !self.handle.confirm(written.upto, written.detail.clone())? {
                    return Ok(written);
                }
                self.noted = written.clone();
                self.sink.noted()?;
            }
            if !written.goes_on {
                return Ok(written);
            }
        }
        self.sink.written()
    }
}

impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        self.held.arrived(self.counted);
    }
}
