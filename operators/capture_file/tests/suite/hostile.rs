//! What takes no more memory or time than it may.

use capture_file::{CaptureFile, Kind, MAX_BLOCK, MAX_INTERFACES};

use super::fault;
use super::writer::{Order, Pcapng, pcap_header};

/// The most bytes held while a file is read.
fn held(bytes: &[u8]) -> usize {
    let mut file = CaptureFile::new(bytes).expect("a capture file");
    let mut most = file.held_bytes();
    while file.next_record().is_ok_and(|record| record.is_some()) {
        most = most.max(file.held_bytes());
    }
    most.max(file.held_bytes())
}

#[test]
fn a_length_that_is_only_said_takes_no_memory() {
    let order = Order { big: false };
    let torn = |length: u32| [Pcapng::new(false).file, order.fours(&[6, length, 0, 0])].concat();
    assert!(held(&torn(MAX_BLOCK as u32)) <= 1 << 20);
    assert_eq!(fault(&torn(MAX_BLOCK as u32)).1, Kind::Truncated);
    let mut packet = pcap_header(order, 0xa1b2_c3d4, (2, 4), u32::MAX, 1);
    packet.extend(order.fours(&[1, 2, 4 << 20, 4 << 20]));
    assert!(held(&packet) <= 1 << 20);
}

#[test]
fn the_largest_block_is_read_and_what_is_held_is_bounded() {
    let mut file = Pcapng::new(false);
    file.block(0x0bad, &vec![7; MAX_BLOCK - 12]).interface(1, 0, &[]).enhanced(0, 1, 2, b"ok", &[]);
    assert_eq!(super::whole(&file.file[..]).len(), 1);
    assert!(held(&file.file) <= 2 * MAX_BLOCK);
}

#[test]
fn interfaces_of_a_section_have_a_bound_and_those_of_many_sections_pile_up_nothing() {
    let mut file = Pcapng::new(false);
    for _ in 0..MAX_INTERFACES {
        file.interface(1, 0, &[]);
    }
    file.enhanced(MAX_INTERFACES as u32 - 1, 1, 2, b"ok", &[]);
    assert_eq!(super::whole(&file.file[..]).len(), 1);
    file.interface(1, 0, &[]);
    let (packets, kind, text) = fault(&file.file);
    assert_eq!((packets, kind), (1, Kind::Corrupt));
    assert!(text.ends_with("more than 65536 interfaces of a section"), "{text}");
    let name = "é".repeat(2000);
    let mut sections = Pcapng::new(false);
    for nth in 0..20_000 {
        sections.section(nth % 2 == 0).interface(nth as u16 % 3, 0, &[(2, name.as_bytes())]);
    }
    assert!(held(&sections.file) <= 1 << 20);
}
