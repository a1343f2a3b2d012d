//! A file of networks, read once and as a whole. What it is shows its content, not its name.

use std::net::IpAddr;
use std::time::SystemTime;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use ipnet::IpNet;

use super::records::Records;
use super::{mmdb, spans};
use crate::enrich::csv::{self, Known};
use crate::enrich::faults::Faults;
use crate::enrich::inspect::About;
use crate::enrich::ranges::Ranges;

/// The columns that a file of networks must have.
const COLUMNS: [&str; 6] = ["network", "asn", "country_code", "name", "org", "domain"];

/// Networks and what is known of each: system, country, name, organisation, domain.
pub struct Table {
    pub(super) ranges: Ranges,
    /// asn, country code, name, organisation, domain; a network's value is the row.
    pub(super) columns: [ArrayRef; 5],
    pub(super) about: About,
}

impl Table {
    /// Reads the content of a file: CSV of networks, CSV of ranges, or a MaxMind DB.
    ///
    /// # Errors
    /// The first faults, each as `line: reason`, or `byte N: reason` of a database, in a line of its own.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        if mmdb::is_one(content) {
            return mmdb::parse(content);
        }
        if let Some(at) = not_text(content) {
            return Err(format!("byte {at}: this is no text, and no whole MaxMind DB either"));
        }
        let table = if spans::is_one(content) { spans::parse(content) } else { networks(content) };
        table.map_err(|faults| faults.text())
    }

    /// The row of an address.
    pub fn get(&self, address: IpAddr) -> Option<u32> {
        self.ranges.get(address)
    }

    /// The five columns for these rows; null gives nulls.
    ///
    /// # Errors
    /// If a row is not of this table.
    pub(super) fn take(&self, rows: &UInt32Array) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns.iter().map(|column| take(column, rows, None)).collect()
    }

    /// From when the data is, if the file says so.
    pub fn made(&self) -> Option<SystemTime> {
        self.about.made
    }

    /// How many networks or ranges it has.
    pub fn networks(&self) -> usize {
        self.about.entries
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }
}

/// The first byte of a content that shows that it is no text, in its first 512.
fn not_text(content: &[u8]) -> Option<usize> {
    content.iter().take(512).position(|byte| *byte < b' ' && !byte.is_ascii_whitespace())
}

/// Reads CSV of networks, with a header.
fn networks(content: &[u8]) -> Result<Table, Faults> {
    let mut networks = Known::default();
    let mut records = Records::default();
    csv::read(content, COLUMNS, COLUMNS.len(), |line, [network, asn, texts @ ..]| {
        let key = csv::network(network)?;
        let record = records.add(csv::as_number(asn)?, texts)?;
        networks.add(key, network, line, record)
    })?;
    let networks: Vec<(IpNet, u32)> = networks.into_pairs().collect();
    let about = About { what: "CSV of networks".to_owned(), entries: networks.len(), ..About::default() };
    Ok(Table { ranges: Ranges::new(&networks), columns: records.finish(), about })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::UInt32Type;

    use super::*;

    const HEADER: &str = "network,asn,country_code,name,org,domain\n";

    fn faults(rows: &str) -> Vec<(u64, String)> {
        match networks(format!("{HEADER}{rows}").as_bytes()) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.list().into_iter().map(|(line, reason)| (line, reason.to_owned())).collect(),
        }
    }

    #[test]
    fn quoted_fields_prefixed_numbers_and_empty_fields() {
        let rows = "10.0.0.0/8,AS64500,FR,EX,\"Example, \"\"Inc\"\"\",example.test\n::ffff:192.0.2.0/120,as7,,,,\n";
        let table = networks(format!("{HEADER}{rows}").as_bytes()).unwrap_or_else(|faults| panic!("{}", faults.text()));
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
    fn what_a_file_is_shows_its_content() {
        let form = |content: &[u8]| Table::parse(content).map(|table| table.about.what);
        assert_eq!(form(format!("{HEADER}10.0.0.0/8,1,,,,\n").as_bytes()).as_deref(), Ok("CSV of networks"));
        assert_eq!(form(b"10.0.0.0,10.0.0.9,1,x\n").as_deref(), Ok("CSV of ranges"));
        let shown = |content: &[u8]| form(content).expect_err("refused");
        assert_eq!(shown(b"\x1f\x8b\x08"), "byte 0: this is no text, and no whole MaxMind DB either");
        assert_eq!(shown(b"a\0b"), "byte 1: this is no text, and no whole MaxMind DB either");
        assert!(shown(b"").starts_with("1: the header has no column"), "{}", shown(b""));
        assert!(shown(b"{\"prefixes\": []}").starts_with("1: the header has no column"));
    }

    #[test]
    fn the_header_is_required() {
        let found = Table::parse(b"10.0.0.0/8,1,,,,\n").err().expect("no header");
        assert!(found.starts_with("1: the header has no column `network`"), "{found}");
    }
}
