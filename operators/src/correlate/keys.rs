//! The key of each row of a batch.

use std::net::IpAddr;

use arrow::array::{Array, AsArray, RecordBatch, StringArray, UInt16Array};
use arrow::datatypes::UInt16Type;

use super::KeyColumns;
use super::matcher::Key;

/// Reads keys from a batch's columns.
pub(super) struct Keys<'a> {
    source: (&'a StringArray, &'a UInt16Array),
    destination: Option<(&'a StringArray, &'a UInt16Array)>,
}

impl<'a> Keys<'a> {
    /// `None` if a column is missing or of another type, which the plan has ruled out.
    pub fn new(rows: &'a RecordBatch, columns: KeyColumns) -> Option<Self> {
        let side = |address, port| {
            let address = rows.column_by_name(address)?.as_string_opt::<i32>()?;
            Some((address, rows.column_by_name(port)?.as_primitive_opt::<UInt16Type>()?))
        };
        Some(Self {
            source: side("src_ip", "src_port")?,
            destination: match columns {
                KeyColumns::Source => None,
                KeyColumns::Connection => Some(side("dst_ip", "dst_port")?),
            },
        })
    }

    /// The key of a row; a null or malformed address counts as `::`.
    pub fn get(&self, row: usize) -> Key {
        let (src, src_port) = endpoint(self.source, row);
        let (dst, dst_port) = self.destination.map_or((0, 0), |side| endpoint(side, row));
        Key { src, dst, src_port, dst_port }
    }
}

impl Key {
    /// A hash that is the same on every worker and in every process.
    pub fn route(&self) -> u64 {
        // Two rounds of a 64-bit finaliser (Steele, Lea, Flood: SplitMix64) over the folded key.
        let fold = |v: u128| (v >> 64) as u64 ^ (v as u64);
        let ports = u64::from(self.src_port) << 16 | u64::from(self.dst_port);
        mix(mix(fold(self.src) ^ ports.rotate_left(32)).wrapping_add(fold(self.dst)))
    }
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn endpoint((addresses, ports): (&StringArray, &UInt16Array), row: usize) -> (u128, u16) {
    let address = if addresses.is_null(row) { 0 } else { address(addresses.value(row)) };
    (address, if ports.is_null(row) { 0 } else { ports.value(row) })
}

fn address(text: &str) -> u128 {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
        Ok(IpAddr::V6(v6)) => v6.to_bits(),
        Err(_) => 0,
    }
}
