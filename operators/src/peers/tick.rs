//! The close of a tick: partitions are computed, and what differs from what was given leaves.

use std::rc::Rc;

use arrow::error::ArrowError;
use engine::batch::{Batch, MAX_ROWS, Time};
use engine::contract::NodeMetrics;

use super::layout::{Codec, Encoded};
use super::state::{Held, Ident, Mark, Stage, State};

/// A row with its added columns, as it goes downstream.
pub(super) struct Gone {
    pub row: Encoded,
    pub added: Rc<[u8]>,
    pub mark: Mark,
}

/// What leaves at the close of a tick.
#[derive(Default)]
pub(super) struct Given {
    /// Rows that are taken back.
    pub take_back: Vec<Gone>,
    /// New rows that may be taken back later.
    open: Vec<Gone>,
    /// New rows that stay.
    settled: Vec<Gone>,
}

impl Given {
    /// Gives a row downstream.
    pub fn give(&mut self, row: Gone, stage: Stage) {
        let to = if stage == Stage::Open { &mut self.open } else { &mut self.settled };
        to.push(row);
    }

    /// Makes batches of it: first of what is taken back.
    ///
    /// # Errors
    /// If rows cannot be decoded.
    pub fn send(self, codec: &Codec, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        for (diff, settled, mut rows) in [(-1, false, self.take_back), (1, false, self.open), (1, true, self.settled)] {
            rows.sort_by_key(|row| row.mark);
            for same in rows.chunk_by(|a, b| a.mark == b.mark).flat_map(|same| same.chunks(MAX_ROWS)) {
                let Mark { leaves, late, origin } = same[0].mark;
                let rows = codec.decode(same.iter().map(|gone| (&gone.row, &*gone.added)))?;
                out.push((leaves, Batch { diff, settled, late, origin, ..Batch::new(rows) }));
            }
        }
        Ok(())
    }
}

impl State {
    /// Computes a partition. Rows whose added columns are not those that were given are replaced.
    pub(super) fn compute(&mut self, partition: &[u8], tick: Time, given: &mut Given) -> Result<(), ArrowError> {
        let mut idents: Vec<Ident> = Vec::new();
        let (mut count, mut to_give) = (0, 0);
        for (ident, held) in self.partition(partition) {
            count += 1;
            to_give += usize::from(held.stage != Stage::Peer);
            // What is too large is not computed, so only rows that are given are needed of it.
            if count <= self.settings.max_peers || held.stage != Stage::Peer {
                idents.push(ident.clone());
            }
        }
        if to_give == 0 {
            return Ok(());
        }
        let added = if count > self.settings.max_peers {
            NodeMetrics::add(&self.too_many_peers, 1);
            None
        } else {
            let rows = self.codec.heads(idents.iter().map(|(row, _)| row.head()))?;
            let computed = self.windows.evaluate(&rows);
            let (added, failed) = computed.map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
            NodeMetrics::add(&self.not_computed, failed);
            Some(self.codec.encode_added(&added)?)
        };
        let nulls = Rc::clone(self.codec.nulls());
        for (at, ident) in idents.into_iter().enumerate() {
            let Some(held) = self.rows.get(&ident).filter(|held| held.stage != Stage::Peer) else { continue };
            let added = added.as_ref().map(|added| added.row(at).data());
            if held.stage == Stage::Open && held.given.as_deref() == Some(added.unwrap_or(&nulls)) {
                continue;
            }
            let added: Rc<[u8]> = added.map_or_else(|| Rc::clone(&nulls), Rc::from);
            let (mark, stage) = (self.mark(held, tick), held.stage);
            let before = self.rows.get_mut(&ident).and_then(|held| held.given.replace(Rc::clone(&added)));
            given.take_back.extend(before.map(|added| Gone { row: ident.0.clone(), added, mark }));
            given.give(Gone { row: ident.0.clone(), added, mark }, stage);
            if stage == Stage::Settling {
                self.settle(ident, tick);
            }
        }
        Ok(())
    }

    /// A row has been given for the last time: it is a peer of others until it is too old.
    fn settle(&mut self, ident: Ident, tick: Time) {
        let Some(held) = self.release(ident.clone()) else { return };
        if held.until > tick {
            let head = Encoded { bytes: ident.0.head().into(), ..ident.0 };
            self.hold(head, Held { stage: Stage::Peer, given: None, ..held });
        }
    }
}
