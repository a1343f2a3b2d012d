use std::io::Write;

use capture_file::{CaptureFile, Compression, Kind};

use super::writer::{pcap, pcapng, xz};
use super::{Slow, all, fault, whole};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("a name")
        .comment("and a comment")
        .write(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("written")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("written")
}

fn stored(bytes: &[u8]) -> Vec<u8> {
    xz(bytes, 16, 1)
}

type Compress = fn(&[u8]) -> Vec<u8>;

const WAYS: [(Compression, Compress); 3] =
    [(Compression::Gzip, gzip), (Compression::Zstd, zstd), (Compression::Xz, stored)];

#[test]
fn both_formats_are_read_of_all_compressions_in_pieces_of_any_size() {
    for plain in [pcap(&[b"one", &[7; 100_000], b"three"]), pcapng()] {
        let expected = whole(&plain[..]);
        for (compression, by) in WAYS {
            let packed = by(&plain);
            let file = CaptureFile::new(&packed[..]).expect("a capture file");
            assert_eq!(file.compression(), Some(compression));
            for piece in [1, 7, usize::MAX] {
                assert_eq!(whole(Slow(&packed, piece)), expected, "{compression} {piece}");
            }
            // In several members, frames or streams, some of them empty, and one of them a single byte.
            let parts = [by(&plain[..1]), by(b""), by(&plain[1..40]), by(&plain[40..])].concat();
            assert_eq!(whole(&parts[..]), expected, "{compression}");
            let mut read = CaptureFile::new(&packed[..]).expect("a capture file");
            while read.next_record().expect("readable").is_some() {}
            assert_eq!(
                (read.bytes_read(), read.position()),
                (packed.len() as u64, plain.len() as u64),
                "{compression}"
            );
        }
    }
}

#[test]
fn files_of_the_programs_are_read() {
    let expected = whole(&pcapng()[..]);
    for name in ["two.pcapng.xz", "two.pcapng.gz", "two.pcapng.zst"] {
        let path = format!("{}/fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(whole(&std::fs::read(path).expect("there")[..]), expected, "{name}");
    }
}

#[test]
fn a_compressed_file_that_is_cut_off_is_that_and_no_damaged_one() {
    let plain = pcap(&[b"one", b"two", &[1; 3000], b"four"]);
    for (compression, by) in WAYS {
        let packed = by(&plain);
        // Below, there is no capture's header yet.
        for cut in 120..packed.len() {
            let (packets, error) = all(&packed[..cut]);
            let error = error.expect("an error");
            assert_eq!(error.kind(), Kind::Truncated, "{compression} {cut}: {error}");
            assert!(
                error.to_string().contains(&format!("ends in the middle of its {compression} data, at byte {cut}")),
                "{error}"
            );
            assert!(packets.len() <= 4);
        }
        // zstd gives nothing of a block that is not complete, and this is one block.
        let there = if compression == Compression::Zstd { 0 } else { 4 };
        assert_eq!(all(&packed[..packed.len() - 1]).0.len(), there, "{compression}");
    }
}

#[test]
fn a_capture_that_is_cut_off_within_is_that_as_well() {
    let plain = pcap(&[b"one", b"two"]);
    for (_, by) in WAYS {
        let says = "ends in the middle of a packet at byte 43 of what was decompressed: 2 of its 3 bytes are there";
        assert_eq!(fault(&by(&plain[..plain.len() - 1])), (1, Kind::Truncated, says.to_owned()));
    }
}

#[test]
fn damage_and_what_follows_is_said() {
    let plain = pcap(&[b"one", b"two"]);
    for (compression, by) in WAYS {
        let packed = by(&plain);
        let (packets, kind, text) = fault(&[&packed[..], b"garbage!"].concat());
        assert_eq!((packets, kind), (2, Kind::Corrupt), "{compression}: {text}");
        assert!(
            text.starts_with(&format!("cannot be understood: its {compression} data is damaged before byte ")),
            "{text}"
        );
        // Of the content a check tells. zstd's files have one only if that is asked for.
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0x55;
        if compression != Compression::Zstd {
            assert_eq!(all(&damaged[..]).1.map(|error| error.kind()), Some(Kind::Corrupt), "{compression}");
        }
        let says = fault(&by(b"this is no capture")).2;
        assert_eq!(says, "is not a pcap or pcapng file: unknown file format, which begins with 74 68 69 73");
        assert_eq!(fault(&by(b"")).2, "is empty; a capture without packets has a file header");
    }
    // Padding is no damage where the format has it, or programs write it.
    assert_eq!(whole(&[gzip(&plain), vec![0; 700], gzip(&[]), vec![0; 3]].concat()[..]).len(), 2);
    assert_eq!(whole(&[stored(&plain), vec![0; 8]].concat()[..]).len(), 2);
    // Frames to be skipped may come first.
    let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip", &zstd(&plain)].concat();
    assert_eq!(whole(&skipped[..]).len(), 2);
}

#[test]
fn a_window_that_is_only_said_takes_no_memory_and_has_a_bound() {
    let plain = pcap(&[b"one"]);
    // 96, 128 and 192 MiB, 4 GiB.
    for (dictionary, fits) in [(29, true), (30, true), (31, false), (40, false)] {
        assert_eq!(all(&xz(&plain, dictionary, 1)[..]).1.is_none(), fits, "{dictionary}");
    }
    for (log, fits) in [(27, true), (28, false)] {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(log).expect("set");
        encoder.write_all(&plain).expect("written");
        let packed = encoder.finish().expect("written");
        let error = all(&packed[..]).1;
        assert_eq!(error.is_none(), fits, "{log} {error:?}");
        assert!(error.is_none_or(|error| error.kind() == Kind::Corrupt));
    }
}

#[test]
fn much_from_little_is_streamed() {
    // A GiB of empty packets at second 0, of which nobody keeps anything.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.write_all(&pcap(&[])).expect("written");
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&zeros).expect("written");
    }
    let packed = encoder.finish().expect("written");
    assert!(packed.len() < 1 << 16);
    let mut file = CaptureFile::new(&packed[..]).expect("a capture file");
    let mut packets = 0;
    while file.next_record().expect("readable").is_some() {
        packets += 1;
    }
    assert_eq!((packets, file.held_bytes() <= 1 << 20), (64 << 16, true));
}
