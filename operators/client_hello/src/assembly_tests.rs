//! The order of bytes, and what it costs.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const BASE: u32 = u32::MAX - 3; // so that every test wraps around

fn insert(assembly: &mut Assembly, at: i32, bytes: &[u8]) -> Brought {
    assembly.insert(BASE, BASE.wrapping_add_signed(at), bytes, 20)
}

#[test]
fn pieces_come_together_in_any_order() {
    let mut assembly = Assembly::default();
    assert_eq!(insert(&mut assembly, 6, b"gh"), Brought::Ahead);
    assert_eq!(insert(&mut assembly, 2, b"cd"), Brought::Ahead);
    assert_eq!(insert(&mut assembly, 2, b"cd"), Brought::Nothing);
    assert_eq!(insert(&mut assembly, 0, b"ab"), Brought::InOrder);
    assert_eq!(assembly.ready(), Some(&b"abcd"[..]));
    assert_eq!(insert(&mut assembly, 4, b"ef"), Brought::InOrder);
    assert_eq!(assembly.ready(), Some(&b"abcdefgh"[..]));
    assert_eq!(assembly.segments(), 5, "the repetition counts");
}

#[test]
fn bytes_seen_first_win() {
    let mut assembly = Assembly::default();
    insert(&mut assembly, 2, b"cd");
    insert(&mut assembly, 6, b"gh");
    assert_eq!(insert(&mut assembly, 1, b"BCDEFGHI"), Brought::Ahead);
    insert(&mut assembly, -2, b"????ab");
    assert_eq!(assembly.ready(), Some(&b"?BcdEFghI"[..]));
}

#[test]
fn the_window_bounds_what_is_kept() {
    let mut assembly = Assembly::default();
    assert_eq!(insert(&mut assembly, 20, b"x"), Brought::Beyond);
    assert_eq!(insert(&mut assembly, -1, b"x"), Brought::Nothing);
    insert(&mut assembly, 18, b"xyz");
    assert_eq!(assembly.held(), 2 + PIECE_OVERHEAD + TREE);
}

#[test]
fn advancing_skips_bytes_that_have_not_come() {
    let mut assembly = Assembly::starting_with(b"abc", 9, Walk::default());
    assert_eq!(assembly.ready(), None);
    insert(&mut assembly, 6, b"ghi");
    assembly.advance(BASE.wrapping_add(7), 7, 0, Walk::default());
    assert_eq!(assembly.ready(), Some(&b"hi"[..]));
    assembly.advance(BASE.wrapping_add(9), 2, 0, Walk::default());
    assert_eq!((assembly.is_empty(), assembly.held()), (true, 0));
}

#[test]
fn a_start_found_late_keeps_what_was_held() {
    let mut assembly = Assembly::default();
    assert_eq!(assembly.hold(BASE, BASE, b"cd", 10), Brought::Ahead);
    assert_eq!(assembly.ready(), None);
    let start = BASE.wrapping_sub(2);
    assert_eq!(assembly.insert(start, start, b"ab", 10), Brought::InOrder);
    assert_eq!(assembly.ready(), Some(&b"abcd"[..]));
}

/// A walk over the pieces for each segment would take minutes here.
#[test]
fn the_cost_of_a_segment_does_not_grow_with_the_gaps() {
    const PIECES: i32 = 400_000;
    let mut assembly = Assembly::default();
    for _ in 0..2 {
        for n in (1..PIECES).rev() {
            let seq = BASE.wrapping_add_signed(2 * n);
            assert!(!assembly.contradicts(BASE, seq, b"x"));
            assembly.insert(BASE, seq, b"x", 4 * PIECES as usize);
            assert!(assembly.held() > 0);
        }
    }
    assert_eq!(assembly.pieces.len(), PIECES as usize - 1);
    assert!(assembly.contradicts(BASE, BASE.wrapping_add(6), b"y"));
}

#[test]
fn bytes_without_a_gap_are_in_few_pieces() {
    let stream: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    for order in 0..3 {
        let mut assembly = Assembly::default();
        for n in 1..5000usize {
            let at = [n, 5000 - n, 1 + n * 7919 % 4999][order];
            assembly.insert(BASE, BASE.wrapping_add(at as u32), &stream[at..=at], 5000);
            assert_eq!(assembly.piece_bytes, assembly.pieces.values().map(Vec::capacity).sum::<usize>());
        }
        assert!(assembly.pieces.len() <= 2 * 5000 / JOINED, "{order}: {}", assembly.pieces.len());
        assert!(assembly.held() < 25_000);
        assembly.insert(BASE, BASE, &stream[..1], 5000);
        assert_eq!(assembly.ready(), Some(&stream[..]));
        assert_eq!((assembly.pieces.len(), assembly.piece_bytes), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Against a plain table of bytes, of which the first stays.
    #[test]
    fn as_a_table_of_bytes_would(segments in prop::collection::vec((-20i32..600, 0usize..300, any::<u8>()), 0..60)) {
        const WINDOW: usize = 500;
        let (mut assembly, mut table) = (Assembly::default(), [None::<u8>; WINDOW]);
        for (at, len, value) in segments {
            let bytes = vec![value; len];
            let seq = BASE.wrapping_add_signed(at);
            let places = at.clamp(0, WINDOW as i32) as usize..(at + len as i32).clamp(0, WINDOW as i32) as usize;
            let differs = table[places.clone()].iter().flatten().any(|known| *known != value);
            prop_assert_eq!(assembly.contradicts(BASE, seq, &bytes), differs);
            let before = table;
            table[places].iter_mut().for_each(|byte| *byte = byte.or(Some(value)));
            let brought = assembly.insert(BASE, seq, &bytes, WINDOW);
            prop_assert_eq!(matches!(brought, Brought::Ahead | Brought::InOrder), table != before);
            let known: Vec<u8> = table.iter().map_while(|byte| *byte).collect();
            prop_assert_eq!(assembly.ready().unwrap_or_default(), &known[..]);
        }
    }
}
