//! IP packets from their fragments (RFC 791 section 3.2, RFC 8200 section 4.5, RFC 5722).
//!
//! Receivers differ in what they do with fragments that overlap, and a client can send some that its server drops. Where
//! two hold other bytes for the same place, every likely version of the packet is handed on, and counted: which one the
//! server took is decided with the connection it belongs to. So a packet is remembered for a while after it is complete.
//!
//! The table is bounded in packets, bytes and time, and each packet in fragments; what has waited longest goes first.

use std::collections::{BTreeMap, VecDeque};

use ahash::RandomState;
use hashbrown::HashMap;

use super::assembly::{Assembly, Brought};
use super::contest::{Contest, Order, Part, Rank, differs};
use super::counters::Counters;
use super::hello::Arrival;
use super::ip::{Ip, IpMeta, after_extensions};
use super::packet::Skip;

/// Packets that are put together at a time.
const MAX_PACKETS: usize = 1024;
/// Bytes of all of them.
const MAX_BYTES: usize = 8 << 20;
/// Fragments that one packet may take, repetitions included. The longest packet takes 54 on links of the least MTU that
/// IPv6 allows, 1280 bytes; one of 8 kB in the smallest parts there are, 8 bytes, takes as many as this.
const MAX_PARTS: usize = 1024;
/// Fragments of a packet that are taken once two of them have differed: for each, all versions are made anew.
const MAX_CONTESTED: usize = 32;
/// Lengths of one packet that are believed in.
const MAX_LENGTHS: usize = 3;
/// Complete packets that are remembered, for this long, and their bytes.
const REMEMBERED: usize = 256;
const REMEMBERED_BYTES: usize = 2 << 20;
const REMEMBERED_NS: u64 = 2_000_000_000;
/// How long a packet may take, RFC 8200 section 4.5.
const TIMEOUT_NS: u64 = 60_000_000_000;
/// The longest payload of an IP packet that is no jumbogram.
const MAX_PAYLOAD: usize = 65_535;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    src: u128,
    dst: u128,
    id: u32,
    protocol: u8,
}

#[derive(Debug)]
struct Partial {
    /// Time of the first fragment seen, nanoseconds since the epoch.
    begun: i64,
    /// Its place in the order.
    number: u64,
    parts: Assembly,
    /// In place of `parts` once two fragments have differed.
    contest: Option<Box<Contest>>,
    /// Lengths of the whole payload, by the last fragments seen.
    lengths: Vec<usize>,
    /// Header of the first fragment, else of the first seen.
    meta: IpMeta,
}

/// A packet that was complete.
#[derive(Debug)]
struct Remembered {
    arrival: Arrival,
    payload: Vec<u8>,
    contest: Option<Box<Contest>>,
    lengths: Vec<usize>,
    meta: IpMeta,
    /// What was handed on, by hash.
    given: Vec<u64>,
}

/// A packet put together.
#[derive(Debug)]
pub(crate) struct Whole {
    src: u128,
    dst: u128,
    meta: IpMeta,
    protocol: u8,
    payload: Vec<u8>,
    /// Its fragments differed, or were not sent alike.
    is_doubtful: bool,
}

impl Whole {
    /// The packet as if it had come in one.
    pub(crate) fn ip(&self) -> Result<Ip<'_>, Skip> {
        let (protocol, payload, fragment) = after_extensions(self.protocol, &self.payload)?;
        Ok(Ip {
            src: self.src,
            dst: self.dst,
            meta: self.meta,
            header: &[],
            is_doubtful: self.is_doubtful,
            protocol,
            payload,
            cut: false,
            fragment,
        })
    }
}

/// Packets of which fragments are missing.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    packets: HashMap<Key, Partial, RandomState>,
    /// Keys by the order in which packets were begun.
    order: BTreeMap<u64, Key>,
    /// Packets begun so far.
    begun: u64,
    /// Memory of all parts.
    bytes: usize,
    complete: HashMap<Key, Remembered, RandomState>,
    /// Keys of complete packets, the oldest first.
    completed: VecDeque<Key>,
    complete_bytes: usize,
    hasher: RandomState,
}

impl Fragments {
    /// Takes a fragment; the packet if it is complete now, in all its versions.
    pub(crate) fn add(&mut self, ip: &Ip<'_>, rank: Rank, arrival: &Arrival, counters: &mut Counters) -> Vec<Whole> {
        let Some(place) = ip.fragment else { return Vec::new() };
        counters.fragments += 1;
        let end = place.offset as usize + ip.payload.len();
        // Only the last fragment may end within a unit of 8 bytes (RFC 791 section 3.2, RFC 8200 section 4.5).
        let broken = place.more && !ip.payload.len().is_multiple_of(8);
        if ip.cut || broken || end > MAX_PAYLOAD || ip.payload.is_empty() {
            counters.malformed += 1;
            return Vec::new();
        }
        let key = Key { src: ip.src, dst: ip.dst, id: place.id, protocol: ip.protocol };
        self.forget(arrival.time);
        let part = Part { at: place.offset, rank, bytes: ip.payload.to_vec(), arrival: *arrival, is_whole: false };
        let last = (!place.more).then_some(end);
        if self.complete.contains_key(&key) {
            return self.again(&key, part, last, counters);
        }
        self.make_room(arrival.time, &key, counters);
        let Self { packets, order, begun, bytes, .. } = self;
        let partial = packets.entry(key).or_insert_with(|| {
            *begun += 1;
            order.insert(*begun, key);
            let parts = Assembly::default();
            Partial { begun: arrival.time, number: *begun, parts, contest: None, lengths: Vec::new(), meta: ip.meta }
        });
        let held = partial.held();
        let is_within = partial.add(part, ip.meta, last, counters);
        *bytes = *bytes - held + partial.held();
        if !is_within {
            self.remove(&key);
            counters.fragments_incomplete += 1;
            return Vec::new();
        }
        if !partial.is_complete() {
            return Vec::new();
        }
        let Some(partial) = self.remove(&key) else { return Vec::new() };
        counters.fragments_joined += 1;
        let Partial { parts, contest, lengths, meta, .. } = partial;
        let mut payload = parts.into_data();
        payload.truncate(lengths.first().copied().unwrap_or_default());
        let (arrival, given) = (*arrival, Vec::new());
        let mut packet = Remembered { arrival, payload, contest, lengths, meta, given };
        let versions = packet.versions(&key, &self.hasher);
        self.complete_bytes += packet.held();
        self.completed.push_back(key);
        self.complete.insert(key, packet);
        versions
    }

    /// A fragment of a packet that was complete: its sender repeats itself, or tells another story.
    fn again(&mut self, key: &Key, part: Part, last: Option<usize>, counters: &mut Counters) -> Vec<Whole> {
        let Some(packet) = self.complete.get_mut(key) else { return Vec::new() };
        let held = packet.held();
        let beyond = part.at as usize + part.bytes.len() > packet.payload.len();
        let other_end = last.is_some_and(|end| !packet.lengths.contains(&end));
        if packet.contest.is_none() {
            if !beyond && !other_end && !differs(0, &packet.payload, part.at, &part.bytes) {
                return Vec::new();
            }
            let mut contest = Contest::limited(0, MAX_PAYLOAD, MAX_CONTESTED);
            let (bytes, arrival) = (packet.payload.clone(), packet.arrival);
            contest.add(Part::known(0, bytes, arrival));
            packet.contest = Some(Box::new(contest));
        }
        counters.overlap_conflicts += 1;
        packet.lengths.extend(last.filter(|_| other_end && packet.lengths.len() < MAX_LENGTHS));
        let is_within = packet.contest.as_mut().is_some_and(|contest| contest.add(part));
        let versions = if is_within { packet.versions(key, &self.hasher) } else { Vec::new() };
        self.complete_bytes = self.complete_bytes - held + packet.held();
        versions
    }

    /// Forgets complete packets that are old, or too many.
    fn forget(&mut self, now: i64) {
        while let Some(key) = self.completed.front() {
            let too_many = self.completed.len() > REMEMBERED || self.complete_bytes > REMEMBERED_BYTES;
            let is_old = |packet: &Remembered| packet.arrival.time.abs_diff(now) > REMEMBERED_NS;
            if !too_many && !self.complete.get(key).is_none_or(is_old) {
                break;
            }
            let gone = self.completed.pop_front().and_then(|key| self.complete.remove(&key));
            self.complete_bytes -= gone.map_or(0, |packet| packet.held());
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.bytes + self.complete_bytes
    }

    fn make_room(&mut self, now: i64, key: &Key, counters: &mut Counters) {
        if self.packets.get(key).is_some_and(|partial| partial.begun.abs_diff(now) > TIMEOUT_NS) {
            self.remove(key);
            counters.fragments_incomplete += 1;
        }
        while let Some(oldest) = self.order.first_key_value().map(|(_, key)| *key) {
            let full = self.packets.len() >= MAX_PACKETS || self.bytes > MAX_BYTES;
            let late = self.packets.get(&oldest).is_none_or(|partial| partial.begun.abs_diff(now) > TIMEOUT_NS);
            if !full && !late || self.remove(&oldest).is_none() {
                break;
            }
            counters.fragments_incomplete += 1;
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.packets.remove(key)?;
        self.bytes -= partial.held();
        self.order.remove(&partial.number);
        Some(partial)
    }
}

impl Partial {
    fn held(&self) -> usize {
        self.parts.held() + self.contest.as_ref().map_or(0, |contest| contest.held())
    }

    /// Takes a fragment; false if there were too many.
    fn add(&mut self, part: Part, meta: IpMeta, last: Option<usize>, counters: &mut Counters) -> bool {
        let other_end = last.is_some_and(|end| !self.lengths.is_empty() && !self.lengths.contains(&end));
        let differs = self.contest.is_none() && self.parts.contradicts(0, part.at, &part.bytes);
        counters.overlap_conflicts += u64::from(differs || other_end);
        // Of fragments that took different ways one may not have reached the server.
        let is_odd = part.rank != Rank::Trusted || meta.ttl != self.meta.ttl;
        if self.contest.is_none() && (differs || other_end || is_odd) {
            self.dispute(&part.arrival);
        }
        self.lengths.extend(last.filter(|end| self.lengths.len() < MAX_LENGTHS && !self.lengths.contains(end)));
        let at_front = part.at == 0;
        let (is_new, is_within) = match &mut self.contest {
            Some(contest) => (part.rank == Rank::Trusted, contest.add(part)),
            None => {
                let brought = self.parts.insert(0, part.at, &part.bytes, MAX_PAYLOAD);
                self.parts.latest = Some(part.arrival);
                (brought != Brought::Nothing, self.parts.segments() < MAX_PARTS)
            }
        };
        if at_front && is_new {
            self.meta = meta;
        }
        is_within || self.is_complete()
    }

    /// From here on fragments are kept as they come.
    fn dispute(&mut self, arrival: &Arrival) {
        let mut contest = Contest::limited(0, MAX_PAYLOAD, MAX_CONTESTED);
        let parts = std::mem::take(&mut self.parts);
        let arrival = parts.latest.unwrap_or(*arrival);
        contest.add_known(parts.into_parts(0), arrival);
        self.contest = Some(Box::new(contest));
    }

    fn is_complete(&self) -> bool {
        let Some(shortest) = self.lengths.iter().min() else { return false };
        let in_order = match &self.contest {
            Some(contest) => contest.version(Order::Rank, Rank::Doubtful).stream.len(),
            None => self.parts.in_order(),
        };
        in_order >= *shortest
    }
}

impl Remembered {
    fn held(&self) -> usize {
        self.payload.capacity() + self.contest.as_ref().map_or(0, |contest| contest.held())
    }

    /// The versions that were not handed on before, the likeliest first.
    fn versions(&mut self, key: &Key, hasher: &RandomState) -> Vec<Whole> {
        let mut streams = Vec::new();
        match &self.contest {
            Some(contest) => {
                streams.extend(contest.orders().map(|order| contest.version(order, Rank::Doubtful).stream));
            }
            None => streams.push(self.payload.clone()),
        }
        if self.payload.is_empty() {
            // What comes later is held against the likeliest.
            self.payload = streams.first().cloned().unwrap_or_default();
            self.payload.truncate(self.lengths.iter().copied().max().unwrap_or_default());
        }
        let (mut versions, is_doubtful) = (Vec::new(), self.contest.is_some());
        for (stream, len) in streams.iter().flat_map(|stream| self.lengths.iter().map(move |len| (stream, *len))) {
            let Some(payload) = stream.get(..len) else { continue };
            let hash = hasher.hash_one(payload);
            if self.given.contains(&hash) {
                continue;
            }
            self.given.push(hash);
            let Key { src, dst, protocol, .. } = *key;
            versions.push(Whole { src, dst, meta: self.meta, protocol, payload: payload.to_vec(), is_doubtful });
        }
        versions
    }
}

#[cfg(test)]
#[path = "fragments_tests.rs"]
mod tests;
