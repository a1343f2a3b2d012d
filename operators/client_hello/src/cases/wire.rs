//! Packets of a connection as they are on the wire. Checksums are made by the plain loop of RFC 1071, not by the crate's
//! own code.

use std::fmt;

use super::SYN;

pub(super) const ACK: u8 = 0x10;
pub(super) const DATA: u8 = 0x18;
pub(super) const ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;
/// The client's clock when it opens the connection.
const CLOCK: u32 = 70_000;

/// Why a server drops a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Checksum,
    NoAck,
    Reset,
    AckTooHigh,
    AckTooLow,
    Ttl,
    OldClock,
    NoClock,
    Md5,
    SourceRoute,
    HeaderChecksum,
}

pub(super) const FAULTS: [Fault; 11] = [
    Fault::Checksum,
    Fault::NoAck,
    Fault::Reset,
    Fault::AckTooHigh,
    Fault::AckTooLow,
    Fault::Ttl,
    Fault::OldClock,
    Fault::NoClock,
    Fault::Md5,
    Fault::SourceRoute,
    Fault::HeaderChecksum,
];

/// Faults that leave no doubt, wherever the capture is made.
pub(super) const CERTAIN: [Fault; 4] = [Fault::Checksum, Fault::NoAck, Fault::Reset, Fault::HeaderChecksum];

/// A packet of the connection.
#[derive(Clone)]
pub(super) struct Wire {
    pub from_client: bool,
    /// IPv6; of what only IPv4 has there is no fault.
    pub six: bool,
    pub ttl: u8,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub urgent: u16,
    pub payload: Vec<u8>,
    pub fault: Option<Fault>,
    /// The checksum was left to a network card.
    pub is_open: bool,
}

impl fmt::Debug for Wire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_client, ttl, seq, ack, flags, fault, is_open, .. } = self;
        let (who, front) =
            (if *from_client { "client" } else { "server" }, &self.payload[..self.payload.len().min(12)]);
        write!(out, "{who} {seq}+{} ack {ack} flags {flags:x} ttl {ttl}", self.payload.len())?;
        write!(out, " fault {fault:?} open {is_open} {front:x?}")
    }
}

pub(super) fn sum(data: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in data.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Wire {
    pub(super) fn client(seq: u32, flags: u8, payload: &[u8]) -> Self {
        let ack = if flags & SYN != 0 { 0 } else { SERVER_ISN + 1 };
        let (payload, fault) = (payload.to_vec(), None);
        Self { from_client: true, six: false, ttl: 64, seq, ack, flags, urgent: 0, payload, fault, is_open: false }
    }

    pub(super) fn server(ack: u32, flags: u8) -> Self {
        let seq = if flags & SYN != 0 { SERVER_ISN } else { SERVER_ISN + 1 };
        Self { from_client: false, ack, ..Self::client(seq, flags, b"") }
    }

    fn options(&self) -> Vec<u8> {
        let clock = match self.fault {
            Some(Fault::OldClock) => CLOCK - 1000,
            _ => CLOCK + 5,
        };
        let mut options = match self.fault {
            Some(Fault::NoClock) => vec![],
            _ => [&[1, 1, 8, 10][..], &clock.to_be_bytes(), &[0; 4]].concat(),
        };
        if self.fault == Some(Fault::Md5) {
            options.extend([&[19, 18][..], &[7; 16], &[1, 1]].concat());
        }
        options
    }

    /// TCP header and data, with the checksum.
    fn segment(&self) -> Vec<u8> {
        let options = self.options();
        let ports = if self.from_client { [40_000, 443] } else { [443, 40_000_u16] };
        let (mut flags, mut ack) = (self.flags, self.ack);
        match self.fault {
            Some(Fault::NoAck) => (flags, ack) = (flags & !ACK, 0),
            Some(Fault::Reset) => flags |= 4,
            Some(Fault::AckTooHigh) => ack = ack.wrapping_add(900_000),
            Some(Fault::AckTooLow) => ack = ack.wrapping_sub(1_000_000),
            _ => {}
        }
        let mut tcp = ports.map(u16::to_be_bytes).concat();
        tcp.extend([self.seq, ack].map(u32::to_be_bytes).concat());
        let [high, low] = self.urgent.to_be_bytes();
        tcp.extend([(5 + options.len() as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, high, low]);
        tcp.extend([&options[..], &self.payload].concat());
        if !self.is_open {
            let is_wrong = self.fault == Some(Fault::Checksum) || self.six && self.fault == Some(Fault::HeaderChecksum);
            let checksum = of_transport(self.from_client, self.six, 6, &tcp, is_wrong);
            tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        }
        tcp
    }

    /// The IP packet.
    pub(super) fn packet(&self) -> Vec<u8> {
        let is_far = self.fault == Some(Fault::Ttl) || self.six && self.fault == Some(Fault::SourceRoute);
        let ttl = if is_far { 3 } else { self.ttl };
        let route: &[u8] = match self.fault {
            Some(Fault::SourceRoute) if !self.six => &[0x83, 7, 4, 10, 0, 0, 9, 0],
            _ => &[],
        };
        let mut packet = ip(self.from_client, self.six, ttl, 6, route, &self.segment());
        if self.fault == Some(Fault::HeaderChecksum) && !self.six {
            packet[10] ^= 0x11;
        }
        packet
    }
}

fn addresses(from_client: bool, six: bool) -> [Vec<u8>; 2] {
    let address =
        |last: u8| if six { [&[0x20, 1, 13, 0xb8][..], &[0; 11], &[last]].concat() } else { vec![10, 0, 0, last] };
    if from_client { [1, 2].map(address) } else { [2, 1].map(address) }
}

/// The checksum, or a wrong one that is none of those that a host leaves to its network card.
fn of_transport(from_client: bool, six: bool, protocol: u8, data: &[u8], is_wrong: bool) -> u16 {
    let len = (data.len() as u32).to_be_bytes();
    let pseudo = [&addresses(from_client, six).concat()[..], &[0, protocol], &len].concat();
    let right = sum(&[&pseudo[..], data].concat());
    let open = [0, !sum(&pseudo), !sum(&pseudo[..pseudo.len() - 4])];
    let wrong = (1..).map(|n| right ^ (0x1111 * n)).find(|wrong| !open.contains(wrong));
    wrong.filter(|_| is_wrong).unwrap_or(right)
}

fn ip(from_client: bool, six: bool, ttl: u8, protocol: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let addresses = addresses(from_client, six).concat();
    if six {
        let [high, low] = (data.len() as u16).to_be_bytes();
        return [&[0x60, 0, 0, 0, high, low, protocol, ttl][..], &addresses, data].concat();
    }
    let [high, low] = ((20 + options.len() + data.len()) as u16).to_be_bytes();
    let version = 0x45 + options.len() as u8 / 4;
    let header = [version, 0, high, low, 0, 7, 0x40, 0, ttl, protocol, 0, 0];
    let mut packet = [&header[..], &addresses, options].concat();
    let len = packet.len();
    packet.extend(data);
    header_checksum_of(&mut packet, len);
    packet
}

/// Makes the checksum of a header of 20 bytes.
pub(super) fn header_checksum(packet: &mut [u8]) {
    header_checksum_of(packet, 20);
}

fn header_checksum_of(packet: &mut [u8], len: usize) {
    packet[10..12].fill(0);
    let checksum = sum(&packet[..len]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}
