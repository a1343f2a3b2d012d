//! How likely it is that a server took what a capture shows of its client.
//!
//! A client can send packets that its server drops and that a capture point cannot tell from others by the bytes they
//! carry (Ptacek and Newsham, "Insertion, Evasion, and Denial of Service", 1998). So packets are held against the SYN of
//! their connection, which the server did take, and against what the server has sent.
//!
//! Whether checksums mean anything is decided for each connection by its SYN. Where that is right, the client's packets
//! have theirs filled in when they are captured, and one that is wrong is dropped by the server. Where that is open or
//! wrong, the capture sees packets before a network card fills the sums in, or addresses were changed afterwards:
//! checksums of that connection are not looked at. Without a SYN a wrong one is a doubt and no more.

use super::assembly::distance;
use super::checksum::{self, Checksum};
use super::contest::Rank;
use super::flow::Flow;
use super::ip::{Ip, protocol};
use super::packet::{Datagram, Packet};
use super::tcp::{Segment, option};

/// Where the checksum stands in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// And in a UDP header.
const UDP_CHECKSUM: usize = 6;

/// The most data that Ethernet carries in one segment. More was put together by the host that captured, which may leave
/// any checksum in it.
const ON_ETHERNET: usize = 1460;

/// Ranks a segment with data whose connection has no hello yet.
pub(crate) fn of_segment(flow: &Flow, packet: &Packet<'_>, segment: &Segment<'_>) -> Rank {
    let checksum = match &flow.syn {
        Some(syn) if syn.checksum != Checksum::Right => Rank::Trusted,
        syn => match (of_packet(packet, segment), syn.is_some()) {
            (Checksum::Right, _) | (Checksum::Open, false) => Rank::Trusted,
            (Checksum::Open, true) | (Checksum::Wrong, false) => Rank::Doubtful,
            (Checksum::Wrong, true) if segment.payload.len() > ON_ETHERNET => Rank::Doubtful,
            (Checksum::Wrong, true) => Rank::Dropped,
        },
    };
    if checksum == Rank::Trusted && is_odd(flow, packet, segment) { Rank::Doubtful } else { checksum }
}

/// The checksums of a packet with a TCP segment, of IPv4 header and segment together.
pub(crate) fn of_packet(packet: &Packet<'_>, segment: &Segment<'_>) -> Checksum {
    if packet.cut {
        return Checksum::Open;
    }
    let whole = || checksum::of_transport(packet.src, packet.dst, protocol::TCP, segment.bytes, TCP_CHECKSUM);
    match of_header(packet) {
        Checksum::Right => whole(),
        other => other,
    }
}

/// Whether a SYN is to be believed rather than another one.
pub(crate) fn is_better(checksum: Checksum, than: Checksum) -> bool {
    checksum == Checksum::Right && than != Checksum::Right
}

/// Ranks a datagram. There is no packet before it to hold it against.
pub(crate) fn of_datagram(packet: &Packet<'_>, datagram: &Datagram<'_>) -> Rank {
    if packet.cut {
        return Rank::Trusted;
    }
    let len = datagram.bytes.get(4..).and_then(|rest| rest.first_chunk().copied()).map(u16::from_be_bytes);
    let bytes = len.and_then(|len| datagram.bytes.get(..usize::from(len))).unwrap_or(datagram.bytes);
    let sum = checksum::of_transport(packet.src, packet.dst, protocol::UDP, bytes, UDP_CHECKSUM);
    let is_wrong = [of_header(packet), sum].contains(&Checksum::Wrong) || has_options(packet) || packet.is_doubtful;
    if is_wrong { Rank::Doubtful } else { Rank::Trusted }
}

/// Ranks a part of an IP packet: its header's checksum is no card's work.
pub(crate) fn of_fragment(ip: &Ip<'_>) -> Rank {
    let is_wrong = !ip.header.is_empty() && checksum::of_header(ip.header) == Checksum::Wrong || ip.header.len() > 20;
    if is_wrong { Rank::Doubtful } else { Rank::Trusted }
}

fn of_header(packet: &Packet<'_>) -> Checksum {
    if packet.header.is_empty() { Checksum::Right } else { checksum::of_header(packet.header) }
}

/// Options of IPv4, such as source routes, are what servers and routers drop packets for.
fn has_options(packet: &Packet<'_>) -> bool {
    packet.header.len() > 20
}

/// Whether something differs from the connection's SYN, or does not fit what the server has sent.
fn is_odd(flow: &Flow, packet: &Packet<'_>, segment: &Segment<'_>) -> bool {
    let syn = flow.syn.as_ref();
    packet.is_doubtful
        || has_options(packet)
        || segment.urgent().is_some()
        || !flow.server.may_be_acknowledged(segment.ack)
        || syn.is_some_and(|syn| syn.ip.ttl != packet.ip.ttl)
        || option(segment.options, option::MD5).is_some() != syn.is_some_and(|syn| syn.options.has(option::MD5))
        || syn.and_then(|syn| syn.options.timestamp()).is_some_and(|first| is_old(flow, first, segment))
}

/// Whether a segment's timestamp is older than that of the SYN (RFC 7323 section 5), or missing though both sides have agreed
/// on them.
fn is_old(flow: &Flow, first: u32, segment: &Segment<'_>) -> bool {
    match option::timestamp(segment.options) {
        Some(now) => distance(first, now) < 0,
        None => flow.server.has_clock,
    }
}
