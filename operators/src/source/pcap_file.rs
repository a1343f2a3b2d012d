//! Capture files in the classic format, read in large pieces. libpcap reads 4 KiB at a time, which costs more than decoding
//! the packets; it is used where a filter is needed, and for pcapng.
//!
//! Format: draft-ietf-opsawg-pcap.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Bytes that are read at a time.
const BLOCK: usize = 512 << 10;

/// Bytes of a packet's header.
const HEADER: usize = 16;

/// The largest packet that libpcap takes for one (MAXIMUM_SNAPLEN), whatever the file's header says.
const LARGEST: usize = 256 << 10;

/// A packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Time in ns since the epoch.
    pub time: i64,
    /// Length on the wire in bytes.
    pub wire_len: u32,
    /// The frame as captured.
    pub data: &'a [u8],
}

/// A file that is being read.
pub(crate) struct PcapFile<R> {
    input: R,
    buffer: Vec<u8>,
    /// What of the buffer has been read and not handed out.
    start: usize,
    end: usize,
    linktype: i32,
    swapped: bool,
    /// What a unit of a time's fraction is, in ns.
    unit: i64,
    largest: usize,
}

impl PcapFile<File> {
    /// Opens a file; `None` if it is not of this format.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, String> {
        let cannot = |error| format!("{} cannot be read: {error}", path.display());
        let file = File::open(path).map_err(cannot)?;
        Self::new(file).map_err(cannot)
    }
}

impl<R: Read> PcapFile<R> {
    fn new(mut input: R) -> std::io::Result<Option<Self>> {
        let mut head = [0; 24];
        match input.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (swapped, unit) = match number(0) {
            0xa1b2_c3d4 => (false, 1000),
            0xa1b2_3c4d => (false, 1),
            0xd4c3_b2a1 => (true, 1000),
            0x4d3c_b2a1 => (true, 1),
            _ => return Ok(None),
        };
        let order = |number: u32| if swapped { number.swap_bytes() } else { number };
        // The upper bits say how long a frame's checksum is; those with one are libpcap's.
        let linktype = order(number(20));
        let (Ok(linktype), 0) = (i32::try_from(linktype), linktype >> 26) else { return Ok(None) };
        let largest = LARGEST.max(usize::try_from(order(number(16))).unwrap_or(0).min(16 * LARGEST));
        let buffer = vec![0; BLOCK];
        Ok(Some(Self { input, buffer, start: 0, end: 0, linktype, swapped, unit, largest }))
    }

    /// The linktype of all packets.
    pub(crate) fn linktype(&self) -> i32 {
        self.linktype
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// If the file breaks off or cannot be read further.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, String> {
        if !self.fill(HEADER)? {
            return match self.end - self.start {
                0 => Ok(None),
                rest => Err(format!("{rest} bytes of a packet's header, which has {HEADER}")),
            };
        }
        let [seconds, fraction, captured, wire_len] = [0, 4, 8, 12].map(|at| self.number(self.start + at));
        let length = captured as usize;
        if length > self.largest {
            return Err(format!("a packet of {length} bytes, more than a capture can have"));
        }
        if !self.fill(HEADER + length)? {
            let rest = self.end - self.start - HEADER;
            return Err(format!("{rest} bytes of a packet that has {length}"));
        }
        let from = self.start + HEADER;
        self.start = from + length;
        let time = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * self.unit;
        Ok(Some(Record { time, wire_len, data: &self.buffer[from..from + length] }))
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.buffer.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if self.swapped { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// Reads until so many bytes wait; whether there are as many.
    #[inline]
    fn fill(&mut self, wanted: usize) -> Result<bool, String> {
        if self.end - self.start >= wanted { Ok(true) } else { self.read(wanted) }
    }

    #[cold]
    fn read(&mut self, wanted: usize) -> Result<bool, String> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(bytes) => self.end += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(order: fn(u32) -> [u8; 4], magic: u32, packets: &[&[u8]]) -> Vec<u8> {
        let mut file: Vec<u8> = [magic, 0, 0, 0, 65_535, 1].into_iter().flat_map(order).collect();
        for (at, packet) in packets.iter().enumerate() {
            let length = packet.len() as u32;
            file.extend([1_700_000_000, at as u32 + 1, length, length + 9].into_iter().flat_map(order));
            file.extend(*packet);
        }
        file
    }

    /// Hands out few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let bytes = self.1.min(into.len());
            self.0.read(&mut into[..bytes])
        }
    }

    #[test]
    fn all_orders_and_units_are_read_in_pieces_of_any_size() {
        let large = vec![7; BLOCK - 100];
        let packets: [&[u8]; 4] = [b"one", b"", &large[..200_000], b"last"];
        for (order, magic, unit) in [
            (u32::to_le_bytes as fn(u32) -> [u8; 4], 0xa1b2_c3d4, 1000),
            (u32::to_be_bytes, 0xa1b2_c3d4, 1000),
            (u32::to_le_bytes, 0xa1b2_3c4d, 1),
            (u32::to_be_bytes, 0xa1b2_3c4d, 1),
        ] {
            let bytes = file(order, magic, &packets);
            for piece in [1, 7, 4096, usize::MAX] {
                let mut read = PcapFile::new(Slow(&bytes, piece)).expect("readable").expect("a pcap file");
                assert_eq!(read.linktype(), 1);
                for (at, packet) in packets.iter().enumerate() {
                    let time = 1_700_000_000_000_000_000 + (at as i64 + 1) * unit;
                    let expected = Record { time, wire_len: packet.len() as u32 + 9, data: packet };
                    assert_eq!(read.next(), Ok(Some(expected)));
                }
                assert_eq!(read.next(), Ok(None));
            }
        }
    }

    #[test]
    fn a_file_that_breaks_off_says_where_and_what_no_packet_can_be_is_not_believed() {
        let bytes = file(u32::to_le_bytes, 0xa1b2_c3d4, &[b"whole", b"torn"]);
        for (cut, says) in
            [(1, "3 bytes of a packet that has 4"), (5, "15 bytes of a packet's header"), (19, "1 bytes of")]
        {
            let mut read = PcapFile::new(&bytes[..bytes.len() - cut]).expect("readable").expect("a pcap file");
            assert!(read.next().is_ok_and(|record| record.is_some()));
            assert!(read.next().is_err_and(|message| message.starts_with(says)), "{cut}");
        }
        let mut huge = file(u32::to_le_bytes, 0xa1b2_c3d4, &[b"x"]);
        huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut read = PcapFile::new(&huge[..]).expect("readable").expect("a pcap file");
        assert!(read.next().is_err_and(|message| message.contains("4294967295 bytes")));
    }

    #[test]
    fn other_files_are_left_to_libpcap() {
        for other in [&b"\x0a\x0d\x0d\x0a and more than twenty-four bytes"[..], b"short", b""] {
            assert!(PcapFile::new(other).expect("readable").is_none());
        }
    }
}
