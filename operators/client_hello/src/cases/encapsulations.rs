//! Frames around one IP packet, written by hand from the specifications: nothing here is shared with the decoder.

use super::*;

const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
/// An MPLS label that is not the last one, and one that is.
const LABEL: [u8; 4] = [0, 0x06, 0x40, 63];
const LAST: [u8; 4] = [0, 0x01, 0x01, 64];

/// A way to carry IP.
#[derive(Debug)]
pub(super) struct Encapsulated {
    pub name: &'static str,
    pub linktype: i32,
    pub frame: Vec<u8>,
}

/// The EtherType of an IP packet.
fn ethertype(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] }
}

/// An Ethernet frame with these bytes between the addresses and the packet's EtherType.
fn tagged(tags: &[&[u8]], packet: &[u8]) -> Vec<u8> {
    [&ADDRESSES[..], &tags.concat(), &ethertype(packet), packet].concat()
}

/// An Ethernet frame of this EtherType.
pub(super) fn ethernet(ethertype: u16, parts: &[&[u8]]) -> Vec<u8> {
    [&ADDRESSES[..], &ethertype.to_be_bytes(), &parts.concat()].concat()
}

/// An IPv4 packet from 203.0.113.1 to 203.0.113.2.
pub(super) fn over_ip(protocol: u8, parts: &[&[u8]]) -> Vec<u8> {
    sample::ipv4(protocol, 64, [203, 0, 113, 1], [203, 0, 113, 2], &parts.concat())
}

/// A UDP datagram between these addresses.
pub(super) fn over_udp(port: u16, parts: &[&[u8]]) -> Vec<u8> {
    let payload = parts.concat();
    let header = [50_000, port, 8 + payload.len() as u16, 0].map(u16::to_be_bytes).concat();
    over_ip(17, &[&header, &payload])
}

/// A PPPoE packet.
fn pppoe(ppp: &[u8]) -> Vec<u8> {
    let [high, low] = (ppp.len() as u16).to_be_bytes();
    [&[0x11, 0, 0, 7, high, low], ppp].concat()
}

/// Tags and headers between Ethernet and IP.
fn over_ethernet(packet: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let whole = tagged(&[], packet);
    let ppp: &[u8] = if packet[0] >> 4 == 4 { &[0, 0x21] } else { &[0, 0x57] };
    let short = &ppp[1..];
    let session = |ppp: &[u8]| pppoe(&[ppp, packet].concat());
    let (customer, provider) = ([0x81, 0, 0x20, 5], [0x88, 0xa8, 0, 9]);
    let snap_len = packet.len() as u16 + 8;
    vec![
        ("untagged", whole.clone()),
        ("802.1Q", tagged(&[&customer], packet)),
        ("802.1ad", tagged(&[&provider, &customer], packet)),
        ("QinQ of old", tagged(&[&[0x91, 0, 0, 9], &customer], packet)),
        ("security group tag", tagged(&[&[0x89, 9, 1, 1, 0, 1, 0, 5]], packet)),
        ("VLAN and security group tag", tagged(&[&customer, &[0x89, 9, 1, 1, 0, 1, 0, 5]], packet)),
        ("VN-Tag", tagged(&[&[0x89, 0x26, 0, 0, 0, 0], &customer], packet)),
        ("E-Tag", tagged(&[&[0x89, 0x3f, 0, 0, 0, 1, 0, 0], &customer], packet)),
        ("802.1ah", ethernet(0x88a8, &[&[0, 9, 0x88, 0xe7, 0, 0, 0, 77], &tagged(&[&provider, &customer], packet)])),
        ("MACsec", tagged(&[&[0x88, 0xe5, 0, 0, 0, 0, 0, 1]], packet)),
        (
            "MACsec with a channel",
            [tagged(&[&[0x88, 0xe5, 0x20, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0, 1]], packet), vec![7; 16]].concat(),
        ),
        ("NSH", ethernet(0x894f, &[&[0x0f, 0xc6, 1, 3, 0, 0, 7, 0xff], &[0; 16], &whole])),
        ("MPLS", ethernet(0x8847, &[&LAST, packet])),
        ("MPLS upstream", ethernet(0x8848, &[&LAST, packet])),
        ("MPLS, three labels", ethernet(0x8847, &[&LABEL, &LABEL, &LAST, packet])),
        ("MPLS in a VLAN", ethernet(0x8100, &[&[0, 5, 0x88, 0x47], &LABEL, &LAST, packet])),
        ("pseudowire", ethernet(0x8847, &[&LABEL, &LAST, &whole])),
        ("pseudowire with a control word", ethernet(0x8847, &[&LABEL, &LAST, &[0, 0, 0, 3], &whole])),
        ("VLAN in a pseudowire", ethernet(0x8847, &[&LAST, &tagged(&[&provider, &customer], packet)])),
        ("PPPoE", ethernet(0x8864, &[&session(ppp)])),
        ("PPPoE with a short protocol", ethernet(0x8864, &[&session(short)])),
        ("PPPoE in two VLANs", ethernet(0x88a8, &[&[0, 9, 0x81, 0, 0, 5, 0x88, 0x64], &session(ppp)])),
        ("MPLS over PPPoE", ethernet(0x8864, &[&session(&[&[2, 0x81], &LABEL[..], &LAST].concat())])),
        ("PPPoE in a pseudowire", ethernet(0x8847, &[&LAST, &[0; 4], &ethernet(0x8864, &[&session(ppp)])])),
        ("SNAP", ethernet(snap_len, &[&[0xaa, 0xaa, 3, 0, 0, 0], &ethertype(packet), packet, &[0; 4]])),
        ("SNAP in a VLAN", {
            let [high, low] = snap_len.to_be_bytes();
            ethernet(0x8100, &[&[0, 5, high, low, 0xaa, 0xaa, 3, 0, 0, 0], &ethertype(packet), packet])
        }),
    ]
}

/// What GRE and other protocols over IP carry.
fn in_ip(packet: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let frame = tagged(&[&[0x81, 0, 0, 5]], packet);
    let third = |options: u8| [0x20, 5, 0, 1, 1, 2, 3, 4, 0, 5, 0, options];
    let (i, ii, iii) = ([0, 0, 0x88, 0xbe], [0x10, 0, 0x88, 0xbe, 0, 0, 0, 9], [0x10, 0, 0x22, 0xeb, 0, 0, 0, 9]);
    let ppp: &[u8] = if packet[0] >> 4 == 4 { &[0x21] } else { &[0x57] };
    vec![
        ("IP in IP", over_ip(if packet[0] >> 4 == 4 { 4 } else { 41 }, &[packet])),
        ("IP in IPv6", sample::ipv6(if packet[0] >> 4 == 4 { 4 } else { 41 }, packet)),
        ("MPLS in IP", over_ip(137, &[&LAST, packet])),
        ("EtherIP", over_ip(97, &[&[0x30, 0], &frame])),
        (
            "authentication header",
            over_ip(51, &[&[if packet[0] >> 4 == 4 { 4 } else { 41 }, 4, 0, 0], &[7; 20], packet]),
        ),
        ("GRE", over_ip(47, &[&[0, 0], &ethertype(packet), packet])),
        ("GRE with all options", over_ip(47, &[&[0xb0, 0], &ethertype(packet), &[0; 12], packet])),
        ("Ethernet in GRE", over_ip(47, &[&[0x20, 0, 0x65, 0x58, 0, 0, 7, 1], &frame])),
        ("MPLS in GRE", over_ip(47, &[&[0, 0, 0x88, 0x47], &LABEL, &LAST, packet])),
        ("NSH in GRE", over_ip(47, &[&[0, 0, 0x89, 0x4f, 0x0f, 0xc2, 2, 3, 0, 0, 7, 0xff], &frame])),
        (
            "security group tag in GRE",
            over_ip(47, &[&[0, 0, 0x89, 9], &ethertype(packet), &[1, 1, 0, 1, 0, 5], packet]),
        ),
        ("PPTP", over_ip(47, &[&[0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1], &[0; 8], ppp, packet])),
        ("ERSPAN I", over_ip(47, &[&i, &frame])),
        ("ERSPAN II", over_ip(47, &[&ii, &[0x10, 5, 0, 1, 0, 0, 0, 3], &frame])),
        ("ERSPAN III", over_ip(47, &[&iii, &third(0), &frame])),
        ("ERSPAN III with a subheader", over_ip(47, &[&iii, &third(7), &[0x0c, 0, 0, 1, 1, 2, 3, 4], &frame])),
    ]
}

/// Tunnels over UDP.
fn in_udp(packet: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let frame = tagged(&[&[0x81, 0, 0, 5]], packet);
    let version = if packet[0] >> 4 == 4 { 1 } else { 2 };
    let gpe = |next: u8| [0x0c, 0, 0, next, 0, 0, 7, 0];
    let user = |flags: u8, more: &[u8]| {
        let [high, low] = ((more.len() + packet.len()) as u16).to_be_bytes();
        over_udp(2152, &[&[flags, 0xff, high, low, 0, 0, 0, 7], more, packet])
    };
    vec![
        ("VXLAN", over_udp(4789, &[&[8, 0, 0, 0, 0, 0, 7, 0], &frame])),
        ("VXLAN with a policy", over_udp(8472, &[&[0x88, 0, 0, 5, 0, 0, 7, 0], &frame])),
        ("VXLAN-GPE, IP", over_udp(4790, &[&gpe(version), packet])),
        ("VXLAN-GPE, Ethernet", over_udp(4790, &[&gpe(3), &frame])),
        ("VXLAN-GPE, NSH", over_udp(4790, &[&gpe(4), &[0x0f, 0xc2, 2, version, 0, 0, 7, 0xff], packet])),
        ("VXLAN-GPE, no next protocol", over_udp(4790, &[&[8, 0, 0, 0, 0, 0, 7, 0], &frame])),
        ("GENEVE", over_udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4], &frame])),
        ("GENEVE, IP", over_udp(6081, &[&[0, 0], &ethertype(packet), &[0, 0, 7, 0], packet])),
        ("TZSP", over_udp(37008, &[&[1, 0, 0, 1, 1], &frame])),
        ("TZSP with fields", over_udp(37008, &[&[1, 0, 0, 1, 0, 0, 0x0a, 1, 0xb0, 0x29, 2, 1, 1, 1], &frame])),
        ("GTP-U", user(0x30, &[])),
        ("GTP-U with a sequence number", user(0x32, &[0, 9, 0, 0])),
        ("GTP-U with extensions", user(0x34, &[0, 0, 0, 0x85, 1, 0x10, 5, 0x40, 2, 0, 0, 0, 0, 0, 0, 0])),
    ]
}

/// Linktypes.
fn on_link(packet: &[u8]) -> Vec<(&'static str, i32, Vec<u8>)> {
    let with = |parts: &[&[u8]]| [&parts.concat()[..], packet].concat();
    let (is_v4, kind) = (packet[0] >> 4 == 4, ethertype(packet));
    let ppp: [u8; 2] = if is_v4 { [0, 0x21] } else { [0, 0x57] };
    let session = pppoe(&[&ppp, packet].concat());
    let nlpid: [u8; 1] = if is_v4 { [0xcc] } else { [0x8e] };
    let family = if is_v4 { 2 } else { 10 };
    let len = packet.len() as u16 + 4;
    let little =
        [&[8, 0, 1, 0][..], &kind, &[1, 0, 7, 0, 10, 0, b'a', b'b', 0, 0], &len.to_le_bytes(), &[9, 0]].concat();
    let big = [&[0, 8, 0, 1][..], &kind, &[1, 0, 0, 7, 0, 10, b'a', b'b', 0, 0], &len.to_be_bytes(), &[0, 9]].concat();
    vec![
        ("Linux SLL", 113, with(&[&[0; 14], &kind])),
        ("Linux SLL, MPLS", 113, with(&[&[0; 14], &[0x88, 0x47], &LABEL, &LAST])),
        ("Linux SLL, VLAN", 113, with(&[&[0; 14], &[0x81, 0, 0, 5], &kind])),
        ("Linux SLL, SNAP", 113, with(&[&[0; 14], &[0, 4, 0xaa, 0xaa, 3, 0, 0, 0], &kind])),
        ("Linux SLL2", 276, with(&[&kind, &[0; 18]])),
        ("Linux SLL2, MPLS", 276, with(&[&[0x88, 0x47], &[0; 18], &LAST])),
        ("Linux SLL2, PPPoE", 276, [&[0x88, 0x64], &[0; 18][..], &session].concat()),
        ("raw", 101, packet.to_vec()),
        ("raw, Linux", 12, packet.to_vec()),
        ("raw, OpenBSD", 14, packet.to_vec()),
        ("loopback, little endian", 0, with(&[&[family, 0, 0, 0]])),
        ("loopback, big endian", 0, with(&[&[0, 0, 0, family]])),
        ("OpenBSD loopback", 108, with(&[&[0, 0, 0, family]])),
        ("PPP", 9, with(&[&[0xff, 3], &ppp])),
        ("PPP without address", 9, with(&[&ppp])),
        ("PPP, short", 9, with(&[&ppp[1..]])),
        ("PPP, MPLS", 9, with(&[&[0xff, 3, 2, 0x81], &LABEL, &LAST])),
        ("PPP, bridged", 9, with(&[&[0xff, 3, 0, 0x31, 0, 1], &ADDRESSES, &kind])),
        ("PPP in HDLC", 50, with(&[&[0xff, 3], &ppp])),
        ("Cisco PPP in HDLC", 50, with(&[&[0x0f, 0], &kind])),
        ("PPPoE", 51, session),
        ("Cisco HDLC", 104, with(&[&[0x0f, 0], &kind])),
        ("Cisco HDLC, multicast, MPLS", 104, with(&[&[0x8f, 0, 0x88, 0x47], &LAST])),
        ("Frame Relay", 107, with(&[&[0x18, 0x41, 3], &nlpid])),
        ("Frame Relay, 3 bytes", 107, with(&[&[0x18, 0x40, 1, 3], &nlpid])),
        ("Frame Relay, 4 bytes", 107, with(&[&[0x18, 0x40, 0, 1, 3, 0], &nlpid])),
        ("Frame Relay, SNAP", 107, with(&[&[0x18, 0x41, 3, 0, 0x80, 0, 0, 0], &kind])),
        ("Frame Relay, bridged", 107, with(&[&[0x18, 0x41, 3, 0, 0x80, 0, 0x80, 0xc2, 0, 7], &ADDRESSES, &kind])),
        ("Frame Relay, PPP", 107, with(&[&[0x18, 0x41, 3, 0xcf], &ppp])),
        ("Frame Relay, Cisco", 107, with(&[&[0x18, 0x41], &kind])),
        ("NFLOG, little endian", 239, with(&[&[family, 0, 0, 0], &little])),
        ("NFLOG, big endian", 239, with(&[&[family, 0, 0, 0], &big])),
        ("NFLOG of a bridge", 239, with(&[&[7, 0, 0, 0], &little])),
    ]
}

/// The packet in every encapsulation. IP's own linktypes and UDP's tunnels are there, too.
pub(super) fn all(packet: &[u8]) -> Vec<Encapsulated> {
    let ethernet = over_ethernet(packet).into_iter().map(|(name, frame)| (name, 1, frame));
    let tunnels = [in_ip(packet), in_udp(packet)].concat().into_iter().map(|(name, frame)| (name, 101, frame));
    let frames = ethernet.chain(tunnels).chain(on_link(packet));
    frames.map(|(name, linktype, frame)| Encapsulated { name, linktype, frame }).collect()
}
