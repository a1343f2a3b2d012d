//! MaxMind DB files ([format 2.0](https://maxmind.github.io/MaxMind-DB/)): a search tree over the bits of addresses, and records.
//!
//! The tree is walked here once, into the same table as other files have. Records are decoded by the crate `maxminddb`, each
//! once. It has iterators over the tree too, but an untrusted tree may lead to one node by any number of paths, and they
//! go on for ever where such paths lead to nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use maxminddb::{MaxMindDbError, Reader};

use super::file::Table;
use super::records::Records;
use crate::enrich::faults::one_line;
use crate::enrich::inspect::About;
use crate::enrich::ranges::{Ranges, Span};

mod fields;

use fields::Fields;

/// What stands before the metadata, in the last bytes of a file.
const MARK: &[u8] = b"\xab\xcd\xefMaxMind.com";
const MARK_WITHIN: usize = 128 << 10;

/// Bytes between the tree and the records.
const SEPARATOR: usize = 16;

/// The most networks of a file, the most different records, and the most steps through its tree.
const MOST_NETWORKS: usize = 4_000_000;
const MOST_RECORDS: usize = 1_000_000;
const MOST_STEPS: usize = 32_000_000;

/// The most bytes of a text.
const MOST_TEXT: usize = 512;

/// The bits of an IPv6 address before those of the IPv4 address that it stands for in a tree of IPv6.
const BEFORE_V4: u32 = 96;

/// Whether a content is one.
pub(super) fn is_one(content: &[u8]) -> bool {
    mark(content).is_some()
}

/// Where the metadata begins.
fn mark(content: &[u8]) -> Option<usize> {
    let from = content.len().saturating_sub(MARK_WITHIN);
    let at = content[from..].windows(MARK.len()).rposition(|bytes| bytes == MARK)?;
    Some(from + at + MARK.len())
}

/// Reads the file.
///
/// # Errors
/// What is wrong, as `byte N: reason`.
pub(super) fn parse(content: &[u8]) -> Result<Table, String> {
    let metadata = mark(content).unwrap_or_default();
    let reader = Reader::from_source(content).map_err(|error| fault(&error, metadata))?;
    let tree = Tree::new(&reader, content);
    let mut found = Found::new(&reader, &tree);
    tree.walk(|place, record| found.add(place, record))?;
    let kind: String = one_line(&reader.metadata().database_type).chars().take(64).collect();
    if found.records.have() == [false, false] {
        return Err(format!("byte {metadata}: the database `{kind}` has neither systems nor countries"));
    }
    let about = About {
        what: format!("MaxMind DB `{kind}`"),
        entries: found.v4.len() + found.v6.len(),
        made: reader.metadata().build_time().ok().filter(|_| reader.metadata().build_epoch > 0),
        note: None,
    };
    Ok(Table { ranges: Ranges::of_spans(found.v4, found.v6), columns: found.records.finish(), about })
}

/// A fault of the crate. `base` is where the section begins in which it counts bytes.
fn fault(error: &MaxMindDbError, base: usize) -> String {
    let (byte, reason) = match error {
        MaxMindDbError::InvalidDatabase { message, offset } => (offset.unwrap_or(base), message.clone()),
        MaxMindDbError::Decoding { message, offset, .. } | MaxMindDbError::ResourceLimit { message, offset, .. } => {
            (base.saturating_add(offset.unwrap_or(0)), message.clone())
        }
        other => (base, other.to_string()),
    };
    format!("byte {byte}: {}", one_line(&reason))
}

/// A network: the first address, and how many of its bits are fixed.
#[derive(Clone, Copy)]
struct Place {
    address: u128,
    depth: u32,
}

/// The search tree: nodes of two records, each the number of a node, of data, or of nothing.
struct Tree<'a> {
    nodes: &'a [u8],
    count: u32,
    /// Bits of a record: 24, 28 or 32.
    record: u16,
    /// Bits of an address: 32 or 128.
    bits: u32,
}

impl<'a> Tree<'a> {
    /// The tree of a file that the crate has accepted: its size is right.
    fn new(reader: &Reader<&'a [u8]>, content: &'a [u8]) -> Self {
        let metadata = reader.metadata();
        let bits = if metadata.ip_version == 6 { 128 } else { 32 };
        Self { nodes: content, count: metadata.node_count, record: metadata.record_size, bits }
    }

    /// Where the records begin.
    fn data(&self) -> usize {
        (self.count as usize).saturating_mul(usize::from(self.record) / 4).saturating_add(SEPARATOR)
    }

    /// The left or right record of a node.
    fn child(&self, node: u32, is_right: bool) -> Result<u32, String> {
        let size = usize::from(self.record) / 4;
        let at = (node as usize).saturating_mul(size);
        let cut_off = || format!("byte {at}: the search tree is cut off");
        let bytes = self.nodes.get(at..at.saturating_add(size)).ok_or_else(cut_off)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte));
        Ok(match (bytes, is_right) {
            // 28 bits: the byte in the middle has the upper four of both.
            ([left @ .., middle, _, _, _], false) if size == 7 => (u32::from(middle >> 4) << 24) | number(left),
            ([_, _, _, middle, right @ ..], true) if size == 7 => (u32::from(middle & 15) << 24) | number(right),
            (bytes, false) => number(&bytes[..size / 2]),
            (bytes, true) => number(&bytes[size / 2..]),
        })
    }

    /// The node of all IPv4 addresses in a tree of IPv6, if there is one.
    fn v4(&self) -> Result<Option<u32>, String> {
        let mut node = 0;
        if self.bits != 128 {
            return Ok(None);
        }
        for _ in 0..BEFORE_V4 {
            if node >= self.count {
                return Ok(None);
            }
            node = self.child(node, false)?;
        }
        Ok(Some(node).filter(|node| *node < self.count))
    }

    /// Gives each network that has data, and the number of its record, to `found`, in the order of addresses. Other ways to the
    /// IPv4 addresses, such as 6to4, are left out.
    fn walk(&self, mut found: impl FnMut(Place, u32) -> Result<(), String>) -> Result<(), String> {
        let v4 = self.v4()?;
        let mut open = vec![(0, Place { address: 0, depth: 0 })];
        let mut steps = 0;
        while let Some((node, place)) = open.pop() {
            let Place { address, depth } = place;
            steps += 1;
            if steps > MOST_STEPS {
                return Err(format!("byte 0: there are more than {MOST_STEPS} ways through the search tree"));
            }
            if node > self.count {
                found(place, node)?;
            }
            if node >= self.count || (Some(node) == v4 && (address, depth) != (0, BEFORE_V4)) {
                continue;
            }
            if depth == self.bits {
                return Err("byte 0: the search tree is deeper than an address has bits".to_owned());
            }
            let bit = 1 << (self.bits - 1 - depth);
            open.push((self.child(node, true)?, Place { address: address | bit, depth: depth + 1 }));
            open.push((self.child(node, false)?, Place { address, depth: depth + 1 }));
        }
        Ok(())
    }
}

/// What the tree leads to.
struct Found<'a> {
    reader: &'a Reader<&'a [u8]>,
    tree: &'a Tree<'a>,
    /// The row of each record, by its number in the tree; `None` if it says nothing of use.
    rows: HashMap<u32, Option<u32>, ahash::RandomState>,
    records: Records,
    v4: Vec<Span<u32>>,
    v6: Vec<Span<u128>>,
}

impl<'a> Found<'a> {
    fn new(reader: &'a Reader<&'a [u8]>, tree: &'a Tree<'a>) -> Self {
        Self { reader, tree, rows: HashMap::default(), records: Records::default(), v4: Vec::new(), v6: Vec::new() }
    }

    fn add(&mut self, place: Place, record: u32) -> Result<(), String> {
        let row = match self.rows.get(&record) {
            Some(row) => *row,
            None => {
                let row = self.read(place)?;
                self.rows.insert(record, row);
                row
            }
        };
        let Some(row) = row else { return Ok(()) };
        let Place { address, depth } = place;
        if self.v4.len() + self.v6.len() >= MOST_NETWORKS {
            return Err(format!("byte 0: the database has more than {MOST_NETWORKS} networks"));
        }
        let of_v4 = |fixed: u32| {
            let first = address as u32;
            (first, first | u32::MAX.checked_shr(fixed).unwrap_or(0), row)
        };
        match self.tree.bits {
            32 => self.v4.push(of_v4(depth)),
            _ if depth >= BEFORE_V4 && address <= u128::from(u32::MAX) => self.v4.push(of_v4(depth - BEFORE_V4)),
            _ => {
                self.v6.push((address, address | u128::MAX.checked_shr(depth).unwrap_or(0), row));
                if address == 0 {
                    // A record above the IPv4 addresses is that of all of them.
                    self.v4.push((0, u32::MAX, row));
                }
            }
        }
        Ok(())
    }

    /// Decodes the record of a network: the row of what it says, if that is anything.
    fn read(&mut self, place: Place) -> Result<Option<u32>, String> {
        if self.rows.len() == MOST_RECORDS {
            return Err(format!("byte 0: the database has more than {MOST_RECORDS} records"));
        }
        let address = match self.tree.bits {
            32 => IpAddr::V4(Ipv4Addr::from(place.address as u32)),
            _ => IpAddr::V6(Ipv6Addr::from(place.address)),
        };
        let data = self.tree.data();
        let found = self.reader.lookup(address).map_err(|error| fault(&error, data))?;
        let byte = data.saturating_add(found.offset().unwrap_or(0));
        let fields = found.decode::<Fields<'_>>().map_err(|error| fault(&error, data))?.unwrap_or_default();
        let (asn, texts) = fields.facts();
        if texts.iter().any(|text| text.len() > MOST_TEXT) {
            return Err(format!("byte {byte}: a text has more than {MOST_TEXT} bytes"));
        }
        if asn.is_none() && texts.iter().all(|text| text.is_empty()) {
            return Ok(None);
        }
        self.records.add(asn, texts).map(Some).map_err(|reason| format!("byte {byte}: {reason}"))
    }
}

#[cfg(test)]
#[path = "mmdb_tests.rs"]
mod tests;
