//! Rows in their order: which group each belongs to, and what they do to the states.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, UInt64Array};
use datafusion::error::DataFusionError;
use engine::batch::{MAX_ROWS, Time};
use engine::contract::NodeMetrics;

use super::{Sent, Window};
use crate::aggregate::pending::Ordered;
use crate::aggregate::program::Place;
#[cfg(doc)]
use crate::aggregate::program::ordered_fields;

/// A bound that is hit makes room for this share of it at once.
const EVICTED_SHARE: usize = 64;

/// Rows that are taken at once: the columns of their order, as [`ordered_fields`] has them, and their groups.
#[derive(Default)]
struct Chunk {
    groups: Vec<u32>,
    gaps: Vec<Option<f64>>,
    prev_gaps: Vec<Option<f64>>,
    nths: Vec<u64>,
    /// Groups whose rows in the live relation are not true any more.
    retracted: Vec<u32>,
}

impl Window {
    /// Adds the next rows to their groups. Rows that changed groups had in the live relation are taken back at `time`.
    pub(super) fn process(
        &mut self,
        rows: &mut Ordered,
        time: Time,
        sent: &mut Vec<Sent>,
    ) -> Result<usize, DataFusionError> {
        let chunk = self.find_groups(rows, time, sent)?;
        for retracted in chunk.retracted.chunks(MAX_ROWS) {
            self.relation(retracted, -1, false, time, sent)?;
        }
        let handled = chunk.groups.len();
        self.update_states(rows, chunk)?;
        rows.advance(handled);
        Ok(handled)
    }

    /// The groups of the next rows; those that do not exist yet start. If there is no room for one, the oldest are ended
    /// at `time`.
    fn find_groups(&mut self, rows: &Ordered, time: Time, sent: &mut Vec<Sent>) -> Result<Chunk, DataFusionError> {
        let wanted = rows.chunk(self.end().unwrap_or(i64::MAX));
        let mut chunk = Chunk { groups: Vec::with_capacity(wanted), ..Chunk::default() };
        for ahead in 0..wanted {
            let (event, hash, key) = rows.row(ahead);
            let number = match self.groups.find(hash, key) {
                Some(number) => number,
                None => {
                    if self.groups.units() >= self.settings.max_groups {
                        // The rows before this one must be in the states of their groups before these can end.
                        if ahead > 0 {
                            break;
                        }
                        self.make_room(time, sent)?;
                    }
                    self.groups.start(hash, key)
                }
            };
            let group = self.groups.at_mut(number);
            if self.settings.live && self.silent.is_none() && !group.changed {
                group.changed = true;
                self.changed.push(number);
                if std::mem::take(&mut group.shown) {
                    chunk.retracted.push(number);
                }
            }
            let (gap, prev_gap, nth) = group.note(event);
            chunk.gaps.push(gap);
            chunk.prev_gaps.push(prev_gap);
            chunk.nths.push(nth);
            chunk.groups.push(number);
        }
        Ok(chunk)
    }

    /// Ends the groups that started first, some at once, so that this is not needed again for the next group.
    fn make_room(&mut self, time: Time, sent: &mut Vec<Sent>) -> Result<(), DataFusionError> {
        let evicted = (self.settings.max_groups / EVICTED_SHARE).clamp(1, MAX_ROWS);
        let evicted = self.finalise(evicted, time, sent)?;
        NodeMetrics::add(&self.metrics.evicted, evicted);
        Ok(())
    }

    /// Adds the next rows, whose groups are known, to the states.
    fn update_states(&mut self, rows: &Ordered, chunk: Chunk) -> Result<(), DataFusionError> {
        let program = &self.settings.program;
        let Chunk { groups, gaps, prev_gaps, nths, .. } = chunk;
        let early = rows.columns(groups.len())?;
        let width = self.groups.width();
        self.latest.iter_mut().for_each(|latest| latest.grow(width));
        let latest = program.latest(&mut self.latest, &groups, &early)?;
        let ordered = if program.ordered.is_empty() {
            Vec::new()
        } else {
            let order: [ArrayRef; 3] = [
                Arc::new(Float64Array::from(gaps)),
                Arc::new(Float64Array::from(prev_gaps)),
                Arc::new(UInt64Array::from(nths)),
            ];
            let (ordered, failed) = program.ordered(order, &latest, &early)?;
            NodeMetrics::add(&self.not_computed, failed);
            ordered
        };
        let column = |place: Place| match place {
            Place::Early(index) => &early[index],
            Place::Ordered(index) => &ordered[index],
        };
        for (kept, state) in program.states.iter().zip(&mut self.states) {
            state.grow(width);
            let estimated = state.update(&groups, kept.argument.map(column), kept.filter.map(column));
            NodeMetrics::add(&self.estimated, estimated);
        }
        Ok(())
    }
}
