//! Fragments in any order, of any content.

use super::*;
use crate::ip::{Place, protocol};

fn part(id: u32, offset: u32, more: bool, payload: &[u8]) -> Ip<'_> {
    let meta = IpMeta { ttl: 64, total_length: None, id: None, df: None };
    let fragment = Some(Place { id, offset, more });
    Ip { src: 1, dst: 2, meta, header: &[], is_doubtful: false, protocol: protocol::UDP, payload, cut: false, fragment }
}

fn arrival(time: i64) -> Arrival {
    Arrival { time, ..crate::sample::arrival() }
}

#[test]
fn fragments_come_together_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let parts = [part(7, 0, true, b"abcdefgh"), part(7, 8, true, b"ijklmnop"), part(7, 16, false, b"q")];
        let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
        let whole: Vec<_> =
            order.iter().flat_map(|at| fragments.add(&parts[*at], Rank::Trusted, &arrival(0), &mut counters)).collect();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].ip().expect("a packet").payload, b"abcdefghijklmnopq");
        assert_eq!((fragments.packets.len(), fragments.order.len(), fragments.bytes), (0, 0, 0));
    }
}

#[test]
fn what_is_never_completed_is_bounded_and_counted() {
    let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
    for id in 0..5000 {
        assert!(fragments.add(&part(id, 8, true, &[1; 1400]), Rank::Trusted, &arrival(0), &mut counters).is_empty());
    }
    assert_eq!((fragments.packets.len(), fragments.order.len()), (MAX_PACKETS, MAX_PACKETS));
    assert_eq!(counters.fragments_incomplete, 5000 - MAX_PACKETS as u64);
    fragments.add(&part(1, 0, true, b"abcdefgh"), Rank::Trusted, &arrival(61_000_000_000), &mut counters);
    assert_eq!(fragments.packets.len(), 1);
}

#[test]
fn fragments_that_differ_where_they_overlap_are_counted() {
    let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
    fragments.add(&part(7, 8, true, b"ijklmnop"), Rank::Trusted, &arrival(0), &mut counters);
    fragments.add(&part(7, 8, true, b"ijklmnop"), Rank::Trusted, &arrival(0), &mut counters);
    assert_eq!(counters.overlap_conflicts, 0);
    fragments.add(&part(7, 8, true, b"IJKLMNOP"), Rank::Trusted, &arrival(0), &mut counters);
    fragments.add(&part(7, 24, false, b"yz"), Rank::Trusted, &arrival(0), &mut counters);
    fragments.add(&part(7, 24, false, b"yz!"), Rank::Trusted, &arrival(0), &mut counters);
    assert_eq!(counters.overlap_conflicts, 2, "other bytes, another end");
    fragments.add(&part(7, 16, true, b"qrstuvwx"), Rank::Trusted, &arrival(0), &mut counters);
    let whole = fragments.add(&part(7, 0, true, b"abcdefgh"), Rank::Trusted, &arrival(0), &mut counters).remove(0);
    assert_eq!(whole.payload, b"abcdefghijklmnopqrstuvwxyz");
    assert_eq!(counters.overlap_conflicts, 2);
}

#[test]
fn only_the_last_fragment_may_have_any_length() {
    let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
    for len in 1..17 {
        fragments.add(&part(7, 0, true, &[9; 16][..len]), Rank::Trusted, &arrival(0), &mut counters);
    }
    assert_eq!((counters.malformed, fragments.packets.len()), (14, 1));
    assert!(!fragments.add(&part(7, 16, false, b"x"), Rank::Trusted, &arrival(0), &mut counters).is_empty());
}

#[test]
fn a_packet_takes_a_bounded_number_of_fragments() {
    let (mut fragments, mut counters) = (Fragments::default(), Counters::default());
    for n in 0..3 * MAX_PARTS as u32 {
        fragments.add(&part(7, 8 + n % 2 * 16, true, &[1; 8]), Rank::Trusted, &arrival(0), &mut counters);
        assert!(fragments.held() < 1000);
    }
    assert_eq!((counters.fragments_incomplete, fragments.packets.len()), (3, 0));
    let whole: Vec<_> = (0..1000)
        .flat_map(|n| fragments.add(&part(7, n * 8, n < 999, &[1; 8]), Rank::Trusted, &arrival(0), &mut counters))
        .collect();
    assert_eq!(whole[0].payload.len(), 8000);
}
