//! Packets of capture files: classic pcap and pcapng, as they are or compressed with gzip, zstd or xz. All of it is told by
//! the content, not by a name.
//!
//! ```
//! # fn main() -> Result<(), capture_file::Error> {
//! # let mut bytes: Vec<u8> = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
//! # bytes.extend([1_u32, 2, 3, 60].iter().flat_map(|n| n.to_le_bytes()));
//! # bytes.extend([7, 8, 9]);
//! let mut file = capture_file::CaptureFile::new(&bytes[..])?;
//! while let Some(record) = file.next_record()? {
//!     assert_eq!((record.time, record.wire_len, record.data), (1_000_002_000, 60, &[7, 8, 9][..]));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. Whatever a file says, no more memory is taken than [`MAX_BLOCK`],
//! [`MAX_WINDOW`] and the interfaces of a section ([`MAX_INTERFACES`]), and what is compressed is never held as a whole.
//!
//! The blocks are read by own code: the parsers that there are want the options of each packet walked, and a buffer of
//! their own kind between file and packet.

mod compression;
mod error;
mod input;
mod interface;
mod pcap;
mod pcapng;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use self::input::Input;
use self::pcap::Pcap;
use self::pcapng::Pcapng;

pub use self::compression::{Compression, Decompressed, MAX_WINDOW};
pub use self::error::{Error, Kind};
pub use self::writer::PcapWriter;

/// The largest block of a pcapng file in bytes, as libpcap and Wireshark have it.
pub const MAX_BLOCK: usize = 16 << 20;

/// The largest packet in bytes. One of a classic file has at most 256 KiB, or what the file's header says if that is more.
pub const MAX_PACKET: usize = 4 << 20;

/// The most interfaces of a pcapng section.
pub const MAX_INTERFACES: usize = 65_536;

/// A captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Time of capture in ns since the epoch; the nearest that fits if it does not. A simple packet of pcapng, which has none,
    /// has that of the packet before it (0 if there is none).
    pub time: i64,
    /// The file's number (`LINKTYPE_…`, <https://www.tcpdump.org/linktypes.html>) of the link that it was captured on.
    pub linktype: i32,
    /// Bytes that there were on the wire.
    pub wire_len: u32,
    /// The number of its interface in its section of a pcapng file; 0 in a classic one.
    pub interface: u32,
    /// The interface's name, if the file has it. At most 256 bytes.
    pub interface_name: Option<&'a str>,
    /// The bytes captured.
    pub data: &'a [u8],
}

/// Where a packet lies in the buffer, and what is known of it.
struct Found {
    time: i64,
    linktype: i32,
    wire_len: u32,
    interface: u32,
    data: Range<usize>,
}

enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

/// A capture file that is read from its beginning to its end.
pub struct CaptureFile<R: Read> {
    input: Input<R>,
    format: Format,
    done: bool,
}

impl CaptureFile<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, or is no capture file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::new(File::open(path).map_err(|error| Error::opening(&error))?)
    }
}

impl<R: Read> CaptureFile<R> {
    /// Begins with what `input` gives, in large pieces.
    ///
    /// # Errors
    /// If it cannot be read, or is no capture file.
    pub fn new(input: R) -> Result<Self, Error> {
        let mut input = Input::new(input)?;
        let format = match input.peek(4)? {
            [] => return Err(Error::empty()),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => Format::Pcapng(Pcapng::new(&mut input)?),
            &[a, b, c, d, ..] => match Pcap::new([a, b, c, d], &mut input)? {
                Some(pcap) => Format::Pcap(pcap),
                None => return Err(Error::unknown(&[a, b, c, d])),
            },
            few => return Err(Error::unknown(few)),
        };
        Ok(Self { input, format, done: false })
    }

    /// The next packet; `None` at the end, and after an error.
    ///
    /// # Errors
    /// If the file cannot be read further, with the place. [`Kind::Truncated`] is one that just ends in the middle.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Error> {
        if self.done {
            return Ok(None);
        }
        let found = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.input),
            Format::Pcapng(pcapng) => pcapng.next(&mut self.input),
        };
        let Ok(Some(Found { time, linktype, wire_len, interface, data })) = found else {
            self.done = true;
            return found.map(|_| None);
        };
        let interface_name = match &self.format {
            Format::Pcap(_) => None,
            Format::Pcapng(pcapng) => pcapng.name(interface),
        };
        let data = self.input.bytes(data);
        Ok(Some(Record { time, linktype, wire_len, interface, interface_name, data }))
    }

    /// The linktypes met so far: of a classic file its own, of a pcapng file those of the interface blocks read, be there
    /// packets of them or not.
    pub fn linktypes(&self) -> &BTreeSet<i32> {
        match &self.format {
            Format::Pcap(pcap) => &pcap.linktypes,
            Format::Pcapng(pcapng) => &pcapng.linktypes,
        }
    }

    /// What the file is compressed with.
    pub fn compression(&self) -> Option<Compression> {
        self.input.compression()
    }

    /// Bytes taken from the input so far; of a compressed file these are compressed.
    pub fn bytes_read(&self) -> u64 {
        self.input.taken()
    }

    /// Bytes of the capture, after decompression, that have been looked at.
    pub fn position(&self) -> u64 {
        self.input.at()
    }

    /// Bytes of memory that are held for what was read, but for those of a decompressor ([`MAX_WINDOW`]).
    pub fn held_bytes(&self) -> usize {
        let interfaces = match &self.format {
            Format::Pcap(_) => 0,
            Format::Pcapng(pcapng) => pcapng.held(),
        };
        self.input.held() + interfaces
    }
}
