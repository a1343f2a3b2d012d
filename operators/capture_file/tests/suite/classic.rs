use capture_file::{CaptureFile, Kind};

use super::writer::{Order, pcap, pcap_header};
use super::{Slow, all, fault, whole};

const LITTLE: Order = Order { big: false };

#[test]
fn all_orders_and_units_are_read_in_pieces_of_any_size() {
    let large = vec![7; 200_000];
    let packets: [&[u8]; 4] = [b"one", b"", &large, b"last"];
    for (big, magic, unit) in
        [(false, 0xa1b2_c3d4, 1000), (true, 0xa1b2_c3d4, 1000), (false, 0xa1b2_3c4d, 1), (true, 0xa1b2_3c4d, 1)]
    {
        let order = Order { big };
        let mut bytes = pcap_header(order, magic, (2, 4), 65_535, 1);
        for (at, packet) in packets.iter().enumerate() {
            let length = packet.len() as u32;
            bytes.extend(order.fours(&[1_700_000_000, at as u32 + 1, length, length + 9]));
            bytes.extend(*packet);
        }
        for piece in [1, 7, 4096, usize::MAX] {
            let read = whole(Slow(&bytes, piece));
            assert_eq!(read.len(), packets.len());
            for (at, (read, packet)) in read.iter().zip(packets).enumerate() {
                let time = 1_700_000_000_000_000_000 + (at as i64 + 1) * unit;
                assert_eq!((read.time, read.linktype, read.wire_len), (time, 1, packet.len() as u32 + 9));
                assert_eq!((&read.data[..], read.interface, &read.name), (packet, 0, &None));
            }
        }
    }
}

#[test]
fn the_modified_format_has_longer_packet_headers() {
    for big in [false, true] {
        let order = Order { big };
        let mut bytes = pcap_header(order, 0xa1b2_cd34, (2, 4), 65_535, 1);
        for data in [&b"one"[..], b"other"] {
            let length = data.len() as u32;
            bytes.extend(order.fours(&[5, 6, length, length, 3, 0x0800_0000]));
            bytes.extend(data);
        }
        let read = whole(&bytes[..]);
        assert_eq!(read.iter().map(|read| &read.data[..]).collect::<Vec<_>>(), [&b"one"[..], b"other"]);
        assert_eq!(read[0].time, 5_000_006_000);
    }
}

#[test]
fn old_versions_have_the_lengths_the_other_way_round() {
    for (version, lengths, expected) in [
        ((2, 4), [3, 9], 9),
        ((2, 3), [3, 9], 9),
        ((2, 3), [9, 3], 9),
        ((2, 2), [9, 3], 9),
        ((2, 0), [9, 3], 9),
        ((543, 0), [9, 3], 9),
    ] {
        for big in [false, true] {
            let order = Order { big };
            let mut bytes = pcap_header(order, 0xa1b2_c3d4, version, 65_535, 1);
            bytes.extend(order.fours(&[1, 2, lengths[0], lengths[1]]));
            bytes.extend(b"abc");
            let read = whole(&bytes[..]);
            assert_eq!((read[0].wire_len, &read[0].data[..]), (expected, &b"abc"[..]), "{version:?}");
        }
    }
    for version in [(2, 5), (1, 2), (3, 0), (0, 0), (4, 2)] {
        let bytes = pcap_header(LITTLE, 0xa1b2_c3d4, version, 65_535, 1);
        let (_, kind, text) = fault(&bytes);
        assert_eq!(kind, Kind::Corrupt);
        assert_eq!(text, format!("cannot be understood at byte 0: version {}.{} of the format", version.0, version.1));
    }
}

#[test]
fn the_length_of_checksums_is_no_part_of_the_linktype() {
    for (field, linktype) in [(0x4400_0001, 1), (0xf400_0001, 1), (0x0400_0065, 101), (0x0001_0001, 0x0001_0001)] {
        let mut bytes = pcap_header(LITTLE, 0xa1b2_c3d4, (2, 4), 65_535, field);
        let file = CaptureFile::new(&bytes[..]).expect("a capture file");
        assert_eq!(file.linktypes().iter().copied().collect::<Vec<_>>(), [linktype], "{field:x}");
        bytes.extend(LITTLE.fours(&[1, 2, 0, 60]));
        assert_eq!(whole(&bytes[..])[0].linktype, linktype);
    }
}

#[test]
fn a_file_that_breaks_off_says_where_and_what_no_packet_can_be_is_not_believed() {
    let bytes = pcap(&[b"whole", b"torn"]);
    for (cut, says) in [
        (1, "ends in the middle of a packet at byte 45: 3 of its 4 bytes are there"),
        (4, "ends in the middle of a packet at byte 45: 0 of its 4 bytes are there"),
        (5, "ends in the middle of a packet's header at byte 45: 15 of its 16 bytes are there"),
        (19, "ends in the middle of a packet's header at byte 45: 1 of its 16 bytes are there"),
    ] {
        assert_eq!(fault(&bytes[..bytes.len() - cut]), (1, Kind::Truncated, says.to_owned()));
    }
    assert_eq!(whole(&bytes[..bytes.len() - 20]).len(), 1);
    let mut huge = bytes.clone();
    huge[53..57].copy_from_slice(&u32::MAX.to_le_bytes());
    let says = "cannot be understood at byte 45: a packet of 4294967295 bytes, of which there can be 262144";
    assert_eq!(fault(&huge), (1, Kind::Corrupt, says.to_owned()));
}

#[test]
fn a_large_packet_needs_a_header_that_says_so_and_has_a_bound() {
    let with = |snaplen: u32, length: u32| {
        let mut bytes = pcap_header(LITTLE, 0xa1b2_c3d4, (2, 4), snaplen, 1);
        bytes.extend(LITTLE.fours(&[1, 2, length, length]));
        bytes.resize(bytes.len() + length as usize, 1);
        all(&bytes[..])
    };
    assert_eq!(with(0, 262_144).1, None);
    assert_eq!(with(262_145, 262_145).1, None);
    assert_eq!(with(u32::MAX, 4 << 20).1, None);
    for (snaplen, length) in [(65_535, 262_145), (0, 262_145), (u32::MAX, (4 << 20) + 1)] {
        assert!(with(snaplen, length).1.is_some_and(|error| error.kind() == Kind::Corrupt), "{snaplen} {length}");
    }
}

#[test]
fn what_is_no_capture_says_so() {
    let says = "is empty; a capture without packets has a file header";
    assert_eq!(fault(b""), (0, Kind::Unknown, says.to_owned()));
    let says = "is not a pcap or pcapng file: unknown file format, which begins with 47 45 54 20";
    assert_eq!(fault(b"GET / HTTP/1.1\r\n\r\n"), (0, Kind::Unknown, says.to_owned()));
    let says = "is not a pcap or pcapng file: unknown file format, which begins with d4";
    assert_eq!(fault(b"\xd4"), (0, Kind::Unknown, says.to_owned()));
    let says = "ends in the middle of the file's header at byte 0: 11 of its 24 bytes are there";
    assert_eq!(fault(&pcap(&[])[..11]), (0, Kind::Truncated, says.to_owned()));
    assert_eq!(whole(&pcap(&[])[..]), []);
}

#[test]
fn the_operating_systems_errors_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    for path in [directory.path().to_owned(), directory.path().join("nowhere")] {
        let error = CaptureFile::open(&path).err().expect("an error");
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.to_string().starts_with("cannot be read: "), "{error}");
    }

    /// Gives what it has, then an error.
    struct Fails<'a>(&'a [u8]);
    impl std::io::Read for Fails<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(std::io::Error::from_raw_os_error(5)),
                bytes => Ok(bytes),
            }
        }
    }
    let (packets, error) = all(Fails(&pcap(&[b"one", b"two"])));
    let error = error.expect("an error");
    assert_eq!((packets.len(), error.kind()), (2, Kind::Io));
    assert!(error.to_string().starts_with("cannot be read at byte 62: "), "{error}");
}
