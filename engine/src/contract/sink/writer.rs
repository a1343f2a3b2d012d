//! When a sink writes what: rows wait until their tick is complete and it is the sink's turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{CLOSED, Sink, Then, Written};
use crate::batch::{Batch, Time};
use crate::contract::sink_handle::{Claim, SinkHandle, Turn};
use crate::contract::standing::Standing;
use crate::time::Backlog;

/// How often a sink is asked again at once, before other operators get their turn.
const AT_ONCE: usize = 8;

/// What a sink does next.
pub(super) struct Step {
    /// All that it has to write before this time is confirmed.
    pub hold: Time,
    /// It must look again, also if nothing arrives.
    pub again: bool,
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
pub(super) struct Writer<S> {
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
    pub fn new(sink: S, handle: SinkHandle) -> Result<Self, String> {
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

    /// Whether it has nothing left to do.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes rows of a tick.
    pub fn take(&mut self, tick: Time, batch: Batch) -> Result<(), String> {
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

    /// Writes what is complete at `frontier`, if it is its turn.
    pub fn advance(&mut self, frontier: Time) -> Result<Step, String> {
        let turn = self.handle.turn(frontier);
        if self.is_over {
            return Ok(Step { hold: frontier, again: false });
        }
        if turn != Turn::Write {
            return self.wait(turn, frontier);
        }
        if self.handle.is_store_away() {
            if self.handle.is_parking() {
                // The next run writes what waits.
                self.handle.parked();
            }
            return Ok(Step { hold: self.noted.upto, again: true });
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
                return Ok(self.give_up());
            }
        }
        if self.handle.is_called_off() && self.handle.lets_go() {
            return Ok(self.give_up());
        }
        self.let_go()?;
        let first = self.waiting.first_key_value().map_or(frontier, |(tick, _)| *tick);
        Ok(Step { hold: first.min(frontier), again: true })
    }

    /// It never writes anything.
    fn give_up(&mut self) -> Step {
        self.waiting.clear();
        self.count(0);
        self.is_over = true;
        Step { hold: CLOSED, again: false }
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
        self.handle.has_opened();
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
            let is_new = (written.upto, &written.detail) != (self.noted.upto, &self.noted.detail);
            if is_new || self.handle.is_note_lost() {
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
