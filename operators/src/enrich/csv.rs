//! CSV files of reference data: rows with their lines, and what their fields have in common.

use std::array;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::faults::Faults;

/// The most rows of a file. All networks of the internet are fewer than a million.
const MOST_ROWS: usize = 4_000_000;

/// The most bytes of a name.
const MOST_NAME: usize = 128;

/// The most bytes of a field that is used. The names of systems that are registered have fewer than 200.
const MOST_FIELD: usize = 512;

/// Gives the rows of a file with a header to `row`: the line, and the fields of `columns` without blanks at their ends.
///
/// The file may have the columns in any order, and others. Only the first `needed` of `columns` must be there; a field of
/// one that is not there is empty.
///
/// # Errors
/// The first bad rows. `row` says why it does not take one.
pub(super) fn read<const N: usize>(
    content: &[u8],
    columns: [&str; N],
    needed: usize,
    mut row: impl FnMut(u64, [&str; N]) -> Result<(), String>,
) -> Result<(), Faults> {
    let content = without_mark(content);
    let mut reader = csv::ReaderBuilder::new().from_reader(content);
    let header = reader.headers().map_err(|error| Faults::one(1, error_reason(&error)))?.clone();
    let mut at = [None; N];
    for (nth, (at, name)) in at.iter_mut().zip(columns).enumerate() {
        *at = header.iter().position(|column| column.trim() == name);
        if at.is_none() && nth < needed {
            let must = columns[..needed].join(",");
            return Err(Faults::one(1, format!("the header has no column `{name}`; it must be {must}")));
        }
    }
    each(content, reader, at, |line, fields, _| row(line, fields))
}

/// Gives the rows of a file without a header to `row`: the line and all fields, without blanks at their ends.
///
/// # Errors
/// As [`read`].
pub(super) fn rows<const N: usize>(
    content: &[u8],
    mut row: impl FnMut(u64, [&str; N]) -> Result<(), String>,
) -> Result<(), Faults> {
    let content = without_mark(content);
    let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    each(content, reader, array::from_fn(Some), |line, fields, count| match count == N {
        true => row(line, fields),
        false => Err(format!("the row has {count} fields; it must have {N}")),
    })
}

/// Without the mark that some programs put before UTF-8.
fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

/// Gives each row to `row`, with its line, the fields that stand at these places, and how many fields it has.
fn each<const N: usize>(
    content: &[u8],
    mut reader: csv::Reader<&[u8]>,
    at: [Option<usize>; N],
    mut row: impl FnMut(u64, [&str; N], usize) -> Result<(), String>,
) -> Result<(), Faults> {
    let mut faults = Faults::default();
    let mut record = csv::StringRecord::new();
    for rows in 0.. {
        let line = reader.position().line();
        let (line, taken) = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) if rows == MOST_ROWS => {
                faults.add(line, format!("the file has more than {MOST_ROWS} rows"));
                break;
            }
            Ok(true) => {
                let fields = array::from_fn(|nth| at[nth].and_then(|at| record.get(at)).unwrap_or_default().trim());
                let line = record.position().map_or(line, |at| line_of(content, at));
                let long = fields.iter().map(|field| field.len()).find(|bytes| *bytes > MOST_FIELD);
                let taken = match long {
                    Some(bytes) => Err(format!("a field has {bytes} bytes; it may have {MOST_FIELD}")),
                    None => row(line, fields, record.len()),
                };
                (line, taken)
            }
            Err(error) => (error.position().map_or(line, |at| line_of(content, at)), Err(error_reason(&error))),
        };
        if taken.is_err_and(|reason| faults.add(line, reason)) {
            break;
        }
    }
    faults.or(|| ())
}

/// The line of a row. The reader's place is the end of the row before; empty lines in between are not rows.
fn line_of(content: &[u8], at: &csv::Position) -> u64 {
    let rest = content.get(at.byte() as usize..).unwrap_or_default();
    let between = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    at.line() + between.filter(|b| **b == b'\n').count() as u64
}

fn error_reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} fields, the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

/// What rows say of keys. The same once more is accepted; a row that contradicts an earlier one is not.
pub(super) struct Known<K, V>(HashMap<K, (u64, V), ahash::RandomState>);

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Eq + Hash, V: PartialEq> Known<K, V> {
    /// Adds what a line says of a key, which is written as `text`.
    ///
    /// # Errors
    /// If an earlier line says something else.
    pub fn add(&mut self, key: K, text: &str, line: u64, value: V) -> Result<(), String> {
        match self.0.get(&key) {
            Some((_, known)) if *known == value => {}
            Some((other, _)) => return Err(format!("`{text}` is given otherwise in line {other}")),
            None => {
                self.0.insert(key, (line, value));
            }
        }
        Ok(())
    }

    /// Keys and values, in no order.
    pub fn into_pairs(self) -> impl Iterator<Item = (K, V)> {
        self.0.into_iter().map(|(key, (_, value))| (key, value))
    }
}

/// A network; one of IPv4-mapped IPv6 addresses is the IPv4 network.
///
/// # Errors
/// If it is none, or has bits behind its prefix.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
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

/// A network, or a single address.
///
/// # Errors
/// As [`network`].
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address.to_canonical())),
        Err(_) => network(text),
    }
}

/// An AS number with or without `AS` in front; nothing is none.
///
/// # Errors
/// If it is none.
pub(super) fn as_number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.get(..2).filter(|head| head.eq_ignore_ascii_case("as")).map_or(text, |_| &text[2..]);
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(Some).ok_or_else(|| format!("`{text}` is not an AS number"))
}

/// A JA4 fingerprint: 10, 12 and 12 characters, of which the last two parts are hexadecimal digits.
///
/// # Errors
/// If it is none.
pub(super) fn ja4(text: &str) -> Result<&str, String> {
    let is_hex = |part: &str| part.len() == 12 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_head = |part: &str| {
        part.len() == 10 && part.starts_with(['t', 'q', 'd']) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let mut parts = text.splitn(3, '_');
    let is_ja4 =
        parts.next().is_some_and(is_head) && parts.next().is_some_and(is_hex) && parts.next().is_some_and(is_hex);
    let reason = || format!("`{text}` is not a JA4, such as t13d1516h2_8daaf6152771_e5627efa2ab1");
    if is_ja4 { Ok(text) } else { Err(reason()) }
}

/// A name of something: not empty and not long.
///
/// # Errors
/// If it is none. `what` says of what.
pub(super) fn name<'a>(text: &'a str, what: &str) -> Result<&'a str, String> {
    match text.len() {
        0 => Err(format!("{what} is empty")),
        1..=MOST_NAME if text.chars().any(char::is_control) => Err(format!("{what} has control characters")),
        1..=MOST_NAME => Ok(text),
        bytes => Err(format!("{what} has {bytes} bytes; it may have {MOST_NAME}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(content: &[u8]) -> Vec<(u64, String)> {
        let read = read(content, ["a", "b", "c"], 2, |_, [a, ..]| match a {
            "bad" => Err("it is bad".to_owned()),
            _ => Ok(()),
        });
        let faults = read.err().unwrap_or_default();
        faults.list().into_iter().map(|(line, reason)| (line, reason.to_owned())).collect()
    }

    #[test]
    fn columns_stand_in_any_order_and_some_need_not_be_there() {
        let mut rows = Vec::new();
        let content = b"\xef\xbb\xbfx, b ,a\r\n1, 2 ,3\r\n\r\n4,\"5\n6\",7\r\n8,9,10";
        let read = read(content, ["a", "b", "c"], 2, |line, fields| {
            rows.push((line, fields.map(str::to_owned)));
            Ok(())
        });
        assert!(read.is_ok());
        let expected = [(2, ["3", "2", ""]), (4, ["7", "5\n6", ""]), (6, ["10", "9", ""])];
        assert_eq!(rows, expected.map(|(line, fields)| (line, fields.map(str::to_owned))));
    }

    #[test]
    fn the_first_five_bad_rows_are_named() {
        let content = b"a,b\nbad,1\n\nfine,1\nshort\nfine,\xff\nbad,2\nbad,3\nbad,4\n";
        let found = faults(content);
        let expected = [
            (2, "it is bad"),
            (5, "the row has 1 fields, the header 2"),
            (6, "the row is not UTF-8"),
            (7, "it is bad"),
            (8, "it is bad"),
        ];
        assert_eq!(found.iter().map(|(line, reason)| (*line, reason.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_field_is_not_longer_than_names_are() {
        let long = "x".repeat(20 << 20);
        let found = faults(format!("a,b,other\nx,y,z\n{long},y,z\nx,{long},z\nx,y,{long}\n").as_bytes());
        let expected = |line| (line, format!("a field has {} bytes; it may have 512", 20 << 20));
        assert_eq!(found, [expected(3), expected(4)], "one that nothing uses does not count");
    }

    #[test]
    fn the_header_is_required() {
        for content in [b"".as_slice(), b"\xff\xfe", b"b,c\n1,2\n", b"\0", b"\"", b"a;b\n1;2\n"] {
            let found = faults(content);
            assert_eq!((found.len(), found[0].0), (1, 1), "{found:?}");
        }
        assert_eq!(faults(b"b,c\n")[0].1, "the header has no column `a`; it must be a,b");
        assert!(faults(b"a,b\n").is_empty());
    }

    #[test]
    fn a_contradiction_names_the_earlier_line() {
        let mut known = Known::default();
        assert_eq!(known.add(1, "one", 2, "x"), Ok(()));
        assert_eq!(known.add(1, "one", 3, "x"), Ok(()));
        assert_eq!(known.add(1, "one", 4, "y"), Err("`one` is given otherwise in line 2".to_owned()));
        assert_eq!(known.into_pairs().collect::<Vec<_>>(), [(1, "x")]);
    }

    #[test]
    fn networks_and_addresses() {
        let shown = |text: &str| prefix(text).map(|network| network.to_string());
        assert_eq!(shown("192.0.2.7"), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(shown("::ffff:192.0.2.7"), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(shown("::ffff:192.0.2.0/120"), Ok("192.0.2.0/24".to_owned()));
        assert_eq!(shown("2001:db8::/32"), Ok("2001:db8::/32".to_owned()));
        for text in ["", "192.0.2.7/24", "192.0.2.0/33", "192.0.2.0/", "x", "192.0.2", "fe80::1%eth0"] {
            assert!(shown(text).is_err(), "{text}");
        }
        assert!(network("192.0.2.7").is_err_and(|reason| reason.contains("needs a prefix length")));
    }

    #[test]
    fn numbers_names_and_fingerprints() {
        assert_eq!((as_number("AS64500"), as_number("7"), as_number("")), (Ok(Some(64500)), Ok(Some(7)), Ok(None)));
        assert!(["AS", "-1", "+1", "4294967296", "ASé"].into_iter().all(|text| as_number(text).is_err()));
        assert!(name("", "it").is_err() && name("a\u{7}", "it").is_err() && name(&"x".repeat(129), "it").is_err());
        assert_eq!(name("Café", "it"), Ok("Café"));
        for good in ["t13d1516h2_8daaf6152771_e5627efa2ab1", "q13d0312h3_55b375c5d22e_06cda9e17597"] {
            assert_eq!(ja4(good), Ok(good));
        }
        let bad = [
            "",
            "t13d1516h2",
            "T13d1516h2_8daaf6152771_e5627efa2ab1",
            "t13d1516h2_8DAAF6152771_e5627efa2ab1",
            "t13d1516h2_8daaf6152771_e5627efa2ab1_",
            "t13d1516h2_8daaf615277é_e5627efa2ab1",
        ];
        assert!(bad.into_iter().all(|text| ja4(text).is_err()));
    }
}
