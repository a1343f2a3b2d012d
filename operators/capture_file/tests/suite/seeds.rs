//! The seeds of `examples/fuzz_files.rs`.

use std::io::Write;
use std::path::Path;

use super::writer::{Order, Pcapng, pcap, pcap_header, pcapng, xz};

/// Writes the seeds when `WRITE_SEEDS` is set. `two.pcapng.xz` is from the program xz.
#[test]
fn seeds_for_the_fuzzer() {
    let mut sections = Pcapng::new(true);
    sections.interface(1, 96, &[(2, b"eth0"), (9, &[0x94])]).enhanced(0, 77, 9, b"enhanced", &[(1, b"comment")]);
    sections.simple(7, b"simple!").block(0x0bad, b"unknown");
    sections.section(false).interface(101, 0, &[(14, &[1; 8])]).obsolete(0, 78, 9, b"obsolete");
    let order = Order { big: true };
    let modified =
        [pcap_header(order, 0xa1b2_cd34, (2, 4), 65_535, 1), order.fours(&[1, 2, 4, 4, 5, 6]), b"data".to_vec()]
            .concat();
    let old =
        [pcap_header(order, 0xa1b2_c3d4, (2, 3), 65_535, 1), order.fours(&[1, 2, 9, 4]), b"data".to_vec()].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&pcapng()).expect("written");
    let mut checked = zstd::stream::Encoder::new(Vec::new(), 3).expect("an encoder");
    checked.include_checksum(true).expect("set");
    checked.write_all(&pcapng()).expect("written");
    let seeds = [
        ("classic.pcap", pcap(&[b"one", b"", b"three"])),
        ("modified.pcap", modified),
        ("old.pcap", old),
        ("two.pcapng", pcapng()),
        ("sections.pcapng", sections.file),
        ("two.pcapng.gz", gzip.finish().expect("written")),
        ("two.pcapng.zst", checked.finish().expect("written")),
        ("stored.pcap.xz", xz(&pcap(&[b"one", b"two"]), 0, 1)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, bytes) in seeds {
        if std::env::var_os("WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(&folder).expect("made");
            std::fs::write(folder.join(name), &bytes).expect("written");
        }
        assert!(folder.join(name).exists(), "WRITE_SEEDS=1 cargo test -p capture-file seeds");
    }
}
