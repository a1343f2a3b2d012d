//! When a hello leaves, and which one where a client has sent two.
//!
//! A hello leaves when the server has acknowledged it. Where the server's side is not captured it leaves after
//! `Limits::hold`. If another version of its bytes comes before, both are kept until then; if one comes later, its hello
//! leaves as well. Either way it is flagged.

use super::assembly::distance;
use super::connection::{Connection, Piece};
use super::contest::{Contest, Part, Rank, differs};
use super::fingerprint::Transport;
use super::flow::Stage;
use super::hello::{Arrival, Hello, describe};
use super::prelude::MAX_PRELUDE;
use super::tls::{self, Outcome};
use super::waiting::{Verdict, Waiting};

/// Where the first bytes of the random stand in a stream that begins with a hello.
const RANDOM: std::ops::Range<usize> = 11..19;

/// Segments that are kept of a client which does not begin with a hello, until the server acknowledges them.
const MAX_HIDING: usize = 16;

impl Connection<'_> {
    /// A first hello is complete, and not acknowledged: `bytes` from sequence number `from` on.
    pub(crate) fn wait(&mut self, arrival: &Arrival, from: u32, bytes: &[u8], is_all: bool) {
        let is_whole = self.segment == Some((from, bytes.len()));
        // Buffered bytes are taken over when they are let go.
        let kept = if self.is_buffered && is_all { Vec::new() } else { bytes.to_vec() };
        let number = self.queue.push(arrival.time, self.at);
        let (arrival, rank) = (*arrival, Rank::Trusted);
        let waiting = Waiting { hello: None, sequel: None, arrival, rank, from, bytes: kept, is_whole, number };
        self.flow.waiting = Some(Box::new(waiting));
    }

    /// Hands on the hello that waits.
    pub(crate) fn release(&mut self) {
        let Some(waiting) = self.flow.waiting.take() else { return };
        let Waiting { hello, sequel, arrival, from, bytes, .. } = *waiting;
        let hello = match hello {
            Some(hello) => *hello,
            None => match tls::client_hello(&bytes, self.joined, self.limits.max_hello_bytes) {
                Outcome::Hello(hello, _) => describe(self.flow, self.key, &arrival, Transport::Tcp, 0, &hello),
                // It was read from the same bytes before.
                _ => return,
            },
        };
        self.leave(hello, from, &bytes, self.flow.disputed);
        self.ready.extend(sequel.map(|sequel| {
            let ambiguous = sequel.ambiguous || self.flow.disputed;
            Hello { ambiguous, ..*sequel }
        }));
    }

    pub(crate) fn leave(&mut self, mut hello: Hello, from: u32, bytes: &[u8], ambiguous: bool) {
        let server = &self.flow.server;
        let (has_begin, has_all) =
            (server.has(from.wrapping_add(1)), server.has(from.wrapping_add(bytes.len() as u32)));
        // A server that has taken a part, and in all this time not the rest, may take another rest.
        let has_part = has_begin && !has_all;
        let is_unsure = (self.flow.is_unproven || self.flow.is_rivalled) && !server.answered && !has_all;
        hello.ambiguous |= ambiguous || has_part || is_unsure;
        self.flow.disputed |= hello.ambiguous;
        // What the server has taken is settled.
        if !has_begin {
            let random = bytes.get(RANDOM).and_then(|random| random.first_chunk().copied()).unwrap_or_default();
            let (len, digest) = (bytes.len() as u32, digest(self.seed, bytes));
            self.flow.verdict = Some(Box::new(Verdict { from, len, random, digest }));
        }
        self.ready.push(hello);
    }

    /// Whether this holds other bytes than the hello that waits or has left, or a hello where there was none. What the
    /// server has acknowledged is settled.
    pub(crate) fn is_other_version(&self, piece: &Piece<'_>) -> bool {
        if let Some(waiting) = &self.flow.waiting {
            // The same bytes, not sent alike, are kept as well: they may be all that is left of the client's own hello.
            let repeats = distance(piece.seq, waiting.end()) > 0 && waiting.arrival.group != piece.arrival.group;
            let is_cut = self.names_urgent(piece, waiting.from, waiting.end());
            return repeats || is_cut || differs(waiting.from, &waiting.bytes, piece.seq, piece.payload);
        }
        let Some(verdict) = self.flow.verdict.as_deref().filter(|_| !self.flow.disputed) else { return false };
        if self.flow.server.has(verdict.from.wrapping_add(1)) {
            return false;
        }
        if self.names_urgent(piece, verdict.from, verdict.from.wrapping_add(verdict.len)) {
            return true;
        }
        let ahead = usize::try_from(distance(piece.seq, verdict.from)).ok();
        let Some(bytes) = ahead.and_then(|ahead| piece.payload.get(ahead..)) else { return false };
        if verdict.len == 0 {
            return !bytes.is_empty() && tls::may_start(bytes);
        }
        if !tls::surely_starts(bytes) {
            return false;
        }
        match bytes.get(..verdict.len as usize) {
            Some(whole) => digest(self.seed, whole) != verdict.digest,
            None => bytes.get(RANDOM).is_some_and(|random| random != verdict.random),
        }
    }

    /// Whether a segment says that a byte between these is urgent, which the server may take out.
    fn names_urgent(&self, piece: &Piece<'_>, from: u32, end: u32) -> bool {
        let is_within = |urgent: u32| distance(from, urgent) >= 0 && distance(urgent, end) > 0;
        let open = |urgent: &u32| !self.flow.server.has(urgent.wrapping_add(1));
        piece.segment.urgent().filter(open).is_some_and(is_within)
    }

    /// A segment without data says that a byte is urgent: one that is to come, or that has not been acknowledged.
    pub(crate) fn announced(&mut self, piece: &Piece<'_>) {
        if self.flow.contest.is_some() {
            return self.contested(piece);
        }
        let is_open = match self.flow.stage {
            Stage::Unanchored => false,
            Stage::First => {
                let end = self.flow.base.wrapping_add(self.limits.max_hello_bytes as u32);
                self.names_urgent(piece, self.flow.base, end)
            }
            Stage::Second | Stage::Done => self.is_other_version(piece),
        };
        if is_open && piece.rank(self.flow) < Rank::Early {
            self.dispute(piece);
        }
    }

    /// There is no hello behind the first `consumed` bytes in order. If the server has not acknowledged them, they may be
    /// there to hide one: all that has come is kept.
    pub(crate) fn give_up(
        &mut self,
        consumed: usize,
        parts: impl IntoIterator<Item = (u32, Vec<u8>)>,
        arrival: &Arrival,
    ) {
        let parts: Vec<(u32, Vec<u8>)> = parts.into_iter().collect();
        let from = self.flow.base.wrapping_add(consumed as u32);
        self.flow.base = from;
        let end = parts.first().map_or(from, |(at, bytes)| at.wrapping_add(bytes.len() as u32));
        let settled = self.flow.server.has(from.wrapping_add(1)) && self.flow.server.has(end);
        let settled = settled || self.limits.hold.is_zero();
        if self.flow.stage != Stage::First || settled {
            return self.no_hello(from);
        }
        self.keep(Contest::limited(from, self.limits.max_hello_bytes, MAX_HIDING), parts, arrival);
    }

    fn keep(&mut self, mut contest: Contest, parts: impl IntoIterator<Item = (u32, Vec<u8>)>, arrival: &Arrival) {
        contest.number = self.queue.push(arrival.time, self.at);
        contest.add_known(parts, *arrival);
        (self.flow.assembly, self.flow.contest) = (None, Some(Box::new(contest)));
    }

    /// Whether bytes that go before a hello may not be what the server takes.
    pub(crate) fn is_unsure_of(&self, consumed: usize) -> bool {
        let end = self.flow.base.wrapping_add(consumed as u32);
        let is_front = self.flow.stage == Stage::First && consumed > 0;
        is_front && !self.limits.hold.is_zero() && !self.flow.server.has(end)
    }

    /// Keeps what has come, of which the first `consumed` bytes go before a hello.
    pub(crate) fn keep_back(
        &mut self,
        consumed: usize,
        parts: impl IntoIterator<Item = (u32, Vec<u8>)>,
        arrival: &Arrival,
    ) {
        // They are looked at again.
        self.flow.skipped = self.flow.skipped.saturating_sub(consumed);
        self.keep(Contest::new(self.flow.base, MAX_PRELUDE + self.limits.max_hello_bytes, 0), parts, arrival);
    }

    /// Whether a hello comes at a place that was passed over.
    pub(crate) fn is_passed_over(&self, piece: &Piece<'_>) -> bool {
        let is_before = self.flow.skipped > 0 && distance(piece.seq, self.flow.base) > 0;
        is_before && tls::surely_starts(piece.payload) && !self.flow.server.has(piece.seq.wrapping_add(1))
    }

    /// The client does not begin with a hello, as far as it has come.
    pub(crate) fn no_hello(&mut self, from: u32) {
        if self.flow.stage == Stage::First {
            self.flow.verdict = Some(Box::new(Verdict { from, len: 0, random: [0; 8], digest: 0 }));
        }
        self.finish();
    }

    /// From here on the client's bytes are kept as they come.
    pub(crate) fn dispute(&mut self, piece: &Piece<'_>) {
        let rank = piece.rank(self.flow);
        let window = self.limits.max_hello_bytes;
        let mut contest = if let Some(waiting) = self.flow.waiting.take_if(|_| rank < Rank::Early) {
            let Waiting { arrival, from, bytes, number, is_whole, .. } = *waiting;
            let mut contest = Contest::new(from, window, number);
            contest.add(Part { is_whole, ..Part::known(from, bytes, arrival) });
            let differs = contest.differs(piece.seq, piece.payload);
            self.counters.overlap_conflicts += u64::from(differs);
            contest
        } else if self.flow.stage != Stage::First {
            if rank >= Rank::Early {
                self.counters.refused_segments += 1;
                return;
            }
            self.again();
            if rank == Rank::Trusted {
                return self.trusted(piece);
            }
            Contest::new(self.flow.base, window, self.queue.push(piece.arrival.time, self.at))
        } else {
            let number = self.queue.push(piece.arrival.time, self.at);
            let mut contest = Contest::new(self.flow.base, window, number);
            if let Some(assembly) = self.flow.assembly.take() {
                let arrival = assembly.latest.unwrap_or(piece.arrival);
                contest.add_known(assembly.into_parts(self.flow.base), arrival);
            }
            contest
        };
        piece.add_to(&mut contest, rank);
        (self.flow.stage, self.flow.base) = (Stage::First, contest.start);
        (self.flow.assembly, self.flow.contest) = (None, Some(Box::new(contest)));
        self.look();
    }

    /// A hello came where there was another, or none: both may be the client's.
    fn again(&mut self) {
        if let Some(verdict) = self.flow.verdict.take() {
            (self.flow.base, self.flow.skipped) = (verdict.from, 0);
        }
        self.flow.assembly = None;
        (self.flow.stage, self.flow.disputed, self.flow.early_data) = (Stage::First, true, false);
    }

    /// Takes a piece while the bytes are disputed.
    pub(crate) fn contested(&mut self, piece: &Piece<'_>) {
        let rank = piece.rank(self.flow);
        let Some(contest) = &mut self.flow.contest else { return };
        if !piece.add_to(contest, rank) {
            self.counters.segment_exceeded_count += 1;
            if !contest.has_likely() {
                // Nothing that a server takes: the client's own may still come.
                self.flow.contest = None;
                return;
            }
            // Whoever floods hides nothing: what is here is judged, before the server or time has done so.
            let before = std::mem::replace(&mut self.flow.disputed, true);
            self.judge(None);
            // One more version may leave, that of the client.
            self.flow.disputed = before;
            if let Some(contest) = self.flow.contest.take() {
                self.no_hello(contest.start);
            }
            return;
        }
        if contest.number == 0 {
            contest.number = self.queue.push(piece.arrival.time, self.at);
        }
        self.look();
    }

    /// Judges at once if the server has acknowledged already: its segments may overtake the client's in a capture.
    fn look(&mut self) {
        let Some(acked) = self.flow.server.acked() else { return };
        if self.flow.contest.as_ref().is_some_and(|contest| distance(contest.start, acked) > 0) {
            self.judge(Some(acked));
        }
    }

    /// The server has taken the bytes before `acked`.
    pub(crate) fn confirmed(&mut self, acked: u32) {
        if self.flow.waiting.as_ref().is_some_and(|waiting| distance(waiting.end(), acked) >= 0) {
            return self.release();
        }
        let Some(contest) = &mut self.flow.contest else { return };
        if distance(contest.start, acked) > 0 {
            contest.acknowledged(acked);
            self.judge(Some(acked));
        }
    }

    /// The server has accepted the SYN without the data that came with it.
    pub(crate) fn refused_early(&mut self) {
        if self.flow.contest.as_mut().is_some_and(|contest| !contest.forget(Rank::Early)) {
            self.flow.contest = None;
        }
    }

    /// The wait is over.
    pub(crate) fn expired(&mut self) {
        self.release();
        self.judge(None);
        if let Some(contest) = &mut self.flow.contest {
            contest.number = 0;
        }
    }
}

/// A hash of a hello, eight bytes in each of four lanes at a time.
fn digest(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |lane: u64, word: u64| (lane ^ word).wrapping_mul(ODD).rotate_left(29);
    let mut lanes = [seed, !seed, seed.rotate_left(17), seed.rotate_left(43)];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let rest = rest.iter().fold(bytes.len() as u64, |sum, byte| mix(sum, u64::from(*byte)));
    lanes.into_iter().fold(rest, mix)
}
