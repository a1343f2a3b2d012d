//! TCP: which connection a segment belongs to, who of the two is the client, and what the server's segments show.

use super::assembly::distance;
use super::checksum::Checksum;
use super::connection::Piece;
use super::contest::Rank;
use super::extractor::{HelloExtractor, NEW_CONNECTION_DISTANCE};
use super::flow::{Class, Flow, FlowKey, Stage, Syn};
use super::packet::Packet;
use super::prelude;
use super::table::Index;
use super::tcp::{Segment, SynOptions, option};
use super::tls;
use super::trust;

impl HelloExtractor {
    pub(crate) fn segment(&mut self, ts: i64, packet: &Packet<'_>, segment: &Segment<'_>) {
        let key = FlowKey::of(packet, false);
        if segment.accepts_connection() {
            return self.accepted(&key.reversed(), ts, segment);
        }
        if segment.has_unwanted_data() {
            self.counters.refused_segments += 1;
            return;
        }
        if segment.opens_connection() {
            return self.syn(key, ts, packet, segment);
        }
        let found = self.flows.find_either(&key);
        if let (true, Some((at, from_client))) = (segment.payload.is_empty(), found) {
            return if from_client { self.acknowledged(at, ts, packet, segment) } else { self.answered(at, segment) };
        }
        if segment.payload.is_empty() {
            return;
        }
        let at = match found {
            Some((at, true)) => self.live(at, ts).unwrap_or_else(|| self.unanchored(key, ts, segment)),
            Some((at, false)) => match self.is_client(at, segment) {
                true => self.unanchored(key, ts, segment),
                false => return self.answered(at, segment),
            },
            None => self.unanchored(key, ts, segment),
        };
        self.data(at, segment.seq, None, ts, packet, segment);
    }

    /// Whether the sender of this data is a client too, though a connection is known in the other direction.
    fn is_client(&self, other: Index, segment: &Segment<'_>) -> bool {
        let Some(flow) = self.flows.get(other) else { return true };
        // Neither side has begun with a hello yet: the one whose data came first may be the server.
        let is_open = (flow.stage == Stage::Unanchored || flow.is_past) && !tls::is_past_hello(segment.payload);
        is_open || tls::surely_starts(segment.payload)
    }

    fn unanchored(&mut self, key: FlowKey, ts: i64, segment: &Segment<'_>) -> Index {
        self.insert(key, Flow::new(ts, segment.seq, Stage::Unanchored), ts)
    }

    /// Gives a client's data to its connection; `rank` if that is not to be found out.
    fn data(&mut self, at: Index, seq: u32, rank: Option<Rank>, ts: i64, packet: &Packet<'_>, segment: &Segment<'_>) {
        let at = self.supplanted(at, ts, seq, segment.payload);
        let Some(at) = self.reused(at, ts, seq, packet, segment) else { return };
        let arrival = self.arrival(ts, packet);
        let piece = Piece { seq, payload: segment.payload, rank, packet, segment, arrival };
        self.with(at, |connection| connection.data(&piece));
        self.flows.touch(at, ts);
        self.keep_to_budget();
    }

    /// A segment of the client without data: if it ends the handshake of a connection, that is no longer one of a flood.
    fn acknowledged(&mut self, at: Index, ts: i64, packet: &Packet<'_>, segment: &Segment<'_>) {
        if segment.urgent().is_some() && segment.acknowledges() {
            let (seq, payload, arrival) = (segment.seq, segment.payload, self.arrival(ts, packet));
            let piece = Piece { seq, payload, rank: None, packet, segment, arrival };
            self.with(at, |connection| connection.announced(&piece));
            self.flows.touch(at, ts);
            self.keep_to_budget();
        }
        let Some(flow) = self.flows.get(at).filter(|_| segment.is_plain_ack()) else { return };
        let rival = flow.rival.as_deref().copied().filter(|(start, _)| *start == segment.seq && !flow.server.answered);
        let known = flow.syn.map(|syn| Box::new((flow.start, syn)));
        let at = rival.map_or(at, |(start, syn)| self.renewed(at, ts, start, Some(syn)));
        let Some(flow) = self.flows.get_mut(at) else { return };
        if rival.is_some() {
            // Whoever can send the SYN can send this, too.
            flow.rival = known;
        }
        if flow.class() == Class::OnlySyn && segment.seq == flow.start {
            flow.confirmed = true;
            flow.server.assumed(segment.ack);
            self.flows.touch(at, ts);
        }
    }

    /// The server's SYN: it accepts one of the client's.
    fn accepted(&mut self, key: &FlowKey, ts: i64, segment: &Segment<'_>) {
        let Some(at) = self.flows.find(key) else { return };
        let Some(flow) = self.flows.get(at) else { return };
        let rival = flow.rival.as_deref().copied().filter(|(start, _)| *start == segment.ack);
        let at = match rival {
            Some((start, syn)) if flow.start != segment.ack => self.renewed(at, ts, start, Some(syn)),
            _ => at,
        };
        let is_other = self.flows.get(at).is_some_and(|flow| {
            let is_blank =
                flow.rival.is_some() && flow.assembly.is_none() && flow.contest.is_none() && !flow.server.answered;
            let window = 0..=self.limits.max_hello_bytes as i64;
            flow.stage == Stage::First && is_blank && !window.contains(&distance(flow.start, segment.ack))
        });
        // The SYN that the server accepts is none of those that were kept.
        let at = if is_other { self.renewed(at, ts, segment.ack, None) } else { at };
        let Some(flow) = self.flows.get_mut(at) else { return };
        if is_other {
            flow.stage = Stage::First;
        }
        // It may acknowledge the data in a SYN as well (RFC 7413).
        if (0..=self.limits.max_hello_bytes as i64).contains(&distance(flow.start, segment.ack)) {
            flow.rival = None;
            flow.server.accepted(segment);
            if segment.ack == flow.start && flow.contest.is_some() {
                self.with(at, |connection| connection.refused_early());
            }
            self.confirmed(at, segment.ack);
        }
    }

    /// Any other segment of the server.
    fn answered(&mut self, at: Index, segment: &Segment<'_>) {
        let Some(flow) = self.flows.get_mut(at) else { return };
        if flow.is_unproven && !flow.server.answered {
            // It may speak of the connection before.
            return;
        }
        flow.server.sent(segment);
        if segment.acknowledges() {
            self.confirmed(at, segment.ack);
        }
    }

    /// The server has taken the client's bytes before `acked`.
    fn confirmed(&mut self, at: Index, acked: u32) {
        let Some(flow) = self.flows.get_mut(at) else { return };
        if flow.server.acknowledged(flow.start, acked) && (flow.waiting.is_some() || flow.contest.is_some()) {
            self.with(at, |connection| connection.confirmed(acked));
        }
    }

    /// A SYN: repeats one, belongs to data that overtook it, or begins a new connection.
    fn syn(&mut self, key: FlowKey, ts: i64, packet: &Packet<'_>, segment: &Segment<'_>) {
        let start = segment.seq.wrapping_add(1);
        let checksum = trust::of_packet(packet, segment);
        let syn = Syn { time: ts, ip: packet.ip, options: SynOptions::of(segment), checksum };
        let found = self.flows.find(&key).and_then(|at| self.live(at, ts));
        let at = match found {
            Some(at) => self.again(at, ts, start, syn, segment),
            None => Some(self.insert(key, Flow { syn: Some(syn), ..Flow::new(ts, start, Stage::First) }, ts)),
        };
        if let Some(at) = at.filter(|_| !segment.payload.is_empty()) {
            // Without a cookie no server takes the data before the handshake is over (RFC 7413 section 4.2).
            let cookie = option(segment.options, option::FAST_OPEN).is_some_and(|cookie| !cookie.is_empty());
            let rank = if cookie { Rank::Doubtful } else { Rank::Early };
            self.data(at, start, Some(rank), ts, packet, segment);
        }
    }

    /// A SYN of a connection that is known; where its data belongs, if it is of one.
    fn again(&mut self, at: Index, ts: i64, start: u32, syn: Syn, segment: &Segment<'_>) -> Option<Index> {
        let flow = self.flows.get_mut(at)?;
        let ahead = distance(start, flow.start);
        let overtaken = 0..=self.limits.max_hello_bytes as i64;
        if flow.stage == Stage::Unanchored && overtaken.contains(&ahead) {
            (flow.stage, flow.start, flow.base, flow.syn) = (Stage::First, start, start, Some(syn));
            self.flows.touch(at, ts);
            return Some(at);
        }
        if ahead == 0 {
            self.counters.retransmit_count += u64::from(flow.syn.is_some() && segment.payload.is_empty());
            // The server takes only one that is right.
            match &mut flow.syn {
                Some(known) if trust::is_better(syn.checksum, known.checksum) => *known = syn,
                known => drop(known.get_or_insert(syn)),
            }
            self.flows.touch(at, ts);
            return Some(at);
        }
        if flow.stage == Stage::First || flow.waiting.is_some() {
            // A SYN that the server never sees, or that it only questions (RFC 5961), must not hide the hello. Whether it
            // begins another connection is seen when the server accepts it, or when its own hello comes.
            let is_right = flow.syn.is_some_and(|known| known.checksum == Checksum::Right);
            // One that no server takes, as far as checksums say anything.
            if !(is_right && syn.checksum == Checksum::Wrong) {
                flow.is_rivalled = true;
                flow.rival = Some(Box::new((start, syn)));
            }
            return None;
        }
        Some(self.renewed(at, ts, start, Some(syn)))
    }

    /// Begins anew on the same addresses and ports.
    fn renewed(&mut self, at: Index, ts: i64, start: u32, syn: Option<Syn>) -> Index {
        let Some(key) = self.flows.key(at) else { return at };
        self.counters.ports_reused += 1;
        let old = self.flows.get(at);
        let (is_unproven, is_rivalled) =
            old.map_or((false, false), |old| (old.server.answered || old.is_unproven, old.rival.is_some()));
        self.remove(at);
        let (first, stage) = match &syn {
            Some(syn) => (syn.time, Stage::First),
            None => (ts, Stage::Unanchored),
        };
        self.insert(key, Flow { syn, is_unproven, is_rivalled, ..Flow::new(first, start, stage) }, ts)
    }

    /// Begins anew if data comes that can only follow another SYN, seen while a hello was not complete.
    fn supplanted(&mut self, at: Index, ts: i64, seq: u32, payload: &[u8]) -> Index {
        let Some(flow) = self.flows.get(at) else { return at };
        let Some((start, syn)) = flow.rival.as_deref().copied() else { return at };
        let window = 0..self.limits.max_hello_bytes as i64;
        let own = window.contains(&distance(flow.base, seq));
        let follows = window.contains(&distance(start, seq));
        let begins = start == seq && (tls::may_start(payload) || prelude::surely_starts(payload));
        // A handshake that has ended, and what has come of a hello, is given up for another hello and for nothing else.
        let is_begun = flow.confirmed || flow.assembly.is_some() || flow.contest.is_some();
        let supplants = begins || follows && !own && !is_begun;
        if !flow.server.answered && supplants { self.renewed(at, ts, start, Some(syn)) } else { at }
    }

    /// Begins anew if a hello comes at a sequence number that cannot be the connection's own: its ports serve a new connection
    /// whose SYN was not captured. `None` if the server drops it.
    fn reused(&mut self, at: Index, ts: i64, seq: u32, packet: &Packet<'_>, segment: &Segment<'_>) -> Option<Index> {
        let Some(flow) = self.flows.get(at).filter(|flow| flow.stage != Stage::Unanchored) else { return Some(at) };
        if distance(flow.base, seq).unsigned_abs() <= NEW_CONNECTION_DISTANCE || !tls::surely_starts(segment.payload) {
            return Some(at);
        }
        let is_over = matches!(flow.stage, Stage::Second | Stage::Done);
        let is_dropped = trust::of_segment(flow, packet, segment) == Rank::Dropped;
        if is_dropped || !is_over && (flow.server.answered || flow.syn.is_some()) {
            // Far outside of every window: another connection would have had a SYN, too.
            self.counters.refused_segments += 1;
            return None;
        }
        let disputed = flow.waiting.is_some() || !is_over;
        let at = self.renewed(at, ts, seq, None);
        if let Some(flow) = self.flows.get_mut(at) {
            flow.disputed = disputed;
        }
        Some(at)
    }
}
