use capture_file::{CaptureFile, Kind};

use super::writer::{Order, Pcapng};
use super::{Packet, fault, whole};

fn packet(time: i64, linktype: i32, interface: u32, name: &str, data: &[u8]) -> Packet {
    let name = (!name.is_empty()).then(|| name.to_owned());
    Packet { time, linktype, wire_len: data.len() as u32, interface, name, data: data.to_vec() }
}

#[test]
fn interfaces_differ_in_link_time_and_name_and_may_come_after_packets_of_others() {
    let mut file = Pcapng::new(false);
    file.interface(1, 65_535, &[(2, b"eth0"), (3, b"to the left"), (9, &[9])]);
    file.interface(274, 0, &[]);
    file.enhanced(0, 5, 3, b"one", &[(1, b"a comment"), (2, &[0; 4])]);
    file.block(0x0bad_0000, b"nobody knows").block(5, &[0; 12]).block(4, &[0; 4]);
    file.interface(101, 262_144, &[(2, b"tun0"), (9, &[0x80 | 20]), (14, &10_i64.to_le_bytes())]);
    file.enhanced(2, 3 << 19, 3, b"two", &[]).enhanced(0, 6, 5, b"three", &[]);
    assert_eq!(
        whole(&file.file[..]),
        [
            packet(5, 1, 0, "eth0", b"one"),
            packet(11_500_000_000, 101, 2, "tun0", b"two"),
            packet(6, 1, 0, "eth0", b"three")
        ]
    );
    let mut read = CaptureFile::new(&file.file[..]).expect("a capture file");
    while read.next_record().expect("readable").is_some() {}
    assert_eq!(read.linktypes().iter().copied().collect::<Vec<_>>(), [1, 101, 274]);
    assert_eq!((read.bytes_read(), read.position()), (file.file.len() as u64, file.file.len() as u64));
}

#[test]
fn a_section_has_its_own_byte_order_and_interfaces() {
    let mut file = Pcapng::new(true);
    file.interface(1, 0, &[(2, b"eth0"), (14, &(-1_i64).to_be_bytes())]).enhanced(0, 3_000_000, 3, b"one", &[]);
    file.section(false).interface(113, 0, &[(9, &[3])]).enhanced(0, 7, 3, b"two", &[]);
    file.section(true).interface(228, 0, &[(2, b"other")]).obsolete(0, 9, 5, b"three");
    assert_eq!(
        whole(&file.file[..]),
        [
            packet(2_000_000_000, 1, 0, "eth0", b"one"),
            packet(7_000_000, 113, 0, "", b"two"),
            packet(9_000, 228, 0, "other", b"three")
        ]
    );
    let before = file.file.len();
    file.section(true).enhanced(0, 1, 3, b"one", &[]);
    let says = format!("cannot be understood at byte {}: a packet of interface 0, which is not described", before + 28);
    assert_eq!(fault(&file.file), (3, Kind::Corrupt, says));
}

#[test]
fn simple_packets_are_as_long_as_the_interface_captures_and_of_the_time_before() {
    let mut file = Pcapng::new(false);
    file.interface(1, 4, &[(2, b"eth0")]).interface(101, 0, &[]);
    file.simple(9, b"four").enhanced(1, 7, 3, b"raw", &[]).simple(3, b"abc");
    let read = whole(&file.file[..]);
    assert_eq!(read[0], Packet { wire_len: 9, ..packet(0, 1, 0, "eth0", b"four") });
    assert_eq!(read[1..], [packet(7_000, 101, 1, "", b"raw"), packet(7_000, 1, 0, "eth0", b"abc")]);

    let mut unlimited = Pcapng::new(true);
    unlimited.interface(1, 0, &[]).simple(5, b"12345").simple(9, b"12345");
    let says = "cannot be understood at byte 72: a packet of 9 bytes in a block with 8";
    assert_eq!(fault(&unlimited.file), (1, Kind::Corrupt, says.to_owned()));
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    let begun = || {
        let mut file = Pcapng::new(false);
        file.interface(1, 0, &[]).enhanced(0, 1, 2, b"ok", &[]);
        file
    };
    let at = begun().file.len();
    let order = Order { big: false };
    let with = |words: &[u32]| [begun().file, order.fours(words)].concat();
    let block = |kind: u32, body: &[u8]| {
        let mut file = begun();
        file.block(kind, body);
        file.file
    };
    let limits = "16777216 at most, a multiple of 4, at least 12";
    for (bytes, says) in [
        (with(&[6, 0, 0, 0]), format!("a block of 0 bytes: {limits}")),
        (with(&[6, 8, 0, 0]), format!("a block of 8 bytes: {limits}")),
        (with(&[6, 14, 0, 0, 0]), format!("a block of 14 bytes: {limits}")),
        (with(&[6, u32::MAX, 0, 0]), format!("a block of 4294967295 bytes: {limits}")),
        (with(&[6, (16 << 20) + 4, 0, 0]), format!("a block of 16777220 bytes: {limits}")),
        (with(&[7, 16, 0, 20]), "a block of 16 bytes, behind it 20".to_owned()),
        (with(&[0x0a0d_0d0a, 28, 9, 9]), "a section header without its byte order".to_owned()),
        (with(&[0x0a0d_0d0a, 16, 0x1a2b_3c4d, 16]), "a section header of 16 bytes".to_owned()),
        (block(6, &[0; 16]), "a packet of 16 bytes".to_owned()),
        (block(6, &order.fours(&[1, 0, 0, 0, 0])), "a packet of interface 1, which is not described".to_owned()),
        (block(6, &order.fours(&[0, 0, 0, 5, 5, 7])), "a packet of 5 bytes in a block with 4".to_owned()),
        (block(6, &order.fours(&[0, 0, 0, u32::MAX, 5])), "a packet of 4294967295 bytes, of which".to_owned()),
        (block(3, &[]), "a simple packet without its length".to_owned()),
        (block(1, &[1, 0, 0, 0]), "an interface description of 4 bytes".to_owned()),
        (block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 9, 0]), "an interface's option 2 of 9 bytes, in 0".to_owned()),
    ] {
        let (packets, kind, text) = fault(&bytes);
        assert_eq!((packets, kind), (1, Kind::Corrupt), "{says}");
        assert!(text.starts_with(&format!("cannot be understood at byte {at}: {says}")), "{text}\n{says}");
    }
    let mut newer = Pcapng::new(false);
    newer.file[12] = 2;
    let says = "cannot be understood at byte 0: version 2.0 of the format";
    assert_eq!(fault(&newer.file), (0, Kind::Corrupt, says.to_owned()));
    newer.file[12..16].copy_from_slice(&[1, 0, 2, 0]);
    assert_eq!(whole(&newer.file[..]), [], "1.2 is 1.0");
    let mut early = Pcapng::new(false);
    early.simple(2, b"ok");
    let says = "cannot be understood at byte 28: a simple packet before any interface is described";
    assert_eq!(fault(&early.file), (0, Kind::Corrupt, says.to_owned()));
}

#[test]
fn a_file_that_is_cut_off_anywhere_gives_what_is_before() {
    let mut file = Pcapng::new(true);
    file.interface(1, 0, &[(2, b"eth0")]);
    let (mut ends, described) = (vec![], file.file.len());
    for data in [&b"one"[..], b"", b"three"] {
        file.enhanced(0, 1, data.len() as u32, data, &[(1, b"comment")]);
        ends.push(file.file.len());
    }
    for cut in 28..file.file.len() {
        let complete = ends.iter().filter(|end| **end <= cut).count();
        let whole = cut == 28 || cut == described || ends.contains(&cut);
        let (packets, error) = super::all(&file.file[..cut]);
        let kind = error.map(|error| error.kind());
        assert_eq!((packets.len(), kind), (complete, (!whole).then_some(Kind::Truncated)), "{cut}");
    }
    let says = "ends in the middle of a packet at byte 60: 51 of its 52 bytes are there";
    assert_eq!(fault(&file.file[..ends[0] - 1]), (0, Kind::Truncated, says.to_owned()));
    let says = "ends in the middle of a block at byte 0: 27 of its 28 bytes are there";
    assert_eq!(fault(&file.file[..27]), (0, Kind::Truncated, says.to_owned()));
}
