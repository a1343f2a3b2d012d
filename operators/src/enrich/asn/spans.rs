//! CSV of ranges, without a header: first address, last address, number of the system, organisation. npm's
//! `@ip-location-db/asn` has one file for IPv4 and one for IPv6; one file may have both.

use std::net::IpAddr;

use super::file::Table;
use super::records::Records;
use crate::enrich::csv;
use crate::enrich::faults::Faults;
use crate::enrich::inspect::About;
use crate::enrich::ranges::{Ranges, Span};

/// Whether a content looks like one: its first row begins with an address.
pub(super) fn is_one(content: &[u8]) -> bool {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let line = content.split(|byte| matches!(byte, b'\n' | b'\r')).find(|line| !line.is_empty()).unwrap_or_default();
    let first = line.split(|byte| *byte == b',').next().unwrap_or_default();
    let text = std::str::from_utf8(first).unwrap_or_default().trim().trim_matches('"');
    line.contains(&b',') && text.parse::<IpAddr>().is_ok()
}

/// A range and the line that has it.
type Given<A> = (Span<A>, u64);

/// Reads the file.
///
/// # Errors
/// The first bad rows, and ranges that are given twice with different values.
pub(super) fn parse(content: &[u8]) -> Result<Table, Faults> {
    let mut records = Records::default();
    let (mut v4, mut v6): (Vec<Given<u32>>, Vec<Given<u128>>) = (Vec::new(), Vec::new());
    csv::rows(content, |line, [first, last, asn, org]| {
        let record = records.add(csv::as_number(asn)?, ["", "", org, ""])?;
        match (address(first)?, address(last)?) {
            (IpAddr::V4(from), IpAddr::V4(to)) if from <= to => v4.push(((from.into(), to.into(), record), line)),
            (IpAddr::V6(from), IpAddr::V6(to)) if from <= to => v6.push(((from.into(), to.into(), record), line)),
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                return Err(format!("the range ends at `{last}`, before it begins at `{first}`"));
            }
            _ => return Err(format!("`{first}` and `{last}` are not both IPv4 or both IPv6")),
        }
        Ok(())
    })?;
    let mut faults = Faults::default();
    let overlaps = check(&mut v4, &mut faults) + check(&mut v6, &mut faults);
    faults.or(|| {
        let note = (overlaps > 0).then(|| format!("{overlaps} of the ranges overlap another"));
        let about = About { what: "CSV of ranges".to_owned(), entries: v4.len() + v6.len(), made: None, note };
        Table { ranges: Ranges::of_spans(spans(v4), spans(v6)), columns: records.finish(), about }
    })
}

fn spans<A>(given: Vec<Given<A>>) -> Vec<Span<A>> {
    given.into_iter().map(|(span, _)| span).collect()
}

/// An address; an IPv4-mapped IPv6 address is its IPv4 address.
fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let hint = if is_number { "; files with numbers in their place (`-num`) are not read" } else { "" };
        format!("`{text}` is not an address{hint}")
    })?;
    Ok(address.to_canonical())
}

/// Puts ranges in order, each once: how many overlap one before. Equal ones with different values are faults.
fn check<A: Ord + Copy>(given: &mut Vec<Given<A>>, faults: &mut Faults) -> usize {
    given.sort_unstable_by_key(|((first, last, _), line)| (*first, *last, *line));
    let mut contradictions: Vec<(u64, u64)> = Vec::new();
    given.dedup_by(|((first, last, value), line), ((other, other_last, known), before)| {
        let is_same = (*first, *last) == (*other, *other_last);
        if is_same && value != known {
            contradictions.push((*line, *before));
        }
        is_same
    });
    contradictions.sort_unstable();
    for (line, before) in contradictions {
        if faults.add(line, format!("this range is given otherwise in line {before}")) {
            break;
        }
    }
    let mut overlaps = 0;
    let mut reached: Option<A> = None;
    for ((first, last, _), _) in given {
        overlaps += usize::from(reached.is_some_and(|reached| *first <= reached));
        reached = reached.max(Some(*last));
    }
    overlaps
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, UInt32Array};
    use arrow::datatypes::UInt32Type;

    use super::*;

    fn table(rows: &str) -> Table {
        parse(rows.as_bytes()).unwrap_or_else(|faults| panic!("{}", faults.text()))
    }

    fn found(table: &Table, address: &str) -> (Option<u32>, Option<String>) {
        let row = table.get(address.parse().expect("an address"));
        let columns = table.take(&UInt32Array::from(vec![row])).expect("rows");
        let (asn, org) = (columns[0].as_primitive::<UInt32Type>(), columns[3].as_string::<i32>());
        (asn.iter().next().flatten(), org.iter().next().flatten().map(str::to_owned))
    }

    #[test]
    fn rows_as_they_are_published() {
        // The first rows of the package's files, and the two that overlap in 2.3.2026061719.
        let table = table(
            "1.0.0.0,1.0.0.255,13335,\"Cloudflare, Inc.\"\n1.0.4.0,1.0.7.255,38803,Gtelecom Pty Ltd\n\
             214.95.0.0,215.0.255.255,749,United States Department of Defense (DoD)\n\
             215.0.0.0,215.1.3.255,721,DoD Network Information Center\n\
             2001::,2001::ffff:ffff:ffff:ffff:ffff:ffff,6939,Hurricane Electric LLC\n",
        );
        let of = |address| found(&table, address);
        assert_eq!(of("1.0.0.255"), (Some(13335), Some("Cloudflare, Inc.".to_owned())));
        assert_eq!((of("1.0.1.0"), of("1.0.8.0")), ((None, None), (None, None)));
        let asn = |address| of(address).0;
        let overlapping = ["214.255.255.255", "215.0.0.0", "215.1.3.255", "215.1.4.0"];
        assert_eq!(overlapping.map(asn), [Some(749), Some(721), Some(721), None]);
        assert_eq!(["2001::1", "2001:0:ffff::", "2001:1::"].map(asn), [Some(6939), Some(6939), None]);
        assert_eq!(
            (table.about().entries, table.about().note.as_deref()),
            (5, Some("1 of the ranges overlap another"))
        );
    }

    #[test]
    fn which_content_is_one() {
        for yes in ["1.0.0.0,x\n", "\u{feff}\r\n\"::1\",", "::ffff:1.2.3.4,1"] {
            assert!(is_one(yes.as_bytes()), "{yes}");
        }
        for no in ["", "network,asn", "1.0.0.0/8,1", "1.0.0.0", "16777216,16777471,1,x", "\n\n", "{\"1.0.0.0\","] {
            assert!(!is_one(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let shown = |rows: &str| parse(rows.as_bytes()).err().map(|faults| faults.text()).unwrap_or_default();
        let rows = "1.0.0.0,1.0.0.255,1,a\n2.0.0.9,2.0.0.1,1,a\n\n3.0.0.0,::1,1,a\n4.0.0.0,67108865,1,a\n5.0.0.0,5.0.0.1,x,a\n6.0.0.0,6.0.0.1,1\n";
        let expected = [
            "2: the range ends at `2.0.0.1`, before it begins at `2.0.0.9`",
            "4: `3.0.0.0` and `::1` are not both IPv4 or both IPv6",
            "5: `67108865` is not an address; files with numbers in their place (`-num`) are not read",
            "6: `x` is not an AS number",
            "7: the row has 3 fields; it must have 4",
        ];
        assert_eq!(shown(rows).lines().collect::<Vec<_>>(), expected);
        let twice = "1.0.0.0,1.0.0.9,1,a\n::1,::2,1,a\n1.0.0.0,1.0.0.9,1,a\n::1,::2,1,b\n";
        assert_eq!(shown(twice), "4: this range is given otherwise in line 2");
    }

    #[test]
    fn empty_fields_are_null() {
        let table = table("1.0.0.0,1.0.0.9,,\n::ffff:2.0.0.0,::ffff:2.0.0.9,AS7,x\n");
        assert_eq!((found(&table, "1.0.0.1"), found(&table, "2.0.0.1").0), ((None, None), Some(7)));
        let row = table.get("1.0.0.1".parse().expect("valid"));
        assert!(row.is_some() && table.columns[0].is_null(row.unwrap_or_default() as usize));
    }
}
