//! The classic format (draft-ietf-opsawg-pcap).

use std::collections::BTreeSet;
use std::io::Read;

use crate::error::Error;
use crate::input::Input;
use crate::{Found, MAX_PACKET};

/// Bytes of the file's header.
const FILE_HEADER: usize = 24;

/// Bytes of a packet's header.
const HEADER: usize = 16;

/// Bytes of a packet's header in the format of Alexey Kuznetsov's libpcap: the kernel's interface, protocol and packet type follow.
const MODIFIED_HEADER: usize = 24;

/// The largest packet that libpcap takes for one (MAXIMUM_SNAPLEN), if the file's header does not say more.
const LARGEST: usize = 256 << 10;

/// The lower bits are the linktype; above them stands how long a frame's checksum is, which the decoder ignores as it ignores any
/// trailer. Bits between that must be 0 belong to a linktype that nobody knows.
const LINKTYPE: u32 = 0x03ff_ffff;

/// Where a packet's header has the captured length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// Before the length on the wire.
    First,
    /// After it: before version 2.3, and DG/UX (543.0).
    Second,
    /// Version 2.3 has both; what is captured is not the longer one.
    Shorter,
}

impl Lengths {
    /// Of a version that libpcap knows.
    fn of(major: u16, minor: u16) -> Option<Self> {
        match (major, minor) {
            (2, 0..=2) | (543, 0) => Some(Self::Second),
            (2, 3) => Some(Self::Shorter),
            (2, 4) => Some(Self::First),
            _ => None,
        }
    }
}

/// What a file's header says.
pub(crate) struct Pcap {
    pub linktypes: BTreeSet<i32>,
    linktype: i32,
    big: bool,
    /// What a unit of a time's fraction is, in ns.
    unit: i64,
    header: usize,
    largest: usize,
    lengths: Lengths,
}

impl Pcap {
    /// Reads the file's header; `None` if it begins otherwise.
    pub fn new<R: Read>(first: [u8; 4], input: &mut Input<R>) -> Result<Option<Self>, Error> {
        let kind = |magic| match magic {
            0xa1b2_c3d4 => Some((1000, HEADER)),
            0xa1b2_3c4d => Some((1, HEADER)),
            0xa1b2_cd34 => Some((1000, MODIFIED_HEADER)),
            _ => None,
        };
        let (little, big) = (kind(u32::from_le_bytes(first)), kind(u32::from_be_bytes(first)));
        let Some((unit, header)) = little.or(big) else { return Ok(None) };
        let big = little.is_none();
        let place = input.place();
        if !input.fill(FILE_HEADER)? {
            return Err(Error::truncated(place, "the file's header", input.waiting(), FILE_HEADER));
        }
        let number =
            |after| if big { u32::from_be_bytes(input.four(after)) } else { u32::from_le_bytes(input.four(after)) };
        let version = number(4);
        let (low, high) = (version as u16, (version >> 16) as u16);
        let (major, minor) = if big { (high, low) } else { (low, high) };
        let Some(lengths) = Lengths::of(major, minor) else {
            return Err(Error::corrupt(place, format_args!("version {major}.{minor} of the format")));
        };
        let linktype = (number(20) & LINKTYPE) as i32;
        let largest = (number(16) as usize).clamp(LARGEST, MAX_PACKET);
        input.take(FILE_HEADER);
        Ok(Some(Self { linktypes: BTreeSet::from([linktype]), linktype, big, unit, header, largest, lengths }))
    }

    #[inline]
    pub fn next<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, Error> {
        if !input.fill(self.header)? {
            return match input.waiting() {
                0 => Ok(None),
                there => Err(Error::truncated(input.place(), "a packet's header", there, self.header)),
            };
        }
        let [seconds, fraction, first, second] = [0, 4, 8, 12].map(|after| self.number(input.four(after)));
        let (captured, wire_len) = match self.lengths {
            Lengths::First => (first, second),
            Lengths::Second => (second, first),
            Lengths::Shorter => (first.min(second), first.max(second)),
        };
        let captured = captured as usize;
        if captured > self.largest {
            let what = format!("a packet of {captured} bytes, of which there can be {}", self.largest);
            return Err(Error::corrupt(input.place(), what));
        }
        if !input.fill(self.header + captured)? {
            let there = input.waiting() - self.header;
            return Err(Error::truncated(input.place(), "a packet", there, captured));
        }
        input.take(self.header);
        let time = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * self.unit;
        Ok(Some(Found { time, linktype: self.linktype, wire_len, interface: 0, data: input.take(captured) }))
    }

    #[inline]
    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}
