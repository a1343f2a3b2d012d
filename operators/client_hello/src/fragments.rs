//! IP packets from their fragments (RFC 791 section 3.2, RFC 8200 section 4.5, RFC 5722).
//!
//! Where fragments overlap, the bytes seen first win, as they do for TCP, and a difference is counted. The table is
//! bounded in packets, bytes and time, and each packet in fragments; what has waited longest goes first.

use std::collections::BTreeMap;

use ahash::RandomState;
use hashbrown::HashMap;

use super::assembly::{Assembly, Brought};
use super::counters::Counters;
use super::ip::{Ip, IpMeta, after_extensions};
use super::packet::Skip;

/// Packets that are put together at a time.
const MAX_PACKETS: usize = 1024;
/// Bytes of all of them.
const MAX_BYTES: usize = 8 << 20;
/// Fragments that one packet may take, repetitions included. The longest packet takes 54 on links of the least MTU that
/// IPv6 allows, 1280 bytes; one of 8 kB in the smallest parts there are, 8 bytes, takes as many as this.
const MAX_PARTS: usize = 1024;
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
    /// Length of the whole payload, once the last fragment was seen.
    len: Option<usize>,
    /// Header of the first fragment, else of the first seen.
    meta: IpMeta,
}

/// A packet put together.
#[derive(Debug)]
pub(crate) struct Whole {
    src: u128,
    dst: u128,
    meta: IpMeta,
    protocol: u8,
    payload: Vec<u8>,
}

impl Whole {
    /// The packet as if it had come in one.
    pub(crate) fn ip(&self) -> Result<Ip<'_>, Skip> {
        let (protocol, payload, fragment) = after_extensions(self.protocol, &self.payload)?;
        Ok(Ip { src: self.src, dst: self.dst, meta: self.meta, header: &[], protocol, payload, cut: false, fragment })
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
}

impl Fragments {
    /// Takes a fragment; the packet if it is complete now.
    pub(crate) fn add(&mut self, now: i64, ip: &Ip<'_>, counters: &mut Counters) -> Option<Whole> {
        let place = ip.fragment?;
        counters.fragments += 1;
        let end = place.offset as usize + ip.payload.len();
        // Only the last fragment may end within a unit of 8 bytes (RFC 791 section 3.2, RFC 8200 section 4.5).
        let broken = place.more && !ip.payload.len().is_multiple_of(8);
        if ip.cut || broken || end > MAX_PAYLOAD || ip.payload.is_empty() {
            counters.malformed += 1;
            return None;
        }
        let key = Key { src: ip.src, dst: ip.dst, id: place.id, protocol: ip.protocol };
        self.make_room(now, &key, counters);
        let Self { packets, order, begun, bytes } = self;
        let partial = packets.entry(key).or_insert_with(|| {
            *begun += 1;
            order.insert(*begun, key);
            Partial { begun: now, number: *begun, parts: Assembly::default(), len: None, meta: ip.meta }
        });
        let other_end = !place.more && partial.len.is_some_and(|len| len != end);
        let differs = other_end || partial.parts.contradicts(0, place.offset, ip.payload);
        counters.overlap_conflicts += u64::from(differs);
        let held = partial.parts.held();
        let brought = partial.parts.insert(0, place.offset, ip.payload, MAX_PAYLOAD);
        *bytes = *bytes - held + partial.parts.held();
        if place.offset == 0 && brought != Brought::Nothing {
            partial.meta = ip.meta;
        }
        if !place.more {
            partial.len.get_or_insert(end);
        }
        if partial.len.is_none_or(|len| partial.parts.in_order() < len) {
            if partial.parts.segments() >= MAX_PARTS {
                self.remove(&key);
                counters.fragments_incomplete += 1;
            }
            return None;
        }
        let partial = self.remove(&key)?;
        counters.fragments_joined += 1;
        let mut payload = partial.parts.into_data();
        payload.truncate(partial.len.unwrap_or_default());
        Some(Whole { src: key.src, dst: key.dst, meta: partial.meta, protocol: key.protocol, payload })
    }

    /// Memory held, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.bytes
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
        self.bytes -= partial.parts.held();
        self.order.remove(&partial.number);
        Some(partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::{Place, protocol};

    fn part(id: u32, offset: u32, more: bool, payload: &[u8]) -> Ip<'_> {
        let meta = IpMeta { ttl: 64, total_length: None, id: None, df: None };
        let fragment = Some(Place { id, offset, more });
        Ip { src: 1, dst: 2, meta, header: &[], protocol: protocol::UDP, payload, cut: false, fragment }
    }

    #[test]
    fn fragments_come_together_in_any_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let parts = [part(7, 0, true, b"abcdefgh"), part(7, 8, true, b"ijklmnop"), part(7, 16, false, b"q")];
            let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
            let whole: Vec<_> = order.iter().filter_map(|at| fragments.add(0, &parts[*at], &mut counters)).collect();
            assert_eq!(whole.len(), 1);
            assert_eq!(whole[0].ip().expect("a packet").payload, b"abcdefghijklmnopq");
            assert_eq!((fragments.held(), fragments.order.len()), (0, 0));
        }
    }

    #[test]
    fn what_is_never_completed_is_bounded_and_counted() {
        let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
        for id in 0..5000 {
            assert!(fragments.add(0, &part(id, 8, true, &[1; 1400]), &mut counters).is_none());
        }
        assert_eq!((fragments.packets.len(), fragments.order.len()), (MAX_PACKETS, MAX_PACKETS));
        assert_eq!(counters.fragments_incomplete, 5000 - MAX_PACKETS as u64);
        fragments.add(61_000_000_000, &part(1, 0, true, b"abcdefgh"), &mut counters);
        assert_eq!(fragments.packets.len(), 1);
    }

    #[test]
    fn fragments_that_differ_where_they_overlap_are_counted() {
        let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
        fragments.add(0, &part(7, 8, true, b"ijklmnop"), &mut counters);
        fragments.add(0, &part(7, 8, true, b"ijklmnop"), &mut counters);
        assert_eq!(counters.overlap_conflicts, 0);
        fragments.add(0, &part(7, 8, true, b"IJKLMNOP"), &mut counters);
        fragments.add(0, &part(7, 24, false, b"yz"), &mut counters);
        fragments.add(0, &part(7, 24, false, b"yz!"), &mut counters);
        assert_eq!(counters.overlap_conflicts, 2, "other bytes, another end");
        fragments.add(0, &part(7, 16, true, b"qrstuvwx"), &mut counters);
        let whole = fragments.add(0, &part(7, 0, true, b"abcdefgh"), &mut counters).expect("the packet");
        assert_eq!(whole.payload, b"abcdefghijklmnopqrstuvwxyz");
        assert_eq!(counters.overlap_conflicts, 2);
    }

    #[test]
    fn only_the_last_fragment_may_have_any_length() {
        let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
        for len in 1..17 {
            fragments.add(0, &part(7, 0, true, &[9; 16][..len]), &mut counters);
        }
        assert_eq!((counters.malformed, fragments.packets.len()), (14, 1));
        assert!(fragments.add(0, &part(7, 16, false, b"x"), &mut counters).is_some());
    }

    #[test]
    fn a_packet_takes_a_bounded_number_of_fragments() {
        let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
        for n in 0..3 * MAX_PARTS as u32 {
            fragments.add(0, &part(7, 8 + n % 2 * 16, true, &[1; 8]), &mut counters);
            assert!(fragments.held() < 1000);
        }
        assert_eq!((counters.fragments_incomplete, fragments.packets.len()), (3, 0));
        let whole: Vec<_> =
            (0..1000).filter_map(|n| fragments.add(0, &part(7, n * 8, n < 999, &[1; 8]), &mut counters)).collect();
        assert_eq!(whole[0].payload.len(), 8000);
    }
}
