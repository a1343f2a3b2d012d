//! A hello that is complete: as it waits, and what is kept of it when it has left.

use super::contest::Rank;
use super::hello::{Arrival, Hello};

/// A hello that waits to be handed on: until the server acknowledges it, or some time has passed.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Of a datagram; that of a segment is read again from its bytes, which take less than it does.
    pub hello: Option<Box<Hello>>,
    /// The second hello, which follows.
    pub sequel: Option<Box<Hello>>,
    pub arrival: Arrival,
    /// Of what it was read from.
    pub rank: Rank,
    /// Sequence number of its first byte.
    pub from: u32,
    /// What it was read from, from there on.
    pub bytes: Vec<u8>,
    /// They came in one segment.
    pub is_whole: bool,
    /// Names the entry of the queue that ends the wait.
    pub number: u64,
}

impl Waiting {
    /// Memory that it takes, beside that of texts.
    pub(crate) fn held(&self) -> usize {
        size_of::<Self>()
            + self.bytes.capacity()
            + [&self.hello, &self.sequel].into_iter().flatten().count() * size_of::<Hello>()
    }

    /// Others may be the client's.
    pub(crate) fn doubt(&mut self) {
        for hello in [&mut self.hello, &mut self.sequel].into_iter().flatten() {
            hello.ambiguous = true;
        }
    }

    /// Sequence number after its last byte.
    pub(crate) fn end(&self) -> u32 {
        self.from.wrapping_add(self.bytes.len() as u32)
    }
}

/// Where the first look at a client's bytes ended: with a hello that was handed on, or without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    /// Sequence number of the first byte looked at.
    pub from: u32,
    /// Bytes of the hello; 0 if there was none.
    pub len: u32,
    /// The first bytes of its random.
    pub random: [u8; 8],
    /// A keyed hash of all of it.
    pub digest: u64,
}
