use arrow::array::{AsArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use proptest::prelude::*;

use super::*;

/// A value of the format.
#[derive(Clone)]
enum Value {
    Text(String),
    Short(u16),
    Number(u32),
    Long(u64),
    Map(Vec<(&'static str, Value)>),
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The bytes of a value: a byte with type and size, the size of long ones, and what it is.
fn encode(value: &Value, out: &mut Vec<u8>) {
    let head = |kind: u8, size: usize, out: &mut Vec<u8>| match size {
        0..29 => out.push(kind << 5 | size as u8),
        29..285 => out.extend([kind << 5 | 29, (size - 29) as u8]),
        _ => out.extend([kind << 5 | 30, ((size - 285) >> 8) as u8, (size - 285) as u8]),
    };
    match value {
        Value::Text(text) => {
            head(2, text.len(), out);
            out.extend(text.bytes());
        }
        Value::Short(number) => {
            head(5, 2, out);
            out.extend(number.to_be_bytes());
        }
        Value::Number(number) => {
            head(6, 4, out);
            out.extend(number.to_be_bytes());
        }
        // A type beyond the first seven: its number less seven stands in a byte of its own.
        Value::Long(number) => {
            out.extend([8, 9 - 7]);
            out.extend(number.to_be_bytes());
        }
        Value::Map(entries) => {
            head(7, entries.len(), out);
            for (key, value) in entries {
                encode(&text(key), out);
                encode(value, out);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Slot {
    Nothing,
    Node(usize),
    Data(usize),
}

/// Writes databases; networks must come in the order of their lengths.
struct Writer {
    bits: u32,
    record: u32,
    nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
}

impl Writer {
    fn new(bits: u32, record: u32) -> Self {
        Self { bits, record, nodes: vec![[Slot::Nothing; 2]], data: Vec::new() }
    }

    fn value(&mut self, value: &Value) -> Slot {
        let at = self.data.len();
        encode(value, &mut self.data);
        Slot::Data(at)
    }

    /// Puts a slot at the end of the first `length` bits of an address.
    fn put(&mut self, address: u128, length: u32, slot: Slot) {
        let Some(last) = length.checked_sub(1) else {
            self.nodes[0] = [slot; 2];
            return;
        };
        let mut node = 0;
        for depth in 0..=last {
            let side = (address >> (self.bits - 1 - depth)) as usize & 1;
            if depth == last {
                self.nodes[node][side] = slot;
                return;
            }
            node = match self.nodes[node][side] {
                Slot::Node(next) => next,
                before => {
                    self.nodes.push([before; 2]);
                    self.nodes[node][side] = Slot::Node(self.nodes.len() - 1);
                    self.nodes.len() - 1
                }
            };
        }
    }

    fn node_at(&self, address: u128, length: u32) -> Slot {
        (0..length).fold(Slot::Node(0), |slot, depth| match slot {
            Slot::Node(node) => self.nodes[node][(address >> (self.bits - 1 - depth)) as usize & 1],
            other => other,
        })
    }

    fn finish(&self) -> Vec<u8> {
        let count = self.nodes.len() as u32;
        let number = |slot: &Slot| match slot {
            Slot::Nothing => count,
            Slot::Node(node) => *node as u32,
            Slot::Data(at) => count + 16 + *at as u32,
        };
        let mut out = Vec::new();
        for [left, right] in &self.nodes {
            let [left, right] = [number(left).to_be_bytes(), number(right).to_be_bytes()];
            match self.record {
                24 => [&left[1..], &right[1..]].iter().for_each(|bytes| out.extend(*bytes)),
                28 => {
                    out.extend(&left[1..]);
                    out.push(left[0] << 4 | right[0]);
                    out.extend(&right[1..]);
                }
                _ => [left, right].iter().for_each(|bytes| out.extend(bytes)),
            }
        }
        out.extend([0; SEPARATOR]);
        out.extend(&self.data);
        out.extend(MARK);
        let metadata = [
            ("binary_format_major_version", Value::Short(2)),
            ("binary_format_minor_version", Value::Short(0)),
            ("build_epoch", Value::Long(1_796_083_200)),
            ("database_type", text("Test")),
            ("description", Value::Map(Vec::new())),
            ("ip_version", Value::Short(if self.bits == 32 { 4 } else { 6 })),
            ("node_count", Value::Number(count)),
            ("record_size", Value::Short(self.record as u16)),
        ];
        encode(&Value::Map(metadata.to_vec()), &mut out);
        // An empty list is of a type beyond the first seven; the map gets it as its ninth entry.
        let map = out.len() - tail(&metadata);
        out[map] += 1;
        encode(&text("languages"), &mut out);
        out.extend([0, 4]);
        out
    }
}

fn tail(metadata: &[(&'static str, Value)]) -> usize {
    let mut bytes = Vec::new();
    encode(&Value::Map(metadata.to_vec()), &mut bytes);
    bytes.len()
}

fn asn(number: u32, org: &str) -> Value {
    Value::Map(vec![("autonomous_system_number", Value::Number(number)), ("autonomous_system_organization", text(org))])
}

fn read(content: &[u8]) -> Table {
    Table::parse(content).unwrap_or_else(|why| panic!("{why}"))
}

/// What a table says of an address: system, country, name, organisation, domain.
fn found(table: &Table, address: &str) -> String {
    let row = table.get(address.parse().expect("an address"));
    let columns = table.take(&UInt32Array::from(vec![row])).expect("rows");
    let number = columns[0].as_primitive::<UInt32Type>().iter().next().flatten();
    let texts = columns[1..].iter().map(|column| column.as_string::<i32>().iter().next().flatten().unwrap_or("-"));
    let number = number.map_or("-".to_owned(), |number| number.to_string());
    std::iter::once(number.as_str()).chain(texts).collect::<Vec<_>>().join(" ")
}

/// `address` as it stands in the tree of IPv6.
fn v6(address: &str) -> u128 {
    address.parse::<Ipv6Addr>().expect("an address").into()
}

#[test]
fn records_of_all_makers() {
    let country =
        |code: &str| Value::Map(vec![("iso_code", text(code)), ("names", Value::Map(vec![("en", text("x"))]))]);
    let records = [
        (asn(13335, "Cloudflare"), "13335 - - Cloudflare -"),
        (Value::Map(vec![("country", country("FR")), ("registered_country", country("DE"))]), "- FR - - -"),
        (Value::Map(vec![("registered_country", country("DE")), ("city", Value::Map(Vec::new()))]), "- DE - - -"),
        (Value::Map(vec![("country_code", text("AU"))]), "- AU - - -"),
        (
            Value::Map(vec![
                ("asn", text("AS7")),
                ("as_name", text("Name")),
                ("as_domain", text("a.test")),
                ("country", text("Australia")),
                ("country_code", text("AU")),
            ]),
            "7 AU Name - a.test",
        ),
        (Value::Map(vec![("asn", Value::Number(8)), ("name", text("N")), ("org", text("O"))]), "8 - N O -"),
        (Value::Map(vec![("other", text("x"))]), "- - - - -"),
    ];
    for record in [24, 28, 32] {
        let mut writer = Writer::new(32, record);
        for (nth, (value, _)) in records.iter().enumerate() {
            let slot = writer.value(value);
            writer.put((10 << 24) | ((nth as u128) << 16), 16, slot);
        }
        let table = read(&writer.finish());
        for (nth, (_, expected)) in records.iter().enumerate() {
            assert_eq!(found(&table, &format!("10.{nth}.255.1")), *expected);
        }
        assert_eq!((found(&table, "11.0.0.1"), found(&table, "2001:db8::1")), ("- - - - -".into(), "- - - - -".into()));
        let about = table.about();
        assert_eq!((about.what.as_str(), about.entries), ("MaxMind DB `Test`", 6));
        let made = about.made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
        assert_eq!(made.map(|made| made.as_secs()), Some(1_796_083_200));
    }
}

#[test]
fn ipv4_in_a_tree_of_ipv6() {
    let mut writer = Writer::new(128, 28);
    let (one, other) = (writer.value(&asn(1, "one")), writer.value(&asn(2, "other")));
    writer.put(v6("2001:db8::"), 32, other);
    writer.put(v6("::10.0.0.0"), 104, one);
    let start = writer.node_at(0, 96);
    writer.put(v6("::ffff:0:0"), 96, start);
    writer.put(v6("2002::"), 16, start);
    let table = read(&writer.finish());
    let shown = ["10.9.9.9", "::ffff:10.1.1.1", "2001:db8::1", "2002:a00::1", "11.0.0.1"].map(|at| found(&table, at));
    assert_eq!(shown.map(|line| line[..1].to_owned()), ["1", "1", "2", "-", "-"]);
    assert_eq!(table.about().entries, 2, "the other ways to 10.0.0.0/8 are none");
    // A record above the IPv4 addresses is that of all.
    let mut writer = Writer::new(128, 24);
    let all = writer.value(&asn(3, "all"));
    writer.put(0, 8, all);
    let table = read(&writer.finish());
    assert_eq!(["1.2.3.4", "::1:0:0:0", "100::"].map(|at| found(&table, at)[..1].to_owned()), ["3", "3", "-"]);
}

#[test]
fn hostile_databases_are_refused() {
    let refused = |writer: &Writer| Table::parse(&writer.finish()).err().unwrap_or_else(|| panic!("it was accepted"));
    // Every node leads to the next one twice: 2^96 ways, to nothing, to data, and to the IPv4 addresses.
    for end in [Slot::Nothing, Slot::Data(0), Slot::Node(96)] {
        let mut writer = Writer::new(128, 32);
        writer.value(&asn(1, "x"));
        writer.nodes = (1..=96).map(|next| [Slot::Node(next); 2]).collect();
        writer.nodes.push([end; 2]);
        let why = refused(&writer);
        assert!(why.contains("ways through") || why.contains("networks") || why.contains("deeper"), "{why}");
    }
    let mut circular = Writer::new(32, 24);
    circular.nodes[0] = [Slot::Node(0); 2];
    assert!(refused(&circular).contains("deeper than an address"));
    let mut beyond = Writer::new(32, 24);
    beyond.value(&asn(1, "x"));
    beyond.nodes[0][1] = Slot::Data(100_000);
    assert!(refused(&beyond).starts_with("byte "), "{}", refused(&beyond));
    let mut long = Writer::new(32, 24);
    let slot = long.value(&asn(1, &"x".repeat(600)));
    long.put(0, 1, slot);
    assert_eq!(refused(&long), "byte 22: a text has more than 512 bytes");
    let wrong = |value: Value| {
        let mut writer = Writer::new(32, 24);
        let slot = writer.value(&value);
        writer.put(0, 1, slot);
        refused(&writer)
    };
    assert!(wrong(Value::Map(vec![("asn", text("x\n"))])).ends_with("`x ` is not an AS number"));
    assert!(wrong(Value::Map(vec![("city", text("x"))])).ends_with("has neither systems nor countries"));
    assert!(wrong(text("no map")).starts_with("byte "));
}

/// Networks of both versions with the number of their record, in the order of lengths.
fn networks() -> impl Strategy<Value = Vec<(u128, u32, u32)>> {
    let address = (prop::sample::select(vec![0u128, 0xffff << 32, 0x2001_0db8 << 96]), any::<u32>());
    let network = (address, 90u32..=128, 1u32..6).prop_map(|((high, low), length, record)| {
        let mask = u128::MAX.checked_shr(length).unwrap_or(0);
        ((high | u128::from(low & 0x0f00_ff0f)) & !mask, length, record)
    });
    prop::collection::vec(network, 0..40).prop_map(|mut networks| {
        networks.sort_by_key(|(_, length, _)| *length);
        networks
    })
}

fn written(networks: &[(u128, u32, u32)], record: u32) -> Vec<u8> {
    let mut writer = Writer::new(128, record);
    let slots: Vec<Slot> = (0..6).map(|number| writer.value(&asn(number, "x"))).collect();
    writer.put(v6("4000::"), 3, slots[0]);
    for (address, length, record) in networks {
        writer.put(*address, *length, slots[*record as usize]);
    }
    writer.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: proptest::test_runner::RngSeed::Fixed(11), ..ProptestConfig::default() })]

    /// The crate's own look-up, address by address, finds the same as the table.
    #[test]
    fn look_ups_agree_with_the_crate(
        networks in networks(),
        others in prop::collection::vec(any::<u32>(), 20),
        record in prop::sample::select(vec![24u32, 28, 32]),
    ) {
        let content = written(&networks, record);
        let (table, reader) = (read(&content), Reader::from_source(content.as_slice()).expect("valid"));
        let edges = networks.iter().flat_map(|(address, length, _)| {
            let last = address | u128::MAX.checked_shr(*length).unwrap_or(0);
            [address.wrapping_sub(1), *address, last, last.wrapping_add(1)]
        });
        let edges: Vec<u128> = edges.chain(others.iter().map(|low| u128::from(low & 0x0f00_ff0f))).collect();
        let addresses = edges.iter().map(|edge| IpAddr::V6(Ipv6Addr::from(*edge))).filter(|at| *at == at.to_canonical());
        let of_v4 = edges.iter().map(|edge| IpAddr::V4(Ipv4Addr::from(*edge as u32)));
        for address in addresses.chain(of_v4).filter(|at| !matches!(at, IpAddr::V6(at) if u128::from(*at) <= u128::from(u32::MAX))) {
            let record = reader.lookup(address).expect("looked up");
            let expected = record.decode::<Fields<'_>>().expect("decoded").map_or("-".to_owned(), |fields| fields.facts().0.unwrap_or(9).to_string());
            prop_assert_eq!(&found(&table, &address.to_string())[..1], expected, "{}", address);
        }
    }

    #[test]
    fn damaged_databases_are_read_or_refused(
        networks in networks(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut content = written(&networks, 24);
        for (at, byte) in edits {
            let at = at.index(content.len());
            content[at] = byte;
        }
        content.truncate(cut.index(content.len() * 3).max(1));
        match Table::parse(&content) {
            Ok(table) => _ = found(&table, "10.0.0.1"),
            Err(why) => prop_assert!(why.lines().count() <= 5 && why.contains(": "), "{}", why),
        }
    }
}
