//! One connection and the bytes of its client: when to parse, what to keep, when to stop.

use super::assembly::{Assembly, Brought, distance};
use super::contest::{Contest, Part, Rank, without};
use super::counters::Counters;
use super::extractor::NEW_CONNECTION_DISTANCE;
use super::fingerprint::Transport;
use super::flow::{Flow, FlowKey, Stage};
use super::hello::{Arrival, Hello, describe};
use super::limits::Limits;
use super::packet::Packet;
use super::prelude::{self, MAX_PRELUDE, Prelude};
use super::queue::Queue;
use super::records::Walk;
use super::table::Index;
use super::tcp::Segment;
use super::tls::{self, Outcome, Reason, Sequel};
use super::trust;

/// Segments kept for a connection of which neither the SYN nor the start of a hello was seen yet. Enough for a hello
/// out of order; few, because every connection older than the capture looks like this.
const MAX_UNANCHORED_SEGMENTS: usize = 8;

/// How much later than its connection's later data a hello may be captured, in ns: more, and whoever sends a hello in the middle of
/// a connection that is older than the capture could make it count.
const MAX_DISORDER: u64 = 100_000_000;

/// Bytes after a first hello in which a second one is looked for: the early data that servers commonly allow. It bounds
/// what is kept when a segment after the first hello is missing from the capture.
const MAX_SEQUEL: usize = 16 << 10;

/// A flow together with what is needed to give it data.
pub(crate) struct Connection<'a> {
    pub flow: &'a mut Flow,
    pub at: Index,
    pub key: &'a FlowKey,
    pub limits: &'a Limits,
    pub counters: &'a mut Counters,
    pub joined: &'a mut Vec<u8>,
    pub queue: &'a mut Queue,
    /// Hellos that leave.
    pub ready: &'a mut Vec<Hello>,
    /// For the digests of hellos.
    pub seed: u64,
    /// The segment that is looked at, where nothing is buffered: sequence number and length.
    pub segment: Option<(u32, usize)>,
    /// What is looked at is buffered, and goes to the hello that waits if there is nothing else.
    pub is_buffered: bool,
}

/// Data of a client as it came.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub seq: u32,
    pub payload: &'a [u8],
    /// If it is known beforehand.
    pub rank: Option<Rank>,
    pub packet: &'a Packet<'a>,
    pub segment: &'a Segment<'a>,
    pub arrival: Arrival,
}

impl Piece<'_> {
    pub(crate) fn rank(&self, flow: &Flow) -> Rank {
        self.rank.unwrap_or_else(|| trust::of_segment(flow, self.packet, self.segment))
    }

    /// Gives it to a contest. False if that is given up.
    pub(crate) fn add_to(&self, contest: &mut Contest, rank: Rank) -> bool {
        if let Some(urgent) = self.segment.urgent().filter(|_| rank < Rank::Early) {
            contest.mark(urgent);
        }
        let Self { seq, payload, arrival, .. } = *self;
        contest.add(Part { at: seq, rank, bytes: payload.to_vec(), arrival, is_whole: true })
    }

    /// Whether a stream may begin here, with an urgent byte or without.
    fn may_begin(&self) -> bool {
        let begins = |bytes: &[u8]| tls::may_start(bytes) || prelude::surely_starts(bytes);
        begins(self.payload)
            || self.segment.urgent().is_some_and(|urgent| {
                let place =
                    usize::try_from(distance(self.seq, urgent)).ok().filter(|place| *place < self.payload.len());
                place.is_some_and(|place| begins(&without(self.payload, &[place])))
            })
    }
}

/// What is to be done with bytes in order.
enum Step {
    /// So many are dealt with; the rest is worth another look when there are `need`, from where `walk` says.
    Wait { consumed: usize, need: usize, walk: Walk },
    /// So many are dealt with; no hello is expected any more.
    Finish { consumed: usize },
}

/// What stands ahead of a hello.
enum Ahead {
    /// The hello itself, or what is none.
    Nothing,
    /// So many bytes that are passed over.
    Skip(usize),
    /// Something that shows when there are so many bytes.
    NeedMore(usize),
    /// No hello will come.
    Never,
}

impl Connection<'_> {
    /// Takes the payload of a segment.
    pub(crate) fn data(&mut self, piece: &Piece<'_>) {
        let Piece { seq, payload, .. } = *piece;
        if self.flow.contest.is_some() {
            return self.contested(piece);
        }
        match self.flow.stage {
            Stage::Second | Stage::Done if self.is_other_version(piece) => return self.dispute(piece),
            Stage::Done if self.begins_earlier(piece) => {
                (self.flow.stage, self.flow.start, self.flow.base) = (Stage::First, seq, seq);
                self.flow.is_past = false;
            }
            Stage::Done => {
                // What lies far away may belong to a new connection on the same ports.
                if distance(self.flow.base, seq).unsigned_abs() <= NEW_CONNECTION_DISTANCE {
                    self.flow.base = seq.wrapping_add(payload.len() as u32);
                }
                return;
            }
            Stage::Unanchored if piece.may_begin() => {
                (self.flow.stage, self.flow.start, self.flow.base) = (Stage::First, seq, seq);
            }
            Stage::Unanchored => return self.hold(seq, payload),
            Stage::First | Stage::Second => {}
        }
        self.flow.confirmed = true;
        if self.flow.stage == Stage::First {
            if seq == self.flow.base && piece.segment.is_padded_ack() {
                self.counters.ack_padding += 1;
                return;
            }
            let rank = piece.rank(self.flow);
            if rank < Rank::Early && self.is_passed_over(piece) {
                // What stood there was taken for something before a hello, and the server has not acknowledged it.
                self.no_hello(seq);
                return self.dispute(piece);
            }
            if rank != Rank::Trusted {
                return self.dispute(piece);
            }
        }
        self.trusted(piece);
    }

    /// Whether this is the hello of a connection whose later data was captured before it, a little out of order.
    fn begins_earlier(&self, piece: &Piece<'_>) -> bool {
        let ahead = distance(piece.seq, self.flow.start);
        let is_soon = piece.arrival.time.abs_diff(self.flow.first) <= MAX_DISORDER;
        let is_near = (1..=self.limits.max_hello_bytes as i64).contains(&ahead);
        self.flow.is_past && is_near && is_soon && tls::surely_starts(piece.payload)
    }

    /// Data that nothing speaks against.
    pub(crate) fn trusted(&mut self, piece: &Piece<'_>) {
        let Piece { seq, payload, arrival, .. } = *piece;
        let base = self.flow.base;
        let window = match self.flow.stage {
            Stage::Second => MAX_SEQUEL.min(self.limits.max_hello_bytes),
            _ => self.limits.max_hello_bytes,
        };
        self.segment = self.flow.assembly.is_none().then_some((seq, payload.len()));
        let Some(assembly) = &mut self.flow.assembly else {
            // Nothing is buffered: bytes in order are parsed where they are.
            let known = -distance(base, seq);
            match usize::try_from(known).ok().map(|known| (known, payload.get(known..))) {
                Some((known, Some(fresh))) if !fresh.is_empty() => {
                    self.counters.overlaps += u64::from(known > 0);
                    return self.fresh(fresh, &arrival);
                }
                Some(_) => self.counters.retransmit_count += 1,
                None => {
                    let mut assembly = Box::new(Assembly::default());
                    let brought = assembly.insert(base, seq, payload, window);
                    if brought == Brought::Ahead {
                        assembly.latest = Some(arrival);
                        self.flow.assembly = Some(assembly);
                    }
                    self.out_of_order(brought);
                }
            }
            return;
        };
        let overlaps = distance(base, seq) < assembly.in_order() as i64;
        let contradicts = assembly.contradicts(base, seq, payload);
        self.counters.overlap_conflicts += u64::from(contradicts);
        // Those that were not sent alike are kept apart, in case the server drops one of them.
        let is_alike = assembly.latest.is_none_or(|latest| latest.group == arrival.group);
        if self.flow.stage == Stage::First && (contradicts || !is_alike) {
            return self.dispute(piece);
        }
        assembly.latest = Some(arrival);
        match assembly.insert(base, seq, payload, window) {
            Brought::InOrder => {
                self.counters.overlaps += u64::from(overlaps);
                self.buffered(&arrival);
            }
            brought => self.out_of_order(brought),
        }
    }

    /// A segment that did not add to the bytes in order.
    fn out_of_order(&mut self, brought: Brought) {
        match brought {
            Brought::Nothing => self.counters.retransmit_count += 1,
            Brought::Ahead | Brought::Beyond => self.counters.gap_detected_count += 1,
            Brought::InOrder => {}
        }
        // Ahead of a first hello anyone can send such a segment; after it, it shows that the client has gone on.
        if brought == Brought::Beyond && self.flow.stage == Stage::Second {
            return self.finish();
        }
        self.check_segments();
    }

    /// Bytes in order while nothing is buffered.
    pub(crate) fn fresh(&mut self, fresh: &[u8], arrival: &Arrival) {
        match self.read(fresh, Walk::default(), arrival) {
            Step::Finish { consumed } => self.give_up(consumed, [(self.flow.base, fresh.to_vec())], arrival),
            Step::Wait { consumed, .. } if self.is_unsure_of(consumed) => {
                self.keep_back(consumed, [(self.flow.base, fresh.to_vec())], arrival);
            }
            Step::Wait { consumed, need, walk } => {
                self.flow.base = self.flow.base.wrapping_add(consumed as u32);
                if let Some(rest) = fresh.get(consumed..).filter(|rest| !rest.is_empty()) {
                    let mut assembly = Box::new(Assembly::starting_with(rest, need, walk));
                    assembly.latest = Some(*arrival);
                    self.flow.assembly = Some(assembly);
                }
            }
        }
    }

    /// More buffered bytes are in order.
    fn buffered(&mut self, arrival: &Arrival) {
        let Some(mut assembly) = self.flow.assembly.take() else { return };
        while let Some(data) = assembly.ready() {
            self.is_buffered = true;
            let stage = self.flow.stage;
            match self.read(data, assembly.walk, arrival) {
                Step::Finish { consumed } => {
                    return self.give_up(consumed, assembly.into_parts(self.flow.base), arrival);
                }
                Step::Wait { consumed, .. } if self.is_unsure_of(consumed) => {
                    return self.keep_back(consumed, assembly.into_parts(self.flow.base), arrival);
                }
                Step::Wait { consumed, need, walk } => {
                    self.flow.base = self.flow.base.wrapping_add(consumed as u32);
                    let all = assembly.advance(self.flow.base, consumed, need, walk);
                    if let Some((waiting, all)) = self.flow.waiting.as_mut().zip(all)
                        && waiting.bytes.is_empty()
                    {
                        waiting.bytes = all;
                    }
                }
            }
            if self.flow.stage != stage {
                assembly.reset_segments();
            }
        }
        if !assembly.is_empty() {
            self.flow.assembly = Some(assembly);
            self.check_segments();
        }
    }

    /// Data before the start of the stream is known.
    fn hold(&mut self, seq: u32, payload: &[u8]) {
        let assembly = self.flow.assembly.get_or_insert_default();
        if tls::is_past_hello(payload) || assembly.segments() >= MAX_UNANCHORED_SEGMENTS {
            self.counters.not_tls += 1;
            self.flow.is_past = true;
            return self.finish();
        }
        match assembly.hold(self.flow.base, seq, payload, self.limits.max_hello_bytes) {
            Brought::Nothing => self.counters.retransmit_count += 1,
            Brought::Ahead | Brought::InOrder | Brought::Beyond => {}
        }
    }

    fn check_segments(&mut self) {
        if self.flow.assembly.as_ref().is_some_and(|assembly| assembly.segments() >= self.limits.max_segments) {
            self.counters.segment_exceeded_count += 1;
            self.finish();
        }
    }

    pub(crate) fn finish(&mut self) {
        self.flow.stage = Stage::Done;
        self.flow.assembly = None;
    }

    /// Looks for hellos in bytes in order from the flow's base, of which `walk` says how far they were looked through.
    fn read(&mut self, stream: &[u8], walk: Walk, arrival: &Arrival) -> Step {
        let mut at = 0;
        loop {
            let mut walk = if at == 0 { walk } else { Walk::default() };
            let rest = stream.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Step::Wait { consumed: at, need: 1, walk };
            }
            match self.ahead(rest, &mut walk) {
                Ahead::Nothing => {}
                Ahead::Skip(len) => {
                    self.flow.skipped += len;
                    at += len;
                    continue;
                }
                Ahead::NeedMore(need) => return Step::Wait { consumed: at, need, walk },
                Ahead::Never => return Step::Finish { consumed: at },
            }
            match tls::resume(rest, &mut walk, self.joined, self.limits.max_hello_bytes) {
                Outcome::Hello(hello, end) => {
                    let (is_second, early_data) = (self.flow.stage == Stage::Second, hello.offers_early_data());
                    let from = self.flow.base.wrapping_add(at as u32);
                    let bytes = &rest[..end.min(rest.len())];
                    let behind = from.wrapping_add(bytes.len() as u32);
                    // One that is to wait is read again.
                    let is_due = is_second || self.limits.hold.is_zero() || self.flow.server.has(behind);
                    let describe =
                        || describe(self.flow, self.key, arrival, Transport::Tcp, u8::from(is_second), &hello);
                    match is_due.then(describe) {
                        Some(hello) if is_second => {
                            self.follow(hello);
                            return Step::Finish { consumed: at };
                        }
                        Some(hello) => self.leave(hello, from, bytes, self.flow.disputed),
                        None => self.wait(arrival, from, bytes, end >= stream.len() && at == 0),
                    }
                    (self.flow.stage, self.flow.early_data, self.flow.skipped) = (Stage::Second, early_data, 0);
                    at += end;
                }
                Outcome::NeedMore(need) if need <= self.limits.max_hello_bytes => {
                    return Step::Wait { consumed: at, need, walk };
                }
                outcome => {
                    // After a first hello these are no faults: what looked like a second one was encrypted.
                    if self.flow.stage == Stage::First {
                        *fault(&outcome, self.counters) += 1;
                    }
                    return Step::Finish { consumed: at };
                }
            }
        }
    }

    /// What stands ahead of the hello that is expected.
    fn ahead(&mut self, rest: &[u8], walk: &mut Walk) -> Ahead {
        let skipped = self.flow.skipped;
        match self.flow.stage {
            Stage::Second => match tls::sequel(rest, self.flow.early_data) {
                Sequel::Hello => Ahead::Nothing,
                Sequel::NeedMore(need) => Ahead::NeedMore(need),
                Sequel::Skip(len) if skipped + len <= MAX_SEQUEL => Ahead::Skip(len),
                Sequel::Skip(_) | Sequel::Never => Ahead::Never,
            },
            Stage::First if !tls::may_start(rest) => {
                match prelude::judge(rest, walk, skipped == 0, self.limits.starttls) {
                    Prelude::NeedMore(need) => Ahead::NeedMore(need),
                    Prelude::Skip(len) if skipped + len <= MAX_PRELUDE => Ahead::Skip(len),
                    Prelude::Skip(_) | Prelude::NotOurs => Ahead::Nothing,
                }
            }
            _ => Ahead::Nothing,
        }
    }

    /// A second hello leaves behind the first. Whoever sends both at once may send others: neither leaves before the first may.
    fn follow(&mut self, mut hello: Hello) {
        hello.ambiguous = self.flow.disputed;
        match &mut self.flow.waiting {
            Some(waiting) => waiting.sequel = Some(Box::new(hello)),
            None => self.ready.push(hello),
        }
    }
}

/// The counter for bytes that are no hello.
fn fault<'a>(outcome: &Outcome<'_>, counters: &'a mut Counters) -> &'a mut u64 {
    match outcome {
        Outcome::NotTls => &mut counters.not_tls,
        Outcome::NeedMore(_) | Outcome::Broken(Reason::TooLong) => &mut counters.buffer_exceeded_count,
        Outcome::Broken(_) | Outcome::Hello(..) => &mut counters.malformed_hellos,
    }
}
