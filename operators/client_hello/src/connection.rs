//! One connection and the bytes of its client: when to parse, what to keep, when to stop.

use super::assembly::{Assembly, Brought, distance};
use super::counters::Counters;
use super::extractor::{Limits, NEW_CONNECTION_DISTANCE};
use super::fingerprint::Transport;
use super::flow::{Flow, FlowKey, Stage};
use super::hello::{Arrival, Hello, describe};
use super::prelude::{self, MAX_PRELUDE, Prelude};
use super::records::Walk;
use super::tls::{self, Outcome, Reason, Sequel};

/// Segments kept for a connection of which neither the SYN nor the start of a hello was seen yet. Enough for a hello
/// out of order; few, because every connection older than the capture looks like this.
const MAX_UNANCHORED_SEGMENTS: usize = 8;

/// Bytes after a first hello in which a second one is looked for: the early data that servers commonly allow. It bounds
/// what is kept when a segment after the first hello is missing from the capture.
const MAX_SEQUEL: usize = 16 << 10;

/// A flow together with what is needed to give it data.
pub(crate) struct Connection<'a> {
    pub flow: &'a mut Flow,
    pub key: &'a FlowKey,
    pub arrival: Arrival,
    pub limits: &'a Limits,
    pub counters: &'a mut Counters,
    pub joined: &'a mut Vec<u8>,
}

/// What is to be done with bytes in order.
enum Step {
    /// So many are dealt with; the rest is worth another look when there are `need`, from where `walk` says.
    Wait { consumed: usize, need: usize, walk: Walk },
    /// No hello is expected any more.
    Finish,
}

impl Connection<'_> {
    /// Takes the payload of a segment.
    pub(crate) fn data(&mut self, seq: u32, payload: &[u8], emit: &mut impl FnMut(Hello)) {
        match self.flow.stage {
            Stage::Done => {
                // What lies far away may belong to a new connection on the same ports.
                if distance(self.flow.base, seq).unsigned_abs() <= NEW_CONNECTION_DISTANCE {
                    self.flow.base = seq.wrapping_add(payload.len() as u32);
                }
                return;
            }
            Stage::Unanchored if tls::may_start(payload) || prelude::surely_starts(payload) => {
                (self.flow.stage, self.flow.start, self.flow.base) = (Stage::First, seq, seq);
            }
            Stage::Unanchored => return self.hold(seq, payload),
            Stage::First | Stage::Second => {}
        }
        self.flow.confirmed = true;
        let base = self.flow.base;
        let window = match self.flow.stage {
            Stage::Second => MAX_SEQUEL.min(self.limits.max_hello_bytes),
            _ => self.limits.max_hello_bytes,
        };
        let Some(assembly) = &mut self.flow.assembly else {
            // Nothing is buffered: bytes in order are parsed where they are.
            let known = -distance(base, seq);
            match usize::try_from(known).ok().map(|known| (known, payload.get(known..))) {
                Some((known, Some(fresh))) if !fresh.is_empty() => {
                    self.counters.overlaps += u64::from(known > 0);
                    return self.fresh(fresh, emit);
                }
                Some(_) => self.counters.retransmit_count += 1,
                None => {
                    let mut assembly = Box::new(Assembly::default());
                    let brought = assembly.insert(base, seq, payload, window);
                    if brought == Brought::Ahead {
                        self.flow.assembly = Some(assembly);
                    }
                    self.out_of_order(brought);
                }
            }
            return;
        };
        let overlaps = distance(base, seq) < assembly.in_order() as i64;
        self.counters.overlap_conflicts += u64::from(assembly.contradicts(base, seq, payload));
        match assembly.insert(base, seq, payload, window) {
            Brought::InOrder => {
                self.counters.overlaps += u64::from(overlaps);
                self.buffered(emit);
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
    fn fresh(&mut self, fresh: &[u8], emit: &mut impl FnMut(Hello)) {
        match self.read(fresh, Walk::default(), emit) {
            Step::Finish => self.finish(),
            Step::Wait { consumed, need, walk } => {
                self.flow.base = self.flow.base.wrapping_add(consumed as u32);
                if let Some(rest) = fresh.get(consumed..).filter(|rest| !rest.is_empty()) {
                    self.flow.assembly = Some(Box::new(Assembly::starting_with(rest, need, walk)));
                }
            }
        }
    }

    /// More buffered bytes are in order.
    fn buffered(&mut self, emit: &mut impl FnMut(Hello)) {
        let Some(mut assembly) = self.flow.assembly.take() else { return };
        while let Some(data) = assembly.ready() {
            let stage = self.flow.stage;
            match self.read(data, assembly.walk, emit) {
                Step::Finish => return self.finish(),
                Step::Wait { consumed, need, walk } => {
                    self.flow.base = self.flow.base.wrapping_add(consumed as u32);
                    assembly.advance(self.flow.base, consumed, need, walk);
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
            self.flow.base = seq.wrapping_add(payload.len() as u32);
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

    fn finish(&mut self) {
        self.flow.stage = Stage::Done;
        self.flow.assembly = None;
    }

    /// Looks for hellos in bytes in order from the flow's base, of which `walk` says how far they were looked through.
    fn read(&mut self, stream: &[u8], walk: Walk, emit: &mut impl FnMut(Hello)) -> Step {
        let mut at = 0;
        loop {
            let mut walk = if at == 0 { walk } else { Walk::default() };
            let rest = stream.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return Step::Wait { consumed: at, need: 1, walk };
            }
            if self.flow.stage == Stage::Second {
                match tls::sequel(rest, self.flow.early_data) {
                    Sequel::Hello => {}
                    Sequel::NeedMore(need) => return Step::Wait { consumed: at, need, walk },
                    Sequel::Skip(len) if self.flow.skipped + len <= MAX_SEQUEL => {
                        self.flow.skipped += len;
                        at += len;
                        continue;
                    }
                    Sequel::Skip(_) | Sequel::Never => return Step::Finish,
                }
            }
            if self.flow.stage == Stage::First && !tls::may_start(rest) {
                match prelude::judge(rest, &mut walk, self.flow.skipped == 0, self.limits.starttls) {
                    Prelude::NeedMore(need) => return Step::Wait { consumed: at, need, walk },
                    Prelude::Skip(len) if self.flow.skipped + len <= MAX_PRELUDE => {
                        self.flow.skipped += len;
                        at += len;
                        continue;
                    }
                    Prelude::Skip(_) | Prelude::NotOurs => {}
                }
            }
            match tls::resume(rest, &mut walk, self.joined, self.limits.max_hello_bytes) {
                Outcome::Hello(hello, end) => {
                    let early_data = hello.offers_early_data();
                    self.counters.hellos += 1;
                    let index = u8::from(self.flow.stage == Stage::Second);
                    emit(describe(self.flow, self.key, &self.arrival, Transport::Tcp, index, &hello));
                    if self.flow.stage == Stage::Second {
                        return Step::Finish;
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
                        *match outcome {
                            Outcome::NotTls => &mut self.counters.not_tls,
                            Outcome::NeedMore(_) | Outcome::Broken(Reason::TooLong) => {
                                &mut self.counters.buffer_exceeded_count
                            }
                            Outcome::Broken(_) | Outcome::Hello(..) => &mut self.counters.malformed_hellos,
                        } += 1;
                    }
                    return Step::Finish;
                }
            }
        }
    }
}
