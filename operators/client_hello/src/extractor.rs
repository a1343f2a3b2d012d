//! The extractor: frames in, hellos out.

use std::ops::RangeInclusive;
use std::time::Duration;

use ahash::RandomState;

use super::connection::Connection;
use super::counters::Counters;
use super::datagrams;
use super::flow::{Class, Flow, FlowKey, Stage};
use super::fragments::Fragments;
use super::hello::{Arrival, Hello};
use super::ip::IpMeta;
use super::limits::Limits;
use super::packet::{self, Decoded, Packet, Skip, Transport};
use super::queue::{Entry, Queue};
use super::table::{FlowTable, Index};
use super::trust;

/// On the same addresses and ports, a hello further than this from the last byte seen begins a new connection.
pub(crate) const NEW_CONNECTION_DISTANCE: u64 = 1 << 20;

/// Flows that one packet may expire: more than it can add, so that the table shrinks, and few enough that a packet
/// with a timestamp far away cannot empty it.
const MAX_EXPIRED_PER_PACKET: usize = 2;

/// Fragmented packets inside fragmented packets that are followed.
const MAX_NESTED_FRAGMENTS: usize = 2;

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
    pub(crate) limits: Limits,
    /// `Limits::flow_timeout` in nanoseconds.
    timeout: u64,
    /// `Limits::hold` in nanoseconds.
    hold: u64,
    pub(crate) flows: FlowTable,
    /// A packet of a time in here ends no connection.
    quiet: RangeInclusive<i64>,
    /// Memory of all assemblies together.
    pub(crate) buffered: usize,
    /// For hellos spread over several records.
    pub(crate) joined: Vec<u8>,
    fragments: Fragments,
    pub(crate) counters: Counters,
    /// Flows with something that leaves later, unless the server acknowledges it before.
    pub(crate) queue: Queue,
    /// Hellos that leave with the packet that is looked at.
    pub(crate) ready: Vec<Hello>,
    /// Made anew in every process: nobody can make two hellos that are taken for one.
    seed: u64,
    /// `Frame::origin` of the frame that is looked at.
    origin: u64,
    /// Its `Frame::interface`.
    interface: u32,
}

impl HelloExtractor {
    /// An extractor without connections.
    pub fn new(mut limits: Limits) -> Self {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        limits.ports.sort_unstable();
        limits.max_flows = limits.max_flows.clamp(1, Index::MAX as usize - 1);
        Self {
            timeout: nanoseconds(limits.flow_timeout),
            hold: nanoseconds(limits.hold),
            limits,
            flows: FlowTable::new(),
            quiet: RangeInclusive::new(1, 0), // none
            buffered: 0,
            joined: Vec::new(),
            fragments: Fragments::default(),
            counters: Counters::default(),
            queue: Queue::default(),
            ready: Vec::new(),
            seed: RandomState::new().hash_one(0),
            origin: 0,
            interface: 0,
        }
    }

    /// Takes one captured frame. Hands to `emit` the hellos that leave now: those that it completes, or that it lets go
    /// because the server has acknowledged them, and those that have waited for long enough by its time.
    pub fn packet(&mut self, frame: &Frame<'_>, emit: &mut (impl FnMut(Hello) + ?Sized)) {
        self.counters.packets_received += 1;
        self.release(frame.time, emit);
        self.expire(frame.time);
        let cut = frame.data.len() < frame.wire_len as usize;
        let decoded = packet::decode(frame.linktype, frame.data, self.limits.tunnels);
        (self.origin, self.interface) = (frame.origin, frame.interface);
        self.decoded(frame.time, decoded, cut, MAX_NESTED_FRAGMENTS);
        self.hand_on(emit);
    }

    /// Time has passed, nanoseconds since the epoch: hands on the hellos that have waited for long enough.
    pub fn advance(&mut self, now: i64, emit: &mut (impl FnMut(Hello) + ?Sized)) {
        self.release(now, emit);
    }

    /// The input has ended: hands on the hellos that still wait, and counts those of which a part is missing.
    pub fn finish(&mut self, emit: &mut (impl FnMut(Hello) + ?Sized)) {
        while let Some(entry) = self.queue.front() {
            self.queue.pop();
            self.expired(entry);
            self.hand_on(emit);
        }
        while let Some(at) = self.flows.oldest() {
            self.remove(at);
            self.hand_on(emit);
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

    /// The earliest time that a hello which leaves later may have, nanoseconds since the epoch; `None` if none waits. That of
    /// packets whose times ascend by and large.
    pub fn oldest_waiting(&mut self) -> Option<i64> {
        while let Some(entry) = self.queue.front() {
            if self.waits(entry) {
                return Some(entry.since);
            }
            self.queue.pop();
        }
        None
    }

    fn hand_on(&mut self, emit: &mut (impl FnMut(Hello) + ?Sized)) {
        if self.ready.is_empty() {
            return;
        }
        for hello in self.ready.drain(..) {
            self.counters.hellos += 1;
            self.counters.ambiguous_hellos += u64::from(hello.ambiguous);
            emit(hello);
        }
    }

    pub(crate) fn skipped(&mut self, skip: Skip, cut: bool) {
        *match skip {
            Skip::UnknownLink => &mut self.counters.unknown_link,
            Skip::NotIp => &mut self.counters.non_ip,
            Skip::Undecoded(layer) => &mut self.counters.undecoded[layer as usize],
            Skip::OtherTransport => &mut self.counters.non_tcp,
            Skip::Short if cut => &mut self.counters.truncated,
            Skip::Short | Skip::Malformed => &mut self.counters.malformed,
        } += 1;
    }

    fn decoded(&mut self, ts: i64, decoded: Result<Decoded<'_>, Skip>, cut: bool, nested: usize) {
        match decoded {
            Ok(Decoded::Packet(packet)) => self.whole(ts, &packet),
            Ok(Decoded::Fragment(ip)) => {
                let arrival = self.arrival_of(ts, ip.meta, 0);
                let versions = self.fragments.add(&ip, trust::of_fragment(&ip), &arrival, &mut self.counters);
                let Some(nested) = nested.checked_sub(1) else { return };
                for whole in versions {
                    let decoded = whole.ip().and_then(|ip| packet::decode_ip(ip, self.limits.tunnels));
                    self.decoded(ts, decoded, false, nested);
                }
            }
            Err(skip) => self.skipped(skip, cut),
        }
    }

    fn whole(&mut self, ts: i64, packet: &Packet<'_>) {
        if let Transport::Udp(datagram) = &packet.transport
            && !datagrams::concerns(datagram.payload)
        {
            return self.skipped(packet::without_hello(packet.dst_port, datagram.payload), false);
        }
        let watched = |port: u16| self.limits.ports.is_empty() || self.limits.ports.binary_search(&port).is_ok();
        let is_answer = !watched(packet.dst_port);
        if is_answer && !watched(packet.src_port) {
            self.counters.other_ports += 1;
            return;
        }
        self.counters.truncated += u64::from(packet.cut);
        match &packet.transport {
            _ if is_answer && !self.is_known(packet) => {}
            Transport::Tcp(segment) => self.segment(ts, packet, segment),
            Transport::Udp(datagram) => self.datagram(ts, packet, datagram),
        }
    }

    /// Whether a packet from a watched port answers a client that is known.
    fn is_known(&self, packet: &Packet<'_>) -> bool {
        let is_udp = matches!(packet.transport, Transport::Udp(_));
        self.flows.find_either(&FlowKey::of(packet, is_udp)).is_some_and(|(_, from_client)| !from_client)
    }

    pub(crate) fn arrival(&self, ts: i64, packet: &Packet<'_>) -> Arrival {
        let alike = match &packet.transport {
            Transport::Tcp(segment) => u64::from(segment.ack) | (segment.options.len() as u64) << 32,
            Transport::Udp(_) => 0,
        };
        self.arrival_of(ts, packet.ip, alike)
    }

    fn arrival_of(&self, ts: i64, ip: IpMeta, alike: u64) -> Arrival {
        let group = u64::from(ip.ttl) << 48 | alike;
        let Self { origin, interface, .. } = *self;
        Arrival { time: ts, ip, origin, order: self.counters.packets_received, group, interface }
    }

    /// Does something to a flow, whose buffers may change by it.
    pub(crate) fn with(&mut self, at: Index, act: impl FnOnce(&mut Connection<'_>)) {
        let Self { flows, buffered, limits, counters, joined, queue, ready, seed, .. } = self;
        let Some((key, flow)) = flows.entry(at) else { return };
        let held = flow.held();
        act(&mut Connection {
            flow,
            at,
            key: &key,
            limits,
            counters,
            joined,
            queue,
            ready,
            seed: *seed,
            segment: None,
            is_buffered: false,
        });
        *buffered = *buffered - held + flow.held();
    }

    /// The flow, unless it has been silent for too long.
    pub(crate) fn live(&mut self, at: Index, now: i64) -> Option<Index> {
        if self.is_expired(at, now) {
            self.counters.flows_expired += 1;
            self.remove(at);
            return None;
        }
        Some(at)
    }

    pub(crate) fn insert(&mut self, key: FlowKey, flow: Flow, now: i64) -> Index {
        while self.flows.len() >= self.limits.max_flows {
            let Some(at) = self.flows.oldest() else { break };
            let Some(class) = self.remove(at) else { break };
            *match class {
                Class::OnlySyn => &mut self.counters.flows_evicted_syn,
                Class::Expendable => &mut self.counters.flows_recycled,
                Class::Unfinished => &mut self.counters.flows_evicted,
            } += 1;
        }
        self.flows.insert(key, flow, now)
    }

    /// Forgets a flow; what waits of it leaves. What it was.
    pub(crate) fn remove(&mut self, at: Index) -> Option<Class> {
        let flow = self.flows.get(at)?;
        if flow.waiting.is_some() || flow.contest.is_some() {
            self.with(at, |connection| connection.expired());
        }
        let flow = self.flows.get(at)?;
        self.buffered -= flow.held();
        match flow.stage {
            Stage::First if flow.assembly.is_some() || flow.datagrams.is_some() || flow.contest.is_some() => {
                self.counters.incomplete_hellos += 1;
            }
            Stage::Unanchored => self.counters.not_tls += 1,
            // A tunnel or a request was all that came.
            Stage::First if flow.skipped > 0 => self.counters.not_tls += 1,
            _ => {}
        }
        let class = flow.class();
        self.flows.remove(at);
        Some(class)
    }

    fn is_expired(&self, at: Index, now: i64) -> bool {
        // Both ways: a flow from a far future would never leave.
        self.flows.last(at).is_some_and(|last| last.abs_diff(now) > self.timeout)
    }

    fn expire(&mut self, now: i64) {
        if self.quiet.contains(&now) {
            return;
        }
        let (mut first, mut last) = (now, now);
        for class in [Class::OnlySyn, Class::Expendable, Class::Unfinished] {
            for _ in 0..MAX_EXPIRED_PER_PACKET {
                let Some(at) = self.flows.oldest_of(class).filter(|at| self.is_expired(*at, now)) else { break };
                self.counters.flows_expired += 1;
                self.remove(at);
            }
            if let Some(time) = self.flows.oldest_of(class).and_then(|at| self.flows.last(at)) {
                (first, last) = (first.min(time), last.max(time));
            }
        }
        self.quiet = last.saturating_sub_unsigned(self.timeout)..=first.saturating_add_unsigned(self.timeout);
    }

    /// Ends the waits that have lasted for long enough. Their hellos leave one by one: there may be as many as connections.
    fn release(&mut self, now: i64, emit: &mut (impl FnMut(Hello) + ?Sized)) {
        while let Some(entry) = self.queue.front() {
            let waited = now.saturating_sub(entry.since);
            // From a far future it would never leave.
            let is_due = waited >= 0 && waited.unsigned_abs() >= self.hold || waited.unsigned_abs() > self.timeout;
            if !is_due && self.queue.len() <= self.limits.max_flows {
                break;
            }
            self.queue.pop();
            self.expired(entry);
            self.hand_on(emit);
        }
    }

    /// Whether a wait is not over.
    fn waits(&self, entry: Entry) -> bool {
        self.flows.get(entry.at).is_some_and(|flow| {
            flow.waiting.as_ref().is_some_and(|waiting| waiting.number == entry.number)
                || flow.contest.as_ref().is_some_and(|contest| contest.number == entry.number)
        })
    }

    fn expired(&mut self, entry: Entry) {
        if self.waits(entry) {
            self.with(entry.at, |connection| connection.expired());
        }
    }

    /// Evicts until the buffers fit: only connections that hold bytes, first those whose hello is out. Each flow is evicted once, so the work is bounded by what was inserted.
    pub(crate) fn keep_to_budget(&mut self) {
        while self.buffered > self.limits.max_buffered_bytes {
            let Some(at) = self.flows.oldest_holder() else { break };
            self.counters.buffer_exceeded_count += 1;
            self.remove(at);
        }
    }
}
