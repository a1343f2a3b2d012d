//! What an EtherType names: tags, and headers with something else inside.

use super::llc::llc;
use super::mpls::mpls;
use super::ppp::{ppp, pppoe};
use crate::bytes::{u8_at, u16_at};
use crate::layer::Layer;
use crate::packet::Skip;

/// What follows a header: the EtherType that names it, and its bytes.
pub(crate) type Inside<'a> = (u16, &'a [u8]);

/// Smaller numbers in the place of an EtherType are a length (IEEE 802.3 section 3.2.6).
const MIN_ETHERTYPE: u16 = 0x0600;

/// No EtherType: a header that says what follows in its own way, and that this is unknown here.
pub(crate) const UNKNOWN: u16 = 0;
/// IPX right behind the length of an 802.3 frame; Linux's number, too (`ETH_P_802_3`).
const NOVELL: u16 = 0x0001;
/// An IEEE 802.2 header; no EtherType, but Linux's number for it (`ETH_P_802_2`).
pub(crate) const LLC: u16 = 0x0004;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
/// Ethernet from its addresses on ("transparent Ethernet bridging").
pub(crate) const ETHERNET: u16 = 0x6558;
pub(crate) const PPP: u16 = 0x880b;
pub(crate) const MPLS: u16 = 0x8847;
/// RFC 5332: labels given by the sender ("multicast" formerly).
pub(super) const MPLS_UPSTREAM: u16 = 0x8848;
pub(super) const PPPOE_SESSION: u16 = 0x8864;
/// Cisco's metadata, which holds a security group tag.
pub(crate) const SGT: u16 = 0x8909;
const VN_TAG: u16 = 0x8926;
/// IEEE 802.1BR.
const E_TAG: u16 = 0x893f;
/// IEEE 802.1ah, provider backbone bridges.
const PBB: u16 = 0x88e7;
const MACSEC: u16 = 0x88e5;
pub(crate) const NSH: u16 = 0x894f;

/// Provider and customer tags (IEEE 802.1Q), and what was in use before 802.1ad.
pub(super) fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200)
}

/// What follows a header other than IP.
pub(super) fn next(ethertype: u16, rest: &[u8]) -> Result<Inside<'_>, Skip> {
    match ethertype {
        _ if is_vlan(ethertype) => typed(rest, 2),
        ETHERNET => typed(rest, 12),
        VN_TAG => typed(rest, 4),
        E_TAG => typed(rest, 6),
        PBB => Ok((ETHERNET, rest.get(4..).ok_or(Skip::Short)?)),
        SGT => sgt(rest),
        MACSEC => macsec(rest),
        MPLS | MPLS_UPSTREAM => mpls(rest),
        PPPOE_SESSION => pppoe(rest),
        PPP => ppp(rest),
        NSH => nsh(rest),
        LLC => llc(rest),
        NOVELL => Err(Skip::NotIp),
        _ if is_not_ip(ethertype) => Err(Skip::NotIp),
        _ => Err(Skip::Undecoded(Layer::Ethertype)),
    }
}

/// Whether it is known what an EtherType names.
pub(super) fn is_known(ethertype: u16) -> bool {
    let carries = matches!(
        ethertype,
        IPV4 | IPV6 | ETHERNET | VN_TAG | E_TAG | PBB | SGT | MACSEC | MPLS | MPLS_UPSTREAM | PPPOE_SESSION | PPP | NSH
    );
    carries || is_vlan(ethertype) || is_not_ip(ethertype)
}

/// What follows the EtherType, or the length of an 802.3 frame, at `at`.
pub(super) fn typed(rest: &[u8], at: usize) -> Result<Inside<'_>, Skip> {
    let ethertype = u16_at(rest, at).ok_or(Skip::Short)?;
    let inside = &rest[at + 2..];
    if ethertype < MIN_ETHERTYPE {
        return Ok((LLC, &inside[..inside.len().min(ethertype.into())]));
    }
    Ok((ethertype, inside))
}

/// Cisco's metadata: version, length, an option that says "security group tag", and the tag.
fn sgt(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    match u8_at(rest, 0).ok_or(Skip::Short)? {
        1 => typed(rest, 6),
        _ => Err(Skip::Undecoded(Layer::Sgt)),
    }
}

/// MACsec (IEEE 802.1AE section 9), which may only authenticate. The check value behind the data is like padding.
fn macsec(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    const VERSION: u8 = 0x80;
    const HAS_CHANNEL: u8 = 0x20;
    const ENCRYPTED: u8 = 0x08;
    const CHANGED: u8 = 0x04;
    let tag = u8_at(rest, 0).ok_or(Skip::Short)?;
    if tag & (VERSION | ENCRYPTED | CHANGED) != 0 {
        return Err(Skip::Undecoded(Layer::Macsec));
    }
    typed(rest, if tag & HAS_CHANNEL == 0 { 6 } else { 14 })
}

/// A network service header (RFC 8300 section 2.2).
fn nsh(rest: &[u8]) -> Result<Inside<'_>, Skip> {
    let header = rest.first_chunk::<4>().ok_or(Skip::Short)?;
    let words = usize::from(header[1] & 0x3f);
    let ethertype = match header[3] {
        _ if header[0] >> 6 != 0 => return Err(Skip::Undecoded(Layer::Nsh)),
        // Base header and service path are always there.
        _ if words < 2 => return Err(Skip::Malformed),
        1 => IPV4,
        2 => IPV6,
        3 => ETHERNET,
        4 => NSH,
        5 => MPLS,
        _ => return Err(Skip::Undecoded(Layer::Nsh)),
    };
    Ok((ethertype, rest.get(words * 4..).ok_or(Skip::Short)?))
}

/// Protocols that are no IP and carry none, so that nobody misses what is in them.
fn is_not_ip(ethertype: u16) -> bool {
    match ethertype {
        // ARP, wake on LAN, NHRP, RARP, AppleTalk and its ARP, IPX, Cisco's discovery protocol over HDLC
        0x0806 | 0x0842 | 0x2001 | 0x8035 | 0x809b | 0x80f3 | 0x8137 | 0x8138 | 0x2000 => true,
        // DEC, Banyan VINES, OSI over HDLC
        0x6000..=0x6009 | 0x0bad | 0xfefe => true,
        // AVTP, MRP streams, TRILL's IS-IS, and IS-IS in jumbo frames
        0x22ea | 0x22f0 | 0x22f4 | 0x8870 => true,
        // Pause and other MAC control, LACP and other slow protocols, PPPoE discovery, teaming probes, NLB heartbeats
        0x8808 | 0x8809 | 0x8863 | 0x886d | 0x886f => true,
        // HomePlug, EAPOL, PROFINET, AoE, EtherCAT, Powerlink, GOOSE, GSE, SV, preauthentication, TIPC
        0x887b | 0x888e | 0x8892 | 0x88a2 | 0x88a4 | 0x88ab | 0x88b8 | 0x88b9 | 0x88ba | 0x88c7 | 0x88ca => true,
        // LLDP, SERCOS, CESoE, LLTD, WSMP, HomePlug AV, MRP, E-LMI, MVRP, MMRP, PTP, NC-SI, PRP
        0x88cc | 0x88cd | 0x88d8 | 0x88d9 | 0x88dc | 0x88e1 | 0x88e3 | 0x88ee | 0x88f5..=0x88f8 | 0x88fb => true,
        // CFM, FCoE and its FIP, RoCE, TDLS, TTEthernet, IEEE 1905, ECP, Realtek's own, loop tests
        0x8902 | 0x8906 | 0x8914 | 0x8915 | 0x890d | 0x891d | 0x893a | 0x8940 | 0x8899 | 0x9000 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authenticated_frame_is_read_an_encrypted_one_is_not() {
        let inside = Ok((IPV4, &[0x45][..]));
        let undecoded = Err(Skip::Undecoded(Layer::Macsec));
        assert_eq!(next(MACSEC, &[0x03, 0, 0, 0, 0, 1, 8, 0, 0x45]), inside);
        assert_eq!(next(MACSEC, &[0x20, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 0, 0x45]), inside);
        for tag in [0x80, 0x08, 0x04, 0x2c] {
            assert_eq!(next(MACSEC, &[tag, 0, 0, 0, 0, 1, 8, 0, 0x45]), undecoded);
        }
        assert_eq!(next(MACSEC, &[0x20, 0, 0, 0, 0, 1, 8, 0, 0x45]), Err(Skip::Short));
    }

    #[test]
    fn a_service_header_says_how_long_it_is() {
        let frame = [&[0x0f, 0xc6, 1, 2, 0, 0, 7, 0xff][..], &[9; 16], &[0x60]].concat();
        assert_eq!(next(NSH, &frame), Ok((IPV6, &[0x60][..])));
        assert_eq!(next(NSH, &frame[..20]), Err(Skip::Short));
        assert_eq!(next(NSH, &[0, 1, 1, 1, 0x45]), Err(Skip::Malformed));
        assert_eq!(next(NSH, &[0x40, 2, 1, 1, 0, 0, 7, 0xff]), Err(Skip::Undecoded(Layer::Nsh)));
    }

    #[test]
    fn a_length_in_place_of_an_ethertype_cuts_padding_off() {
        assert_eq!(typed(&[0, 3, 1, 2, 3, 0, 0], 0), Ok((LLC, &[1, 2, 3][..])));
        assert_eq!(typed(&[0, 9, 1, 2, 3], 0), Ok((LLC, &[1, 2, 3][..])));
        assert_eq!(typed(&[6, 0, 1], 0), Ok((0x0600, &[1][..])));
        assert_eq!(typed(&[6], 0), Err(Skip::Short));
    }

    #[test]
    fn what_is_known_is_read_or_no_ip() {
        for ethertype in 0..=u16::MAX {
            let is_unknown = next(ethertype, &[0; 64]) == Err(Skip::Undecoded(Layer::Ethertype));
            assert!(
                is_unknown != is_known(ethertype) || matches!(ethertype, IPV4 | IPV6 | LLC | NOVELL),
                "{ethertype:x}"
            );
        }
    }
}
