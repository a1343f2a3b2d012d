//! The table of connections: bounded, and in order of last use, so that what goes first is always the same.

use std::cell::Cell;

use ahash::RandomState;
use hashbrown::HashTable;

use super::assembly::{Assembly, distance};
use super::checksum::Checksum;
use super::contest::{Contest, Rank};
use super::dtls;
use super::hello::{Arrival, Hello};
use super::ip::IpMeta;
use super::packet::Packet;
use super::quic;
use super::tcp::{Segment, SynOptions, option};

/// One direction of a connection, client to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub src: u128,
    pub dst: u128,
    pub src_port: u16,
    pub dst_port: u16,
    /// QUIC or DTLS; else TCP.
    pub udp: bool,
}

impl FlowKey {
    /// The direction of a packet.
    pub(crate) fn of(packet: &Packet<'_>, udp: bool) -> Self {
        let Packet { src, src_port, dst, dst_port, .. } = *packet;
        Self { src, dst, src_port, dst_port, udp }
    }

    /// The other direction.
    pub(crate) fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..*self }
    }

    /// The same for both directions.
    fn undirected(&self) -> Self {
        if (self.src, self.src_port) <= (self.dst, self.dst_port) { *self } else { self.reversed() }
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No SYN was captured and no segment looked like the start of a hello yet.
    Unanchored,
    /// Waiting for the first hello.
    First,
    /// The first hello is out; a HelloRetryRequest may bring a second.
    Second,
    /// Nothing more is expected. Kept so that later data is known to belong to an old connection.
    Done,
}

/// A captured SYN.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Syn {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub ip: IpMeta,
    pub options: SynOptions,
    pub checksum: Checksum,
}

/// What the server's side of a TCP connection has shown.
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
    fn held(&self) -> usize {
        size_of::<Self>()
            + self.bytes.capacity()
            + [&self.hello, &self.sequel].into_iter().flatten().count() * size_of::<Hello>()
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

/// A connection. Without buffered data it takes about 300 bytes, over UDP half as much again.
#[derive(Debug)]
pub(crate) struct Flow {
    pub stage: Stage,
    /// The first hello offered early data.
    pub early_data: bool,
    /// Time of the connection's first packet, nanoseconds since the epoch.
    pub first: i64,
    /// Sequence number of the client's first byte; of the first byte seen while the start is unknown.
    pub start: u32,
    /// Sequence number of the first byte not dealt with.
    pub base: u32,
    /// Bytes skipped since the first hello.
    pub skipped: usize,
    pub syn: Option<Syn>,
    /// Another SYN, and the number of the first byte after it, that came while the hello was not complete.
    pub rival: Option<Box<(u32, Syn)>>,
    pub assembly: Option<Box<Assembly>>,
    pub datagrams: Option<Datagrams>,
    /// The client has sent more than a SYN.
    pub confirmed: bool,
    pub server: Server,
    /// The first hello, if it has not been handed on.
    pub waiting: Option<Box<Waiting>>,
    /// Bytes of which it is not sure whether they are the client's.
    pub contest: Option<Box<Contest>>,
    pub verdict: Option<Box<Verdict>>,
    /// The client has sent two versions of its first bytes: its hello is ambiguous.
    pub disputed: bool,
    /// It began anew on the ports of a connection whose server was seen, and without that server.
    pub is_unproven: bool,
    /// Another SYN came for it.
    pub is_rivalled: bool,
    /// It was given up while its start was unknown: what came was from behind a hello.
    pub is_past: bool,
    /// There may be a connection in the other direction too: who is the client is not known yet.
    pub has_twin: bool,
}

/// What is known of a connection over UDP.
#[derive(Debug)]
pub(crate) enum Datagrams {
    Quic(Box<quic::Connection>),
    Dtls(Box<dtls::Connection>),
}

impl Datagrams {
    fn held(&self) -> usize {
        match self {
            Self::Quic(connection) => connection.held(),
            Self::Dtls(connection) => connection.held(),
        }
    }
}

impl Flow {
    /// A connection first seen at `first` whose client's first byte has (or may have) this sequence number.
    pub(crate) fn new(first: i64, start: u32, stage: Stage) -> Self {
        Self {
            stage,
            early_data: false,
            first,
            start,
            base: start,
            skipped: 0,
            syn: None,
            rival: None,
            assembly: None,
            datagrams: None,
            confirmed: false,
            server: Server::default(),
            waiting: None,
            contest: None,
            verdict: None,
            disputed: false,
            is_unproven: false,
            is_rivalled: false,
            is_past: false,
            has_twin: false,
        }
    }

    /// Memory that its buffered data takes, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| size_of::<Assembly>() + assembly.held())
            + self.datagrams.as_ref().map_or(0, |datagrams| datagrams.held())
            + self.waiting.as_ref().map_or(0, |waiting| waiting.held())
            + self.contest.as_ref().map_or(0, |contest| contest.held())
    }

    /// Its place in the order of eviction.
    pub(crate) fn class(&self) -> Class {
        match self.stage {
            Stage::Second | Stage::Done => Class::Expendable,
            Stage::First if self.syn.is_some() && !self.confirmed => Class::OnlySyn,
            Stage::Unanchored | Stage::First => Class::Unfinished,
        }
    }
}

/// Connections are evicted by what would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The client has sent nothing but a SYN, as in a flood.
    OnlySyn = 0,
    /// Its main hello is out or will never come.
    Expendable = 1,
    /// Its hello may still come.
    Unfinished = 2,
}

/// Place of a flow in the table; valid until the flow is removed.
pub(crate) type Index = u32;

const NONE: Index = Index::MAX;

#[derive(Debug)]
struct Slot {
    key: FlowKey,
    flow: Flow,
    /// Time of the last packet, nanoseconds since the epoch.
    last: i64,
    /// Grows with every use of any flow.
    used: u64,
    older: Index,
    newer: Index,
    /// Which of the lists it is in.
    list: ListId,
}

/// The flows of a class, and of them those that hold bytes: only these are worth evicting when the buffers are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ListId {
    class: Class,
    holds: bool,
}

impl ListId {
    fn of(flow: &Flow) -> Self {
        Self { class: flow.class(), holds: flow.held() > 0 }
    }

    fn index(self) -> usize {
        self.class as usize * 2 + usize::from(self.holds)
    }
}

/// A list through the slots, oldest use first.
#[derive(Debug, Clone, Copy)]
struct List {
    oldest: Index,
    newest: Index,
    len: usize,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct FlowTable {
    slots: Vec<Option<Slot>>,
    free: Vec<Index>,
    index: HashTable<Index>,
    /// Keyed anew in every process: nobody can send keys that collide. No result depends on it.
    hasher: RandomState,
    /// The hash that was asked for last.
    hashed: Cell<(FlowKey, u64)>,
    /// One for each `ListId`.
    lists: [List; 6],
    /// Uses of flows so far.
    uses: u64,
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        let nobody = FlowKey { src: 0, dst: 0, src_port: 0, dst_port: 0, udp: false };
        let empty = List { oldest: NONE, newest: NONE, len: 0 };
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hashed: Cell::new((nobody, hasher.hash_one(nobody))),
            hasher,
            lists: [empty; 6],
            uses: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Where the flow with this key is.
    pub(crate) fn find(&self, key: &FlowKey) -> Option<Index> {
        self.index.find(self.hash(key), |at| self.slot(*at).is_some_and(|slot| slot.key == *key)).copied()
    }

    /// Where the flow is to which a packet of this direction belongs, and whether the client sent it.
    pub(crate) fn find_either(&self, key: &FlowKey) -> Option<(Index, bool)> {
        let reversed = key.reversed();
        let fits = |at: &Index| self.slot(*at).is_some_and(|slot| slot.key == *key || slot.key == reversed);
        let at = *self.index.find(self.hash(key), fits)?;
        let slot = self.slot(at)?;
        if slot.key == *key {
            return Some((at, true));
        }
        let twin = if slot.flow.has_twin { self.find(key) } else { None };
        Some(twin.map_or((at, false), |twin| (twin, true)))
    }

    /// A flow with its direction.
    pub(crate) fn entry(&mut self, at: Index) -> Option<(FlowKey, &mut Flow)> {
        self.slot_mut(at).map(|slot| (slot.key, &mut slot.flow))
    }

    /// The direction of a flow.
    pub(crate) fn key(&self, at: Index) -> Option<FlowKey> {
        self.slot(at).map(|slot| slot.key)
    }

    pub(crate) fn get(&self, at: Index) -> Option<&Flow> {
        self.slot(at).map(|slot| &slot.flow)
    }

    pub(crate) fn get_mut(&mut self, at: Index) -> Option<&mut Flow> {
        self.slot_mut(at).map(|slot| &mut slot.flow)
    }

    /// Time of the flow's last packet.
    pub(crate) fn last(&self, at: Index) -> Option<i64> {
        self.slot(at).map(|slot| slot.last)
    }

    /// Adds a flow whose key is not there.
    pub(crate) fn insert(&mut self, key: FlowKey, mut flow: Flow, now: i64) -> Index {
        if let Some(other) = self.find(&key.reversed()).and_then(|at| self.get_mut(at)) {
            (flow.has_twin, other.has_twin) = (true, true);
        }
        self.uses += 1;
        let list = ListId::of(&flow);
        let slot = Slot { key, flow, last: now, used: self.uses, older: NONE, newer: NONE, list };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as Index
            }
        };
        self.slots[at as usize] = Some(slot);
        self.append(at);
        let hash = self.hash(&key);
        let Self { slots, index, hasher, .. } = self;
        let hash_of =
            |at: &Index| slots[*at as usize].as_ref().map_or(0, |slot| hasher.hash_one(slot.key.undirected()));
        index.insert_unique(hash, at, hash_of);
        at
    }

    /// Notes that the flow was used now; call it after its stage changed, or what it holds.
    pub(crate) fn touch(&mut self, at: Index, now: i64) {
        self.uses += 1;
        let used = self.uses;
        let Some(slot) = self.slot_mut(at) else { return };
        (slot.last, slot.used) = (now, used);
        let list = ListId::of(&slot.flow);
        // The packets of a connection often follow each other: it is the newest already.
        if slot.list == list && slot.newer == NONE {
            return;
        }
        self.unlink(at);
        if let Some(slot) = self.slot_mut(at) {
            slot.list = list;
        }
        self.append(at);
    }

    pub(crate) fn remove(&mut self, at: Index) -> Option<Flow> {
        self.unlink(at);
        let slot = self.slots.get_mut(at as usize)?.take()?;
        if let Ok(entry) = self.index.find_entry(self.hash(&slot.key), |other| *other == at) {
            entry.remove();
        }
        self.free.push(at);
        Some(slot.flow)
    }

    /// The flow that goes next, always the one of its class unused for longest. Of flows with only a SYN at most half
    /// of all stay; then go expendable ones, those with only a SYN, and the rest.
    pub(crate) fn oldest(&self) -> Option<Index> {
        let syns = [false, true].map(|holds| self.list(Class::OnlySyn, holds).len);
        let flood = syns[0] + syns[1] > self.len() / 2;
        let order = match flood {
            true => [Class::OnlySyn, Class::Expendable, Class::Unfinished],
            false => [Class::Expendable, Class::OnlySyn, Class::Unfinished],
        };
        order.into_iter().find_map(|class| self.oldest_of(class))
    }

    /// The flow of a class unused for longest.
    pub(crate) fn oldest_of(&self, class: Class) -> Option<Index> {
        let heads = [false, true].map(|holds| self.list(class, holds).oldest);
        heads.into_iter().filter(|at| *at != NONE).min_by_key(|at| self.slot(*at).map(|slot| slot.used))
    }

    /// The flow that goes next when the buffers are full: of those that hold bytes an expendable one, else one whose
    /// hello may still come; of these the one unused for longest.
    pub(crate) fn oldest_holder(&self) -> Option<Index> {
        let order = [Class::Expendable, Class::OnlySyn, Class::Unfinished];
        order.into_iter().map(|class| self.list(class, true).oldest).find(|at| *at != NONE)
    }

    /// The same for both directions. A packet asks for that of one connection several times.
    fn hash(&self, key: &FlowKey) -> u64 {
        let key = key.undirected();
        let (last, hash) = self.hashed.get();
        if last == key {
            return hash;
        }
        let hash = self.hasher.hash_one(key);
        self.hashed.set((key, hash));
        hash
    }

    fn list(&self, class: Class, holds: bool) -> &List {
        &self.lists[ListId { class, holds }.index()]
    }

    fn slot(&self, at: Index) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    fn slot_mut(&mut self, at: Index) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// Puts an unlinked slot at the end of its list.
    fn append(&mut self, at: Index) {
        let Some(list) = self.slot(at).map(|slot| slot.list.index()) else { return };
        let list = &mut self.lists[list];
        list.len += 1;
        let newest = std::mem::replace(&mut list.newest, at);
        if newest == NONE {
            list.oldest = at;
        }
        if let Some(slot) = self.slot_mut(newest) {
            slot.newer = at;
        }
        if let Some(slot) = self.slot_mut(at) {
            slot.older = newest;
        }
    }

    fn unlink(&mut self, at: Index) {
        let Some(slot) = self.slot_mut(at) else { return };
        let (older, newer, list) = (slot.older, slot.newer, slot.list.index());
        (slot.older, slot.newer) = (NONE, NONE);
        self.lists[list].len -= 1;
        match self.slot_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.lists[list].oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.lists[list].newest = older,
        }
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
