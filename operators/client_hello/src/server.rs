//! What the server's side of a TCP connection has shown.

use super::assembly::distance;
use super::tcp::{Segment, option};

/// How far the server is, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Server {
    /// Sequence number of its first byte: the least that a client acknowledges.
    start: u32,
    /// Sequence number after the last byte that it has sent.
    next: u32,
    /// What it has acknowledged.
    acked: u32,
    /// `start` and `next` are known from its own segments.
    pub answered: bool,
    /// `start` is known, at least from what the client acknowledged first.
    is_known: bool,
    /// `acked` is known.
    acks: bool,
    /// Its SYN has a timestamp: from then on every segment has one (RFC 7323 section 3.2).
    pub has_clock: bool,
}

impl Server {
    /// Without the server's own segments, a client is believed to have been sent this much before its hello.
    const UNSEEN: u32 = 1 << 16;

    /// Takes the SYN with which the server accepts.
    pub(crate) fn accepted(&mut self, segment: &Segment<'_>) {
        let start = segment.seq.wrapping_add(1);
        if !self.answered || self.start != start {
            let has_clock = option::timestamp(segment.options).is_some();
            *self = Self { start, next: start, answered: true, is_known: true, has_clock, ..*self };
        }
    }

    /// Takes any other segment of the server.
    pub(crate) fn sent(&mut self, segment: &Segment<'_>) {
        let next = segment.seq.wrapping_add(segment.payload.len() as u32);
        if self.answered && distance(self.next, next) > 0 {
            self.next = next;
        }
    }

    /// Takes what the server acknowledges, at least `start`, the client's first byte; whether that is more than before.
    pub(crate) fn acknowledged(&mut self, start: u32, acked: u32) -> bool {
        let known = if self.acks { self.acked } else { start };
        let more = distance(known, acked) > 0 || !self.acks && known == acked;
        if more {
            (self.acked, self.acks) = (acked, true);
        }
        more
    }

    /// Takes what the client acknowledges in the segment that ends its handshake.
    pub(crate) fn assumed(&mut self, acked: u32) {
        if !self.is_known {
            (self.start, self.next, self.is_known) = (acked, acked.wrapping_add(Self::UNSEEN), true);
        }
    }

    /// Whether a client may acknowledge this (RFC 9293 section 3.10.7.4).
    pub(crate) fn may_be_acknowledged(&self, ack: u32) -> bool {
        !self.is_known || distance(self.start, ack) >= 0 && distance(ack, self.next) >= 0
    }

    /// What the server has acknowledged; `None` if nothing was seen.
    pub(crate) fn acked(&self) -> Option<u32> {
        self.acks.then_some(self.acked)
    }

    /// Whether it has acknowledged all before `end`.
    pub(crate) fn has(&self, end: u32) -> bool {
        self.acks && distance(end, self.acked) >= 0
    }
}
