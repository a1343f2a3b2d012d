//! Random captures, written by a writer of its own, are read back equal.

use std::io::Write;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::writer::Pcapng;
use super::{Packet, Slow, whole};

#[derive(Debug, Clone)]
struct Described {
    linktype: u16,
    snaplen: u32,
    name: Option<String>,
    resolution: Option<u8>,
    offset: Option<i64>,
}

impl Described {
    /// floor(units × 10⁹ / units of a second) + offset × 10⁹, or the nearest that fits.
    fn time(&self, units: u64) -> i64 {
        let resolution = self.resolution.unwrap_or(6);
        let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
        let ns = match base.checked_pow(u32::from(resolution & 0x7f)) {
            Some(of_a_second) => u128::from(units) * 1_000_000_000 / of_a_second,
            None => 0,
        };
        let ns = ns as i128 + i128::from(self.offset.unwrap_or(0)) * 1_000_000_000;
        i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
    }
}

#[derive(Debug, Clone)]
enum Part {
    Section(bool),
    Interface(Described),
    Enhanced { interface: usize, units: u64, more: u32, data: Vec<u8>, comment: Option<String> },
    Obsolete { interface: usize, units: u64, more: u32, data: Vec<u8> },
    Simple { more: u32, data: Vec<u8> },
    Other { kind: u32, body: Vec<u8> },
}

fn described() -> impl Strategy<Value = Described> {
    let resolution = prop_oneof![
        Just(None),
        Just(Some(6)),
        Just(Some(9)),
        Just(Some(3)),
        Just(Some(0x94)),
        any::<u8>().prop_map(Some)
    ];
    let offset = option::of(prop_oneof![-100_i64..100, any::<i64>()]);
    let snaplen = prop_oneof![Just(0), Just(65_535), 1_u32..60];
    (any::<u16>(), snaplen, option::of("[a-zé]{1,20}"), resolution, offset).prop_map(
        |(linktype, snaplen, name, resolution, offset)| Described { linktype, snaplen, name, resolution, offset },
    )
}

fn part() -> impl Strategy<Value = Part> {
    let units = || prop_oneof![0_u64..2_000_000_000_000_000_000, any::<u64>()];
    let data = || vec(any::<u8>(), 0..100);
    prop_oneof![
        1 => any::<bool>().prop_map(Part::Section),
        3 => described().prop_map(Part::Interface),
        8 => (any::<usize>(), units(), 0_u32..2000, data(), option::of("[a-z]{0,9}")).prop_map(
            |(interface, units, more, data, comment)| Part::Enhanced { interface, units, more, data, comment }),
        2 => (any::<usize>(), units(), 0_u32..2000, data())
            .prop_map(|(interface, units, more, data)| Part::Obsolete { interface, units, more, data }),
        2 => (0_u32..2000, data()).prop_map(|(more, data)| Part::Simple { more, data }),
        2 => (7_u32..0x0a0d_0d0a, data()).prop_map(|(kind, body)| Part::Other { kind, body }),
    ]
}

/// The file, and what is to be read of it. Packets of a section without interfaces are left out.
fn written(big: bool, parts: &[Part]) -> (Vec<u8>, Vec<Packet>) {
    let (mut file, mut interfaces, mut packets) = (Pcapng::new(big), Vec::<Described>::new(), Vec::new());
    let mut time = 0;
    for part in parts {
        match part {
            Part::Section(big) => {
                interfaces.clear();
                file.section(*big);
            }
            Part::Interface(described) => {
                let offset = described
                    .offset
                    .map(|offset| if file.order.big { offset.to_be_bytes() } else { offset.to_le_bytes() });
                let resolution = described.resolution.map(|resolution| [resolution]);
                let mut options: Vec<(u16, &[u8])> = vec![(13, &[4])];
                options.extend(offset.as_ref().map(|offset| (14, &offset[..])));
                options.extend(described.name.as_ref().map(|name| (2, name.as_bytes())));
                options.extend(resolution.as_ref().map(|resolution| (9, &resolution[..])));
                file.interface(described.linktype, described.snaplen, &options);
                interfaces.push(described.clone());
            }
            Part::Other { kind, body } => {
                file.block(*kind, body);
            }
            Part::Enhanced { data, more, .. } | Part::Obsolete { data, more, .. } | Part::Simple { data, more } => {
                if interfaces.is_empty() {
                    continue;
                }
                let wire_len = data.len() as u32 + more;
                let (interface, wire_len, data) = match part {
                    Part::Enhanced { interface, units, comment, .. } => {
                        let (id, options) =
                            (interface % interfaces.len(), comment.as_ref().map(|text| (1, text.as_bytes())));
                        file.enhanced(id as u32, *units, wire_len, data, options.as_slice());
                        time = interfaces[id].time(*units);
                        (id, wire_len, data.clone())
                    }
                    Part::Obsolete { interface, units, .. } => {
                        let id = interface % interfaces.len();
                        file.obsolete(id as u16, *units, wire_len, data);
                        time = interfaces[id].time(*units);
                        (id, wire_len, data.clone())
                    }
                    _ => {
                        // As much as the interface captures, all of it if that is everything.
                        let snaplen = interfaces[0].snaplen as usize;
                        let kept = if snaplen == 0 { data.len() } else { data.len().min(snaplen) };
                        let wire_len = if kept > 0 && kept == snaplen { wire_len } else { kept as u32 };
                        file.simple(wire_len, &data[..kept]);
                        (0, wire_len, data[..kept].to_vec())
                    }
                };
                let Described { linktype, name, .. } = interfaces[interface].clone();
                packets.push(Packet {
                    time,
                    linktype: linktype.into(),
                    wire_len,
                    interface: interface as u32,
                    name,
                    data,
                });
            }
        }
    }
    (file.file, packets)
}

/// The bytes as they are, or compressed in some way, in parts if that is possible.
fn compressed(bytes: &[u8], way: u8) -> Vec<u8> {
    let halves = bytes.split_at(bytes.len() / 2);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("written")
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("written");
    match way {
        0 => bytes.to_vec(),
        1 => [gzip(halves.0), gzip(halves.1)].concat(),
        2 => [zstd(halves.0), zstd(halves.1)].concat(),
        _ => [super::writer::xz(halves.0, 0, 1), super::writer::xz(halves.1, 22, 0)].concat(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_written_is_read(
        big in any::<bool>(),
        parts in vec(part(), 0..60),
        piece in prop_oneof![1_usize..50, Just(usize::MAX)],
        way in 0_u8..4,
    ) {
        let (file, packets) = written(big, &parts);
        prop_assert_eq!(whole(Slow(&compressed(&file, way), piece)), packets);
    }
}
