//! The client's bytes of one connection, put in order until a hello is complete.
//!
//! Where segments overlap, the bytes seen first win, whatever the later ones contain: a later copy with other bytes is
//! how a capture point is misled.
//!
//! Whoever sends the segments chooses how many pieces there are. A segment therefore costs a search in them, its own
//! bytes, and what it joins, which is joined once: never a walk over all pieces.

use std::collections::btree_map::{self, BTreeMap};

use super::hello::Arrival;
use super::records::Walk;

/// Memory that one out-of-order piece takes beside its bytes: its share of a half-full node of the tree, and what the
/// allocator adds to a small allocation.
const PIECE_OVERHEAD: usize = 2 * size_of::<(i64, Vec<u8>)>() + 32;

/// Memory of a tree's first node, which has room for 11 pieces.
const TREE: usize = 11 * size_of::<(i64, Vec<u8>)>() + 16;

/// A piece of up to so many bytes is joined with the one before it. Bounds the bytes that a segment moves beside its own,
/// and the pieces that bytes without a gap are in.
const JOINED: usize = 256;

/// Bytes in order from a base sequence number, and pieces that came ahead of a gap. The base belongs to the connection
/// and is given to each call.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// What follows the base without a gap.
    data: Vec<u8>,
    /// By distance from `origin`. They do not overlap; each begins after `data` ends unless the stream's start is
    /// unknown.
    pieces: BTreeMap<i64, Vec<u8>>,
    /// Capacity of all pieces together, in bytes.
    piece_bytes: usize,
    /// A sequence number that stays while there are pieces: the base moves on.
    origin: u32,
    /// Segments taken, repetitions included; while the start is unknown only those that brought something.
    segments: usize,
    /// `data` is worth parsing when it is this long.
    need: usize,
    /// How far `data` has been parsed in vain.
    pub walk: Walk,
    /// The packet that brought bytes last.
    pub latest: Option<Arrival>,
}

/// What a segment brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brought {
    /// Nothing that was not known.
    Nothing,
    /// Nothing, because all of it lies beyond the window.
    Beyond,
    /// Bytes ahead of a gap.
    Ahead,
    /// More bytes in order.
    InOrder,
}

impl Assembly {
    /// Starts with bytes in order from the base, parsed in vain as far as `walk` says.
    pub(crate) fn starting_with(data: &[u8], need: usize, walk: Walk) -> Self {
        // Room for what is needed, but not more than growth would take: the sender says how much is needed.
        let mut room = Vec::with_capacity(need.clamp(data.len(), 2 * data.len()));
        room.extend_from_slice(data);
        Self { data: room, segments: 1, need, walk, ..Self::default() }
    }

    /// Adds the part of `payload` that lies in the `window` bytes after `base`.
    pub(crate) fn insert(&mut self, base: u32, seq: u32, payload: &[u8], window: usize) -> Brought {
        self.segments += 1;
        let (known, start) = (self.data.len(), distance(base, seq));
        if start >= window as i64 {
            return Brought::Beyond;
        }
        let Some((start, fresh)) = clip(start, payload, known as i64, window as i64) else {
            return Brought::Nothing;
        };
        if start == known as i64 && self.pieces.is_empty() {
            self.data.extend_from_slice(fresh);
        } else if !self.merge(base, start, fresh) {
            return Brought::Nothing;
        }
        self.absorb(base);
        if self.data.len() > known { Brought::InOrder } else { Brought::Ahead }
    }

    /// Adds `payload` while the start of the stream is unknown: anything within `window` bytes before or after `base`.
    pub(crate) fn hold(&mut self, base: u32, seq: u32, payload: &[u8], window: usize) -> Brought {
        match clip(distance(base, seq), payload, -(window as i64), window as i64) {
            Some((start, fresh)) if self.merge(base, start, fresh) => {
                self.segments += 1;
                Brought::Ahead
            }
            _ => Brought::Nothing,
        }
    }

    /// The bytes in order, if there are enough to be worth parsing.
    pub(crate) fn ready(&self) -> Option<&[u8]> {
        (self.data.len() >= self.need.max(1)).then_some(&self.data)
    }

    /// Drops `consumed` bytes, which may be more than there are, and moves on to `base` behind them. The rest is worth
    /// parsing when there are `need` bytes of it, from where `walk` says. Gives back what it held if nothing is left.
    pub(crate) fn advance(&mut self, base: u32, consumed: usize, need: usize, walk: Walk) -> Option<Vec<u8>> {
        let all = if consumed < self.data.len() {
            self.data.drain(..consumed);
            None
        } else {
            Some(std::mem::take(&mut self.data)) // often nothing follows
        };
        (self.need, self.walk) = (need, walk);
        self.absorb(base);
        all
    }

    /// Whether `payload` holds other bytes than those known for the same places.
    pub(crate) fn contradicts(&self, base: u32, seq: u32, payload: &[u8]) -> bool {
        let differs = |start: i64, at: i64, known: &[u8]| {
            let (from, to) = (start.max(at), (start + payload.len() as i64).min(at + known.len() as i64));
            from < to
                && payload[(from - start) as usize..(to - start) as usize]
                    != known[(from - at) as usize..(to - at) as usize]
        };
        if differs(distance(base, seq), 0, &self.data) {
            return true;
        }
        let start = distance(self.origin, seq);
        let below = self.pieces.range(..start + payload.len() as i64).rev();
        let mut inside = below.take_while(|(at, known)| **at + known.len() as i64 > start);
        inside.any(|(at, known)| differs(start, *at, known))
    }

    /// The bytes in order.
    pub(crate) fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// All pieces by sequence number; the bytes in order begin at `base`.
    pub(crate) fn into_parts(self, base: u32) -> impl Iterator<Item = (u32, Vec<u8>)> {
        let Self { data, pieces, origin, .. } = self;
        let ahead = pieces.into_iter().map(move |(at, bytes)| (origin.wrapping_add(at as u32), bytes));
        [(base, data)].into_iter().filter(|(_, data)| !data.is_empty()).chain(ahead)
    }

    /// How many bytes are in order.
    pub(crate) fn in_order(&self) -> usize {
        self.data.len()
    }

    /// Segments taken so far, repetitions included: each costs work.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    /// Starts the count of segments again.
    pub(crate) fn reset_segments(&mut self) {
        self.segments = 0;
    }

    /// Memory held beside the structure itself, in bytes.
    pub(crate) fn held(&self) -> usize {
        let tree = if self.pieces.is_empty() { 0 } else { TREE };
        self.data.capacity() + tree + self.pieces.len() * PIECE_OVERHEAD + self.piece_bytes
    }

    /// Nothing is stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.pieces.is_empty()
    }

    /// Fills the gaps between the pieces with `bytes`, which start `start` bytes after `base`. False if nothing fitted.
    fn merge(&mut self, base: u32, start: i64, mut bytes: &[u8]) -> bool {
        if self.pieces.is_empty() {
            self.origin = base;
        }
        let mut start = start + distance(self.origin, base);
        // First and last place of a piece.
        let ends = |(at, known): (&i64, &Vec<u8>)| (*at, *at + known.len() as i64);
        let mut left = self.pieces.range(..start + bytes.len() as i64).next_back().map(ends);
        if left.is_none_or(|(_, end)| end <= start) {
            self.put(start, bytes.to_vec(), left);
            return true;
        }
        left = self.pieces.range(..start).next_back().map(ends);
        if let Some((_, end)) = left {
            skip(&mut start, &mut bytes, end);
        }
        let end = start + bytes.len() as i64;
        // A piece that reaches beyond stays where it is.
        if let Some((at, known)) = self.pieces.range(start..end).next_back()
            && at + known.len() as i64 > end
        {
            bytes = &bytes[..(at - start) as usize];
        }
        let end = start + bytes.len() as i64;
        let covered: usize = self.pieces.range(start..end).map(|(_, known)| known.len()).sum();
        if covered == bytes.len() {
            return false;
        }
        let mut whole = bytes.to_vec();
        for (at, known) in self.pieces.extract_if(start..end, |_, _| true) {
            self.piece_bytes -= known.capacity();
            whole[(at - start) as usize..][..known.len()].copy_from_slice(&known);
        }
        self.put(start, whole, left);
        true
    }

    /// Adds a piece, joined with its neighbours where no gap is between; `left` is where the one before it begins and ends.
    fn put(&mut self, at: i64, mut bytes: Vec<u8>, left: Option<(i64, i64)>) {
        let behind = at + bytes.len() as i64;
        if let btree_map::Entry::Occupied(right) = self.pieces.entry(behind)
            && right.get().len() <= JOINED
        {
            self.piece_bytes -= right.get().capacity();
            bytes.extend_from_slice(&right.remove());
        }
        if let Some((before, _)) = left.filter(|(_, end)| *end == at && bytes.len() <= JOINED)
            && let Some(left) = self.pieces.get_mut(&before)
        {
            self.piece_bytes -= left.capacity();
            left.extend_from_slice(&bytes);
            self.piece_bytes += left.capacity();
            return;
        }
        self.piece_bytes += bytes.capacity();
        self.pieces.insert(at, bytes);
    }

    /// Moves pieces that no gap separates any more to the bytes in order.
    fn absorb(&mut self, base: u32) {
        while let Some(piece) = self.pieces.first_entry() {
            let known = self.data.len() as i64 + distance(self.origin, base) - piece.key();
            if known < 0 {
                break;
            }
            let bytes = piece.remove();
            self.piece_bytes -= bytes.capacity();
            self.data.extend_from_slice(bytes.get(known as usize..).unwrap_or_default());
        }
    }
}

/// How far `seq` lies after `base`, in sequence space (RFC 9293 section 3.4): wraps around.
pub(crate) fn distance(base: u32, seq: u32) -> i64 {
    i64::from(seq.wrapping_sub(base) as i32)
}

/// Drops what lies before `until` from the front of `bytes`, which starts at `start`.
fn skip(start: &mut i64, bytes: &mut &[u8], until: i64) {
    let len = usize::try_from(until - *start).unwrap_or(0).min(bytes.len());
    *bytes = &bytes[len..];
    *start += len as i64;
}

/// The part of `payload`, which starts at `start`, between `from` and `to`, with its own start.
fn clip(start: i64, payload: &[u8], from: i64, to: i64) -> Option<(i64, &[u8])> {
    let end = (start + payload.len() as i64).min(to);
    let begin = start.max(from);
    (begin < end).then(|| (begin, &payload[(begin - start) as usize..(end - start) as usize]))
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
