//! The extractor: frames in, hellos out.

use std::time::Duration;

use super::assembly::distance;
use super::connection::Connection;
use super::counters::Counters;
use super::dtls;
use super::fingerprint;
use super::flow::{Class, Datagrams};
use super::flow::{Flow, FlowKey, FlowTable, Index, Stage, Syn};
use super::fragments::Fragments;
use super::hello::describe;
use super::hello::{Arrival, Hello};
use super::packet::{self, Decoded, Packet, Skip, Transport, Tunnels};
use super::quic;
use super::tcp::{Segment, SynOptions};
use super::tls;

/// On the same addresses and ports, a hello further than this from the last byte seen begins a new connection.
pub(crate) const NEW_CONNECTION_DISTANCE: u64 = 1 << 20;

/// Flows that one packet may expire: more than it can add, so that the table shrinks, and few enough that a packet
/// with a timestamp far away cannot empty it.
const MAX_EXPIRED_PER_PACKET: usize = 2;

/// Fragmented packets inside fragmented packets that are followed.
const MAX_NESTED_FRAGMENTS: usize = 2;

/// Bounds on memory and work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections tracked at a time.
    pub max_flows: usize,
    /// Segments, CRYPTO frames or DTLS fragments that may come for one hello from when a part of it is buffered.
    /// Repetitions count: each costs work.
    pub max_segments: usize,
    /// Bytes from the start of a hello's first record to the end of its last.
    pub max_hello_bytes: usize,
    /// Bytes of memory for what is buffered of all connections together. Beyond, connections that hold bytes are
    /// evicted, first those whose hello is out. Fragments of IP packets have 8 MiB besides.
    pub max_buffered_bytes: usize,
    /// A connection is forgotten when no packet came for this long, in the time of the packets.
    pub flow_timeout: Duration,
    /// Destination ports of the connections to look at; empty for all.
    pub ports: Vec<u16>,
    /// Encapsulations that are looked into.
    pub tunnels: Tunnels,
    /// Look for hellos behind the plain text of SMTP, IMAP, POP3 and PostgreSQL too.
    pub starttls: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 100_000,
            max_segments: 8192,
            max_hello_bytes: 64 << 10,
            max_buffered_bytes: 128 << 20,
            flow_timeout: Duration::from_secs(30),
            ports: Vec::new(),
            tunnels: Tunnels::default(),
            starttls: false,
        }
    }
}

/// A captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Time of capture, nanoseconds since the epoch.
    pub time: i64,
    /// libpcap's linktype.
    pub linktype: i32,
    /// The bytes captured.
    pub data: &'a [u8],
    /// Bytes that there were on the wire.
    pub wire_len: u32,
    /// Whatever the caller wants back with the hellos that this frame completes ([`Hello::origin`]).
    pub origin: u64,
    /// A number that the caller has for the interface, which comes back too ([`Hello::interface`]).
    pub interface: u32,
}

impl<'a> Frame<'a> {
    /// A frame that was captured whole, of origin 0 and interface 0.
    pub fn whole(time: i64, linktype: i32, data: &'a [u8]) -> Self {
        Self { time, linktype, data, wire_len: u32::try_from(data.len()).unwrap_or(u32::MAX), origin: 0, interface: 0 }
    }
}

/// Finds the ClientHellos of TLS over TCP, QUIC and DTLS in a sequence of frames.
///
/// Timestamps should ascend by and large; only the timeouts depend on it. VLAN tags and tunnel headers do not tell
/// connections apart: one that a mirror shows twice, tagged and untagged, counts once.
///
/// FIN and RST are ignored: anyone can send them between a hello's segments.
#[derive(Debug)]
pub struct HelloExtractor {
    limits: Limits,
    /// `Limits::flow_timeout` in nanoseconds.
    timeout: u64,
    flows: FlowTable,
    /// Memory of all assemblies together.
    buffered: usize,
    /// For hellos spread over several records.
    joined: Vec<u8>,
    fragments: Fragments,
    counters: Counters,
    /// `Frame::origin` of the frame that is looked at.
    origin: u64,
    /// Its `Frame::interface`.
    interface: u32,
}

impl HelloExtractor {
    /// An extractor without connections.
    pub fn new(mut limits: Limits) -> Self {
        limits.ports.sort_unstable();
        limits.max_flows = limits.max_flows.clamp(1, Index::MAX as usize - 1);
        Self {
            timeout: u64::try_from(limits.flow_timeout.as_nanos()).unwrap_or(u64::MAX),
            limits,
            flows: FlowTable::new(),
            buffered: 0,
            joined: Vec::new(),
            fragments: Fragments::default(),
            counters: Counters::default(),
            origin: 0,
            interface: 0,
        }
    }

    /// Takes one captured frame. Hands complete hellos to `emit`: mostly none or one, more if a datagram holds more.
    pub fn packet(&mut self, frame: &Frame<'_>, emit: &mut impl FnMut(Hello)) {
        self.counters.packets_received += 1;
        self.expire(frame.time);
        let cut = frame.data.len() < frame.wire_len as usize;
        let decoded = packet::decode(frame.linktype, frame.data, self.limits.tunnels);
        (self.origin, self.interface) = (frame.origin, frame.interface);
        self.decoded(frame.time, decoded, cut, MAX_NESTED_FRAGMENTS, emit);
    }

    /// The input has ended: hands out the hellos that still wait, and counts those of which a part is missing.
    pub fn finish(&mut self, _emit: &mut impl FnMut(Hello)) {
        while let Some(at) = self.flows.oldest() {
            self.remove(at);
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections known at the moment, finished ones included.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Bytes of memory that buffered data takes at the moment.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered + self.fragments.held()
    }

    fn skipped(&mut self, skip: Skip, cut: bool) {
        *match skip {
            Skip::UnknownLink => &mut self.counters.unknown_link,
            Skip::NotIp => &mut self.counters.non_ip,
            Skip::OtherTransport => &mut self.counters.non_tcp,
            Skip::Short if cut => &mut self.counters.truncated,
            Skip::Short | Skip::Malformed => &mut self.counters.malformed,
        } += 1;
    }

    fn decoded(
        &mut self,
        ts: i64,
        decoded: Result<Decoded<'_>, Skip>,
        cut: bool,
        nested: usize,
        emit: &mut impl FnMut(Hello),
    ) {
        match decoded {
            Ok(Decoded::Packet(packet)) => self.whole(ts, &packet, emit),
            Ok(Decoded::Fragment(ip)) => {
                let Some(whole) = self.fragments.add(ts, &ip, &mut self.counters) else { return };
                if let Some(nested) = nested.checked_sub(1) {
                    let decoded = whole.ip().and_then(|ip| packet::decode_ip(ip, self.limits.tunnels));
                    self.decoded(ts, decoded, false, nested, emit);
                }
            }
            Err(skip) => self.skipped(skip, cut),
        }
    }

    fn whole(&mut self, ts: i64, packet: &Packet<'_>, emit: &mut impl FnMut(Hello)) {
        if let Transport::Udp(payload) = packet.transport
            && !quic::is_initial(payload)
            && !dtls::is_client_hello(payload)
        {
            self.counters.non_tcp += 1;
            return;
        }
        if !self.limits.ports.is_empty() && self.limits.ports.binary_search(&packet.dst_port).is_err() {
            self.counters.other_ports += 1;
            return;
        }
        self.counters.truncated += u64::from(packet.cut);
        match &packet.transport {
            Transport::Tcp(segment) => self.segment(ts, packet, segment, emit),
            Transport::Udp(payload) => self.datagram(ts, packet, payload, emit),
        }
    }

    /// A datagram with an Initial packet or a part of a DTLS hello.
    fn datagram(&mut self, ts: i64, packet: &Packet<'_>, payload: &[u8], emit: &mut impl FnMut(Hello)) {
        let key = FlowKey::of(packet, true);
        let mut opened = false;
        let at = match self.live(&key, ts) {
            Some(at) => at,
            // The server's side of a known connection.
            None if self.flows.find(&key.reversed()).is_some() => return,
            None => {
                let datagrams = if dtls::is_client_hello(payload) {
                    Datagrams::Dtls(Box::default())
                } else {
                    let Some(connection) = quic::Connection::of(payload, &mut self.joined) else {
                        self.counters.quic_initials += 1;
                        self.counters.quic_undecryptable += 1;
                        return;
                    };
                    opened = true;
                    Datagrams::Quic(Box::new(connection))
                };
                let mut flow = Flow::new(ts, 0, Stage::First);
                flow.datagrams = Some(datagrams);
                self.buffered += flow.held();
                self.insert(key, flow, ts)
            }
        };
        let Some(flow) = self.flows.get_mut(at) else { return };
        let held = flow.held();
        let Some(mut datagrams) = flow.datagrams.take() else { return };
        let arrival = Arrival { time: ts, ip: packet.ip, origin: self.origin, interface: self.interface };
        let mut hellos = 0;
        let Self { limits, counters, joined, .. } = self;
        let is_over = match &mut datagrams {
            Datagrams::Quic(connection) => {
                connection.datagram(payload, opened, limits, counters, joined, &mut |hello, index| {
                    hellos += 1;
                    emit(describe(flow, &key, &arrival, fingerprint::Transport::Quic, index, hello));
                });
                connection.is_over()
            }
            Datagrams::Dtls(connection) => {
                connection.datagram(payload, limits, counters, &mut |hello, index| {
                    hellos += 1;
                    emit(describe(flow, &key, &arrival, fingerprint::Transport::Dtls, index, hello));
                });
                connection.is_over()
            }
        };
        counters.hellos += hellos;
        flow.stage = if is_over { Stage::Second } else { Stage::First };
        flow.datagrams = Some(datagrams);
        self.buffered = self.buffered - held + flow.held();
        self.flows.touch(at, ts);
        self.keep_to_budget();
    }

    fn segment(&mut self, ts: i64, packet: &Packet<'_>, segment: &Segment<'_>, emit: &mut impl FnMut(Hello)) {
        if segment.payload.is_empty() && segment.is_plain_ack() {
            return self.acknowledged(ts, packet, segment);
        }
        if segment.accepts_connection() || segment.payload.is_empty() && !segment.opens_connection() {
            return;
        }
        let key = FlowKey::of(packet, false);
        let found = self.live(&key, ts);
        let (at, seq) = if segment.opens_connection() {
            (self.opened(found, key, ts, packet, segment), segment.seq.wrapping_add(1))
        } else {
            match found {
                Some(at) => (at, segment.seq),
                // The server's side of a known connection.
                None if !tls::surely_starts(segment.payload) && self.flows.find(&key.reversed()).is_some() => return,
                None => (self.insert(key, Flow::new(ts, segment.seq, Stage::Unanchored), ts), segment.seq),
            }
        };
        if segment.payload.is_empty() {
            return;
        }
        let at = self.supplanted(at, key, ts, seq, segment.payload);
        let at = self.reused(at, key, ts, seq, segment.payload);
        let held = self.flows.get(at).map_or(0, Flow::held);
        if let Some(flow) = self.flows.get_mut(at) {
            let mut connection = Connection {
                flow,
                key: &key,
                arrival: Arrival { time: ts, ip: packet.ip, origin: self.origin, interface: self.interface },
                limits: &self.limits,
                counters: &mut self.counters,
                joined: &mut self.joined,
            };
            connection.data(seq, segment.payload, emit);
            self.buffered = self.buffered - held + flow.held();
        }
        self.flows.touch(at, ts);
        self.keep_to_budget();
    }

    /// A segment without data: if it ends the handshake of a connection, that is no longer one of a flood.
    fn acknowledged(&mut self, ts: i64, packet: &Packet<'_>, segment: &Segment<'_>) {
        let Some(at) = self.flows.find(&FlowKey::of(packet, false)) else { return };
        let Some(flow) = self.flows.get_mut(at) else { return };
        if flow.class() == Class::OnlySyn && segment.seq == flow.start {
            flow.confirmed = true;
            self.flows.touch(at, ts);
        }
    }

    /// The flow with this key, unless it has been silent for too long.
    fn live(&mut self, key: &FlowKey, now: i64) -> Option<Index> {
        let at = self.flows.find(key)?;
        if self.is_expired(at, now) {
            self.counters.flows_expired += 1;
            self.remove(at);
            return None;
        }
        Some(at)
    }

    /// A SYN: repeats one, belongs to data that overtook it, or begins a new connection.
    fn opened(
        &mut self,
        found: Option<Index>,
        key: FlowKey,
        ts: i64,
        packet: &Packet<'_>,
        segment: &Segment<'_>,
    ) -> Index {
        let start = segment.seq.wrapping_add(1);
        let syn = Syn { time: ts, ip: packet.ip, options: SynOptions::of(segment) };
        if let Some((at, flow)) = found.and_then(|at| Some((at, self.flows.get_mut(at)?))) {
            let ahead = distance(start, flow.start);
            let overtaken = 0..=self.limits.max_hello_bytes as i64;
            if flow.stage == Stage::Unanchored && overtaken.contains(&ahead) {
                (flow.stage, flow.start, flow.base, flow.syn) = (Stage::First, start, start, Some(syn));
                self.flows.touch(at, ts);
                return at;
            }
            if ahead == 0 {
                self.counters.retransmit_count += u64::from(flow.syn.is_some() && segment.payload.is_empty());
                flow.syn.get_or_insert(syn);
                self.flows.touch(at, ts);
                return at;
            }
            if flow.stage == Stage::First && flow.assembly.is_some() {
                // A part of a hello is there. A SYN that the server never sees, or that it only questions (RFC 5961), must
                // not hide the rest: whether it begins another connection is seen when that sends its own hello.
                flow.rival = Some(Box::new((start, syn)));
                return at;
            }
            self.counters.ports_reused += 1;
            self.remove(at);
        }
        let mut flow = Flow::new(ts, start, Stage::First);
        flow.syn = Some(syn);
        self.insert(key, flow, ts)
    }

    /// Begins anew if data comes that can only follow another SYN, seen while a hello was not complete.
    fn supplanted(&mut self, at: Index, key: FlowKey, ts: i64, seq: u32, payload: &[u8]) -> Index {
        let rival = self.flows.get(at).and_then(|flow| flow.rival.as_deref().copied());
        let Some((start, syn)) = rival.filter(|(start, _)| *start == seq && tls::may_start(payload)) else { return at };
        self.counters.ports_reused += 1;
        self.remove(at);
        let mut flow = Flow::new(ts, start, Stage::First);
        flow.syn = Some(syn);
        self.insert(key, flow, ts)
    }

    /// Begins anew if a flow whose hello is over gets a hello at a sequence number that cannot be its own: its ports serve a new
    /// connection whose SYN was not captured.
    fn reused(&mut self, at: Index, key: FlowKey, ts: i64, seq: u32, payload: &[u8]) -> Index {
        let over = |flow: &&Flow| matches!(flow.stage, Stage::Second | Stage::Done);
        let Some(flow) = self.flows.get(at).filter(over) else { return at };
        if distance(flow.base, seq).unsigned_abs() <= NEW_CONNECTION_DISTANCE || !tls::surely_starts(payload) {
            return at;
        }
        self.counters.ports_reused += 1;
        self.remove(at);
        self.insert(key, Flow::new(ts, seq, Stage::Unanchored), ts)
    }

    fn insert(&mut self, key: FlowKey, flow: Flow, now: i64) -> Index {
        while self.flows.len() >= self.limits.max_flows {
            let Some(at) = self.flows.oldest() else { break };
            let Some(flow) = self.remove(at) else { break };
            *match flow.class() {
                Class::OnlySyn => &mut self.counters.flows_evicted_syn,
                Class::Expendable => &mut self.counters.flows_recycled,
                Class::Unfinished => &mut self.counters.flows_evicted,
            } += 1;
        }
        self.flows.insert(key, flow, now)
    }

    fn remove(&mut self, at: Index) -> Option<Flow> {
        let flow = self.flows.remove(at)?;
        self.buffered -= flow.held();
        match flow.stage {
            Stage::First if flow.assembly.is_some() || flow.datagrams.is_some() => self.counters.incomplete_hellos += 1,
            Stage::Unanchored => self.counters.not_tls += 1,
            _ => {}
        }
        Some(flow)
    }

    fn is_expired(&self, at: Index, now: i64) -> bool {
        // Both ways: a flow from a far future would never leave.
        self.flows.last(at).is_some_and(|last| last.abs_diff(now) > self.timeout)
    }

    fn expire(&mut self, now: i64) {
        for class in [Class::OnlySyn, Class::Expendable, Class::Unfinished] {
            for _ in 0..MAX_EXPIRED_PER_PACKET {
                let Some(at) = self.flows.oldest_of(class).filter(|at| self.is_expired(*at, now)) else { break };
                self.counters.flows_expired += 1;
                self.remove(at);
            }
        }
    }

    /// Evicts until the buffers fit: only connections that hold bytes, first those whose hello is out. Each flow is evicted once, so the work is bounded by what was inserted.
    fn keep_to_budget(&mut self) {
        while self.buffered > self.limits.max_buffered_bytes {
            let Some(at) = self.flows.oldest_holder() else { break };
            self.counters.buffer_exceeded_count += 1;
            self.remove(at);
        }
    }
}
