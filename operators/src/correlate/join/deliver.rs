//! From what was decided to batches, each of one message time, and of one log where rows of several come.

use arrow::error::ArrowError;
use engine::batch::{Batch, MAX_ROWS, Origin, Time};

use super::{Input, Join, Outbox, alone, message_time};
use crate::correlate::matcher::{Decision, END, Side};

/// Where rows leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Main,
    /// At the message time at which the row came.
    Late(Time),
    Evicted,
}

impl Join {
    /// Turns outcomes into batches, and lets go of their rows.
    pub(super) fn deliver(&mut self, out: &mut Outbox) -> Result<(), ArrowError> {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let closed = self.taken == END;
        self.monitor.observe(&outcomes.delays, closed);
        self.sort(&mut outcomes.decisions);
        self.counters.outcomes(&outcomes);
        self.send(&outcomes.decisions, Port::Main, out)?;
        let hellos = |sides: &[Side]| sides.iter().map(|side| alone(Input::Hello, *side)).collect::<Vec<_>>();
        if self.settings.emit_hellos {
            outcomes.alone.sort_by_key(|side| side.time);
            self.send(&hellos(&outcomes.alone), Port::Main, out)?;
        } else {
            outcomes.alone.iter().for_each(|side| self.hellos.release(side.row));
        }
        self.send(&hellos(&outcomes.evicted), Port::Evicted, out)?;
        outcomes.finished.iter().for_each(|row| self.hellos.release(*row));
        // The memory is used again.
        outcomes.clear();
        self.outcomes = outcomes;
        Ok(())
    }

    /// Puts decisions in order: requests that have waited for a hello come behind younger ones that have not.
    fn sort(&self, decisions: &mut [Decision]) {
        if self.requests.is_mixed() {
            // What leaves together is of one step and one log.
            let step = self.settings.step;
            decisions.sort_by_key(|one| (one.time().div_euclid(step), self.origin(one), one.time()));
        } else {
            decisions.sort_by_key(Decision::time);
        }
    }

    /// The log of the request, or of a hello that leaves alone.
    fn origin(&self, decision: &Decision) -> Origin {
        match decision {
            Decision::Matched { request, .. } | Decision::Request { request } => self.requests.origin(request.row),
            Decision::Hello { hello } => self.hellos.origin(hello.row),
        }
    }

    /// Turns decisions into batches and lets go of requests, and of hellos that leave alone.
    pub(super) fn send(&mut self, decisions: &[Decision], port: Port, out: &mut Outbox) -> Result<(), ArrowError> {
        let step = self.settings.step;
        let is_mixed = self.requests.is_mixed() || self.hellos.is_mixed();
        let is_of_step =
            |a: &Decision, b: &Decision| port != Port::Main || a.time().div_euclid(step) == b.time().div_euclid(step);
        let chunks: Vec<&[Decision]> = decisions
            .chunk_by(|a, b| is_of_step(a, b) && (!is_mixed || self.origin(a) == self.origin(b)))
            .flat_map(|chunk| chunk.chunks(MAX_ROWS))
            .collect();
        for chunk in chunks {
            let rows = self.emitter.batch(chunk, &self.requests, &self.hellos)?;
            if port == Port::Main {
                self.counters.rows(chunk, &rows);
            }
            let origin = chunk.first().map_or(0, |first| self.origin(first));
            let batch = Batch { late: port != Port::Main, origin, ..Batch::new(rows) };
            match port {
                Port::Main => {
                    let time = chunk.first().map_or(0, |first| message_time(first.time(), step));
                    out.main.push((time, batch));
                }
                Port::Late(time) => out.late.push((time, batch)),
                Port::Evicted => out.evicted.push(batch),
            }
        }
        for decision in decisions {
            match decision {
                Decision::Matched { request, .. } | Decision::Request { request } => self.requests.release(request.row),
                Decision::Hello { hello } => self.hellos.release(hello.row),
            }
        }
        Ok(())
    }
}
