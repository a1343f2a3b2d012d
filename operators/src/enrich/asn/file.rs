//! The file of networks: CSV with a header, read once and as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, UInt32Array, UInt32Builder};
use arrow::compute::take;
use arrow::error::ArrowError;
use ipnet::IpNet;

use crate::enrich::csv::{self, Known};
use crate::enrich::faults::Faults;
use crate::enrich::ranges::Ranges;

/// The columns that a file must have.
const COLUMNS: [&str; 6] = ["network", "asn", "country_code", "name", "org", "domain"];

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
        parse(content).map_err(|faults| faults.text())
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

/// Reads the text of a file.
fn parse(content: &[u8]) -> Result<Table, Faults> {
    let mut networks = Known::default();
    let mut records = Records::default();
    csv::read(content, COLUMNS, COLUMNS.len(), |line, [network, asn, texts @ ..]| {
        let key = csv::network(network)?;
        let record = records.add(csv::as_number(asn)?, texts);
        networks.add(key, network, line, record)
    })?;
    let networks: Vec<(IpNet, u32)> = networks.into_pairs().collect();
    Ok(Table { ranges: Ranges::new(&networks), columns: records.finish() })
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
            Err(faults) => faults.list().into_iter().map(|(line, reason)| (line, reason.to_owned())).collect(),
        }
    }

    #[test]
    fn quoted_fields_prefixed_numbers_and_empty_fields() {
        let rows = "10.0.0.0/8,AS64500,FR,EX,\"Example, \"\"Inc\"\"\",example.test\n::ffff:192.0.2.0/120,as7,,,,\n";
        let table = parse(format!("{HEADER}{rows}").as_bytes()).unwrap_or_else(|faults| panic!("{}", faults.text()));
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
        assert!(found.text().starts_with("1: the header has no column `network`"), "{}", found.text());
    }
}
