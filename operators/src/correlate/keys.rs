//! What the join reads of each row: its key, and whether a filter drops it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use arrow::array::{Array, AsArray, RecordBatch, StringArray, UInt16Array};
use arrow::datatypes::UInt16Type;
use ipnet::IpNet;

use super::KeyColumns;
use super::connections::{Key, mix};

/// Which columns make a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeySpec {
    pub columns: KeyColumns,
    pub sensor: bool,
}

/// Reads keys from a batch's columns.
pub(super) struct Keys<'a> {
    source: Endpoints<'a>,
    destination: Option<Endpoints<'a>>,
    destination_port: Option<&'a UInt16Array>,
    sensor: Option<&'a StringArray>,
    transport: Transport<'a>,
}

type Endpoints<'a> = (&'a StringArray, &'a UInt16Array);

/// Where a row says what carries it; TCP if nowhere.
#[derive(Default)]
struct Transport<'a> {
    /// `tcp` or `udp`.
    named: Option<&'a StringArray>,
    /// The first letter of a JA4 is `t`, `q` (QUIC) or `d` (DTLS).
    ja4: Option<&'a StringArray>,
    /// HTTP/3 is carried by QUIC alone (RFC 9114).
    http_version: Option<&'a StringArray>,
}

impl<'a> Keys<'a> {
    /// `None` if a column is missing or of another type, which the plan has ruled out.
    pub fn new(rows: &'a RecordBatch, spec: KeySpec) -> Option<Self> {
        let text = |name: &str| rows.column_by_name(name)?.as_string_opt::<i32>();
        let port = |name: &str| rows.column_by_name(name)?.as_primitive_opt::<UInt16Type>();
        Some(Self {
            source: (text("src_ip")?, port("src_port")?),
            destination: match spec.columns {
                KeyColumns::Source => None,
                KeyColumns::Connection => Some((text("dst_ip")?, port("dst_port")?)),
            },
            destination_port: port("dst_port"),
            sensor: if spec.sensor { Some(text("sensor_id")?) } else { None },
            transport: Transport { named: text("transport"), ja4: text("ja4"), http_version: text("http_version") },
        })
    }

    /// The key of a row; a null or malformed address counts as `::`, a null port as 0.
    pub fn get(&self, row: usize) -> Key {
        let (src, src_port) = endpoint(self.source, row);
        let (dst, dst_port) = self.destination.map_or((0, 0), |side| endpoint(side, row));
        let sensor = self.sensor.and_then(|sensors| value(sensors, row)).map_or(0, |name| fnv(name.as_bytes()));
        Key { src, dst, sensor, src_port, dst_port, udp: self.transport.is_udp(row) }
    }

    /// Whether the row has the port that its client sent from. Without it nothing tells which of the client's connections
    /// it belongs to.
    pub fn has_port(&self, row: usize) -> bool {
        self.source.1.is_valid(row)
    }

    /// The destination's port, if the row has one.
    pub fn destination_port(&self, row: usize) -> Option<u16> {
        self.destination_port.filter(|ports| ports.is_valid(row)).map(|ports| ports.value(row))
    }
}

impl Transport<'_> {
    fn is_udp(&self, row: usize) -> bool {
        if let Some(named) = self.named.and_then(|names| value(names, row)) {
            return ["udp", "quic", "dtls"].iter().any(|name| named.eq_ignore_ascii_case(name));
        }
        if let Some(ja4) = self.ja4.and_then(|values| value(values, row)) {
            return ja4.starts_with(['q', 'd']);
        }
        self.http_version.and_then(|versions| value(versions, row)).is_some_and(|version| {
            let number = version.strip_prefix("HTTP/").unwrap_or(version);
            number.starts_with('3') || version.eq_ignore_ascii_case("h3")
        })
    }
}

fn value(values: &StringArray, row: usize) -> Option<&str> {
    values.is_valid(row).then(|| values.value(row))
}

fn endpoint((addresses, ports): Endpoints<'_>, row: usize) -> (u128, u16) {
    let address = value(addresses, row).map_or(0, address);
    (address, if ports.is_null(row) { 0 } else { ports.value(row) })
}

/// An address as 128 bits, IPv4 mapped into IPv6; 0 if it is malformed.
fn address(text: &str) -> u128 {
    if let Some(v4) = ipv4(text.as_bytes()) {
        return MAPPED | u128::from(v4);
    }
    ipv6(text.as_bytes()).unwrap_or_else(|| text.parse::<Ipv6Addr>().map_or(0, |v6| v6.to_bits()))
}

/// Groups of hex digits with at most one `::`; `None` for anything else, such as a dotted part, which the standard
/// library reads more slowly.
fn ipv6(text: &[u8]) -> Option<u128> {
    let (mut bits, mut groups, mut digits, mut group) = (0u128, 0u32, 0, 0u32);
    // The groups before `::`.
    let mut before: Option<(u128, u32)> = None;
    let mut at = 0;
    if text.starts_with(b"::") {
        (before, at) = (Some((0, 0)), 2);
    }
    while let Some(byte) = text.get(at) {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b':' if digits > 0 => {
                (bits, groups, group, digits) = (bits << 16 | u128::from(group), groups + 1, 0, 0);
                at += 1;
                match text.get(at) {
                    Some(b':') if before.is_none() => {
                        (before, bits, groups) = (Some((bits, groups)), 0, 0);
                        at += 1;
                    }
                    Some(b':') | None => return None,
                    Some(_) => {}
                }
                continue;
            }
            _ => return None,
        };
        (group, digits) = (group << 4 | u32::from(value), digits + 1);
        if digits > 4 || groups > 7 {
            return None;
        }
        at += 1;
    }
    if digits > 0 {
        (bits, groups) = (bits << 16 | u128::from(group), groups + 1);
    }
    match before {
        None => (groups == 8 && digits > 0).then_some(bits),
        Some((high, more)) if more + groups < 8 => Some(high.checked_shl(128 - 16 * more).unwrap_or(0) | bits),
        Some(_) => None,
    }
}

/// `::ffff:0:0`, before the 32 bits of an IPv4 address (RFC 4291 section 2.5.5.2).
const MAPPED: u128 = 0xffff << 32;

/// Dotted decimal, as the standard library reads it; most of a join's rows have it.
fn ipv4(text: &[u8]) -> Option<u32> {
    if text.len() > 15 {
        return None;
    }
    let (mut bits, mut part, mut digits, mut parts) = (0u32, 0u32, 0, 1);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                if digits > 0 && part == 0 {
                    return None;
                }
                part = part * 10 + u32::from(byte - b'0');
                digits += 1;
                if part > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 => {
                bits = bits << 8 | part;
                (part, digits, parts) = (0, 0, parts + 1);
            }
            _ => return None,
        }
    }
    (parts == 4 && digits > 0).then_some(bits << 8 | part)
}

/// FNV-1a, then mixed: the same in every process.
fn fnv(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// Rows that are not joined.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    /// For each length of a prefix its mask and the networks.
    networks: Vec<(u128, HashSet<u128>)>,
    /// Empty: any.
    ports: Vec<u16>,
}

/// Why a row is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    Address,
    Port,
}

impl Filters {
    pub fn new(excluded: &[IpNet], ports: &[u16]) -> Self {
        let mut networks: Vec<(u128, HashSet<u128>)> = Vec::new();
        for network in excluded {
            let (bits, length) = match network.network() {
                IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), network.prefix_len() + 96),
                IpAddr::V6(v6) => (v6.to_bits(), network.prefix_len()),
            };
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            match networks.iter_mut().find(|(other, _)| *other == mask) {
                Some((_, known)) => {
                    known.insert(bits);
                }
                None => networks.push((mask, HashSet::from([bits]))),
            }
        }
        let mut ports = ports.to_vec();
        ports.sort_unstable();
        Self { networks, ports }
    }

    /// Why a row is not joined, if it is not. A row without a destination port passes.
    pub fn drops(&self, key: &Key, port: Option<u16>) -> Option<Dropped> {
        if self.networks.iter().any(|(mask, known)| known.contains(&(key.src & mask))) {
            return Some(Dropped::Address);
        }
        let wrong = !self.ports.is_empty() && port.is_some_and(|port| self.ports.binary_search(&port).is_err());
        wrong.then_some(Dropped::Port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn by_std(text: &str) -> u128 {
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
            Ok(IpAddr::V6(v6)) => v6.to_bits(),
            Err(_) => 0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(8), ..ProptestConfig::default() })]

        #[test]
        fn addresses_are_read_as_the_standard_library_reads_them(
            text in "[0-9.]{0,16}",
            groups in "[0-9a-fA-F:.]{0,12}|([0-9a-f]{0,5}:{1,2}){0,9}[0-9a-f]{0,4}",
            v6 in any::<u128>(),
            mask in any::<u128>(),
            v4 in any::<u32>(),
        ) {
            prop_assert_eq!(address(&text), by_std(&text));
            prop_assert_eq!(address(&groups), by_std(&groups));
            // With groups of zeros, and written in full.
            let sparse = Ipv6Addr::from_bits(v6 & mask & mask.rotate_left(16) & mask.rotate_left(37));
            let full = sparse.segments().map(|group| format!("{group:x}")).join(":");
            prop_assert_eq!(address(&full), sparse.to_bits());
            prop_assert_eq!(address(&sparse.to_string()), sparse.to_bits());
            let v6 = Ipv6Addr::from_bits(v6).to_string();
            prop_assert_eq!(address(&v6), by_std(&v6));
            let v4 = std::net::Ipv4Addr::from_bits(v4).to_string();
            prop_assert_eq!(address(&v4), by_std(&v4));
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in
            ["", ".", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1..2.3", "1.2.3.", ".1.2.3", "1.2.3.4 "]
        {
            assert_eq!(ipv4(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_excluded_network_covers_mapped_addresses_too() {
        let networks: Vec<IpNet> =
            ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"].iter().map(|net| net.parse().expect("a network")).collect();
        let filters = Filters::new(&networks, &[443, 80]);
        let key = |text: &str| Key { src: address(text), ..Key::default() };
        for (text, dropped) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(filters.drops(&key(text), None), dropped.then_some(Dropped::Address), "{text}");
        }
        assert_eq!(filters.drops(&key("::1"), Some(8443)), Some(Dropped::Port));
        assert_eq!(filters.drops(&key("::1"), Some(443)), None);
        let all = Filters::new(&["::/0".parse().expect("a network")], &[]);
        assert_eq!(all.drops(&key("192.0.2.1"), None), Some(Dropped::Address));
    }
}
