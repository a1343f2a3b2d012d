//! The file of networks: CSV with a header, read once and as a whole.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, UInt32Array, UInt32Builder};
use arrow::compute::take;
use arrow::error::ArrowError;
use ipnet::{IpNet, Ipv4Net};

use crate::enrich::ranges::Ranges;

/// The columns that a file must have.
const COLUMNS: [&str; 6] = ["network", "asn", "country_code", "name", "org", "domain"];

/// How many bad rows are named.
const MAX_FAULTS: usize = 5;

/// Networks and what is known of each.
pub(super) struct Table {
    ranges: Ranges,
    /// asn, country code, name, organisation, domain; a network's value is the row.
    columns: [ArrayRef; 5],
}

impl Table {
    /// Reads the content of a file.
    ///
    /// # Errors
    /// The first faults, each as `line: reason` in a line of its own.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        parse(content).map_err(|faults| {
            let faults: Vec<String> = faults.into_iter().map(|(line, reason)| format!("{line}: {reason}")).collect();
            faults.join("\n")
        })
    }

    /// The row of an address.
    pub fn get(&self, address: IpAddr) -> Option<u32> {
        self.ranges.get(address)
    }

    /// The five columns for these rows; null gives nulls.
    ///
    /// # Errors
    /// If a row is not of this table.
    pub fn take(&self, rows: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns.iter().map(|column| take(column, rows, None)).collect()
    }
}

/// Reads the text of a file. Faults come with their line.
fn parse(bytes: &[u8]) -> Result<Table, Vec<(u64, String)>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let header = reader.headers().map_err(|error| vec![(1, error.to_string())])?.clone();
    let mut at = [0; 6];
    for (at, name) in at.iter_mut().zip(COLUMNS) {
        let missing = || vec![(1, format!("the header has no column `{name}`; it must be {}", COLUMNS.join(",")))];
        *at = header.iter().position(|column| column.trim() == name).ok_or_else(missing)?;
    }
    let mut faults = Vec::new();
    let mut networks: Vec<(IpNet, u32)> = Vec::new();
    let mut lines: HashMap<IpNet, (u64, u32), ahash::RandomState> = HashMap::default();
    let mut records = Records::default();
    let mut row = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut row) {
            Ok(false) => break,
            Ok(true) => {
                let line = row.position().map_or(line, |at| line_of(bytes, at));
                let field = |nth: usize| row.get(at[nth]).unwrap_or_default().trim();
                let read = network(field(0)).and_then(|network| {
                    let asn = number(field(1))?;
                    let record = records.add(asn, [field(2), field(3), field(4), field(5)]);
                    match lines.insert(network, (line, record)) {
                        Some((other, same)) if same != record => {
                            Err(format!("`{network}` is given otherwise in line {other}"))
                        }
                        _ => Ok((network, record)),
                    }
                });
                match read {
                    Ok(entry) => networks.push(entry),
                    Err(reason) => faults.push((line, reason)),
                }
            }
            Err(error) => faults.push((error.position().map_or(line, |at| line_of(bytes, at)), csv_reason(&error))),
        }
        if faults.len() == MAX_FAULTS {
            break;
        }
    }
    if faults.is_empty() {
        Ok(Table { ranges: Ranges::new(&networks), columns: records.finish() })
    } else {
        Err(faults)
    }
}

/// The line of a row. The reader's place is the end of the row before; empty lines in between are not rows.
fn line_of(bytes: &[u8], at: &csv::Position) -> u64 {
    let rest = bytes.get(at.byte() as usize..).unwrap_or_default();
    let between = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    at.line() + between.filter(|b| **b == b'\n').count() as u64
}

fn csv_reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} fields, the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

/// A network; one of IPv4-mapped IPv6 addresses is the IPv4 network.
fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| {
        let single =
            if text.parse::<IpAddr>().is_ok() { ": an address needs a prefix length, such as /32" } else { "" };
        format!("`{text}` is not a network{single}")
    })?;
    if network.trunc() != network {
        return Err(format!("`{text}` has bits behind its prefix; the network is {}", network.trunc()));
    }
    let IpNet::V6(v6) = network else { return Ok(network) };
    let mapped = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= 96);
    let as_v4 = |address: Ipv4Addr| Ipv4Net::new(address, v6.prefix_len() - 96).ok().map(IpNet::V4);
    Ok(mapped.and_then(as_v4).unwrap_or(network))
}

/// An AS number with or without `AS` in front; nothing is none.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.get(..2).filter(|head| head.eq_ignore_ascii_case("as")).map_or(text, |_| &text[2..]);
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(Some).ok_or_else(|| format!("`{text}` is not an AS number"))
}

/// What a row says of a network: its AS, country, names and domain.
type Facts = (Option<u32>, [Box<str>; 4]);

/// What is known of networks, each combination once: an AS has many networks.
#[derive(Default)]
struct Records {
    known: HashMap<Facts, u32, ahash::RandomState>,
    asn: UInt32Builder,
    texts: [StringBuilder; 4],
}

impl Records {
    fn add(&mut self, asn: Option<u32>, texts: [&str; 4]) -> u32 {
        let next = self.known.len() as u32;
        let record = *self.known.entry((asn, texts.map(Into::into))).or_insert(next);
        if record == next {
            self.asn.append_option(asn);
            for (column, text) in self.texts.iter_mut().zip(texts) {
                column.append_option((!text.is_empty()).then_some(text));
            }
        }
        record
    }

    fn finish(mut self) -> [ArrayRef; 5] {
        let [country, name, org, domain] = &mut self.texts;
        [
            Arc::new(self.asn.finish()),
            Arc::new(country.finish()),
            Arc::new(name.finish()),
            Arc::new(org.finish()),
            Arc::new(domain.finish()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::UInt32Type;

    use super::*;

    const HEADER: &str = "network,asn,country_code,name,org,domain\n";

    fn faults(rows: &str) -> Vec<(u64, String)> {
        match parse(format!("{HEADER}{rows}").as_bytes()) {
            Ok(_) => Vec::new(),
            Err(faults) => faults,
        }
    }

    #[test]
    fn quoted_fields_prefixed_numbers_and_empty_fields() {
        let rows = "10.0.0.0/8,AS64500,FR,EX,\"Example, \"\"Inc\"\"\",example.test\n::ffff:192.0.2.0/120,as7,,,,\n";
        let table = parse(format!("{HEADER}{rows}").as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}"));
        let of = |address: &str| table.get(address.parse().expect("an address"));
        let columns =
            table.take(&UInt32Array::from(vec![of("10.1.2.3"), of("192.0.2.9"), of("11.0.0.1")])).expect("rows");
        assert_eq!(columns[0].as_primitive::<UInt32Type>().iter().collect::<Vec<_>>(), [Some(64500), Some(7), None]);
        assert_eq!(columns[3].as_string::<i32>().value(0), "Example, \"Inc\"");
        assert_eq!((columns[3].is_null(1), columns[4].null_count()), (true, 2));
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let found = faults(
            "10.0.0.0/8,1,,,,\n10.0.0.1/8,1,,,,\n10.0.0.1,1,,,,\n\n11.0.0.0/8,+5,,,,\n12.0.0.0/8,1\n10.0.0.0/8,2,,,,\nx,1,,,,\n",
        );
        let expected = [
            (3, "`10.0.0.1/8` has bits behind its prefix; the network is 10.0.0.0/8"),
            (4, "`10.0.0.1` is not a network: an address needs a prefix length, such as /32"),
            (6, "`+5` is not an AS number"),
            (7, "the row has 2 fields, the header 6"),
            (8, "`10.0.0.0/8` is given otherwise in line 2"),
        ];
        assert_eq!(found.iter().map(|(line, reason)| (*line, reason.as_str())).collect::<Vec<_>>(), expected);
        assert!(faults("10.0.0.0/8,1,,,,\n10.0.0.0/8,1,,,,\n").is_empty(), "the same once more is no contradiction");
    }

    #[test]
    fn the_header_is_required() {
        let found = parse(b"10.0.0.0/8,1,,,,\n").err().expect("no header");
        assert!(found[0].0 == 1 && found[0].1.contains("no column `network`"), "{found:?}");
    }
}
