//! Rows of one tick as they are sent together, and the name of that.

use std::fmt::Write;

use engine::batch::Time;
use sha2::{Digest, Sha256};

use super::bounds::Most;

/// How many bytes of the hash are in a name.
const HASH: usize = 16;

/// Some rows of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sink) struct Parcel {
    /// What the receiver knows it by: the node, the tick, its place there, and a hash of what it holds. ASCII.
    pub name: String,
    /// The tick, in ms since 1970.
    pub tick: Time,
    /// How many rows there are.
    pub rows: usize,
    /// They, each a JSON object and a line feed.
    pub lines: Vec<u8>,
}

impl Parcel {
    /// The rows, without their line feeds.
    pub fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// Cuts the lines of a tick into parcels. A row larger than that is one alone.
///
/// Lines are sorted: they come from workers in any order. Of changes those that take back come first, as `-` is before `1`.
pub(super) fn cut(node: &str, tick: Time, text: &[u8], most: Most) -> Vec<Parcel> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let mut parcels = Vec::new();
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |line: &&&[u8]| {
            bytes += line.len() + 1;
            bytes <= most.bytes
        };
        let rows = rest.iter().take(most.rows).take_while(fits).count().max(1);
        let (now, later) = rest.split_at(rows);
        let lines: Vec<u8> = now.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        let name = name(node, tick, parcels.len(), &lines);
        parcels.push(Parcel { name, tick, rows, lines });
        rest = later;
    }
    parcels
}

fn name(node: &str, tick: Time, nth: usize, lines: &[u8]) -> String {
    let mut name = format!("{node}-{tick}-{nth}-");
    for byte in Sha256::digest(lines).iter().take(HASH) {
        // Writing to a text cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn rows_are_cut_by_number_and_by_bytes_and_a_larger_one_is_alone() {
        let rows = |text: &str, rows, bytes| {
            let cut = cut("n", 7, text.as_bytes(), Most { rows, bytes });
            cut.iter().map(|parcel| String::from_utf8_lossy(&parcel.lines).replace('\n', ";")).collect::<Vec<_>>()
        };
        assert_eq!(rows("c\na\nb\n", 2, 100), ["a;b;", "c;"]);
        assert_eq!(rows("aa\nb\ncccccccc\nd\n", 9, 5), ["aa;b;", "cccccccc;", "d;"]);
        assert!(rows("", 1, 1).is_empty());
        assert_eq!(
            rows("{\"diff\":1,\"a\":1}\n{\"diff\":-1,\"a\":1}\n", 9, 99),
            ["{\"diff\":-1,\"a\":1};{\"diff\":1,\"a\":1};"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(31), ..ProptestConfig::default() })]

        /// Every row is in one parcel, none is too large, and the order in which rows came does not matter.
        #[test]
        fn parcels_hold_each_row_once(mut lines in prop::collection::vec("[a-z]{1,12}", 0..40), rows in 1_usize..9, bytes in 1_usize..60) {
            let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let most = Most { rows, bytes };
            let parcels = cut("n", 7, text(&lines).as_bytes(), most);
            lines.reverse();
            prop_assert_eq!(&cut("n", 7, text(&lines).as_bytes(), most), &parcels);
            lines.sort_unstable();
            let all: Vec<u8> = parcels.iter().flat_map(|parcel| parcel.lines.clone()).collect();
            prop_assert_eq!(all, text(&lines).into_bytes());
            for parcel in &parcels {
                prop_assert_eq!(parcel.each().count(), parcel.rows);
                prop_assert!(parcel.rows <= rows && (parcel.lines.len() <= bytes || parcel.rows == 1));
            }
            let mut names: Vec<&str> = parcels.iter().map(|parcel| parcel.name.as_str()).collect();
            names.dedup();
            prop_assert_eq!(names.len(), parcels.len());
        }
    }
}
