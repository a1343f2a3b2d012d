//! Tunnels that carry IP: GRE (RFC 2784, RFC 2890), VXLAN (RFC 7348) and GENEVE (RFC 8926).

use super::bytes::{u8_at, u16_at};
use super::link;
use super::packet::{Skip, Tunnels};

/// The port of IANA, and that of Linux before it was assigned.
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;

/// The IP packet inside a UDP datagram to this port, if that is a tunnel that is looked into.
pub(crate) fn over_udp(port: u16, payload: &[u8], tunnels: Tunnels) -> Option<Result<&[u8], Skip>> {
    if tunnels.vxlan && VXLAN.contains(&port) {
        return Some(vxlan(payload));
    }
    (tunnels.geneve && port == GENEVE).then(|| geneve(payload))
}

fn vxlan(data: &[u8]) -> Result<&[u8], Skip> {
    const VNI_IS_VALID: u8 = 0x08;
    if u8_at(data, 0).ok_or(Skip::Short)? & VNI_IS_VALID == 0 {
        return Err(Skip::Malformed);
    }
    link::ethernet(data.get(8..).ok_or(Skip::Short)?)
}

fn geneve(data: &[u8]) -> Result<&[u8], Skip> {
    let first = u8_at(data, 0).ok_or(Skip::Short)?;
    if first >> 6 != 0 {
        return Err(Skip::NotIp);
    }
    let inner = data.get(8 + usize::from(first & 0x3f) * 4..).ok_or(Skip::Short)?;
    carried(u16_at(data, 2).ok_or(Skip::Short)?, inner)
}

/// What an EtherType in a tunnel's header names.
fn carried(protocol: u16, inner: &[u8]) -> Result<&[u8], Skip> {
    match protocol {
        0x0800 | 0x86dd => Ok(inner),
        0x6558 => link::ethernet(inner),
        _ => Err(Skip::NotIp),
    }
}

/// The IP packet inside a GRE packet, version 0, that carries IPv4, IPv6 or Ethernet.
pub(crate) fn gre(data: &[u8]) -> Result<&[u8], Skip> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const VERSION: u16 = 0x0007;
    let flags = u16_at(data, 0).ok_or(Skip::Short)?;
    let carried = u16_at(data, 2).ok_or(Skip::Short)?;
    if flags & (ROUTING | VERSION) != 0 {
        return Err(Skip::NotIp);
    }
    let optional = [CHECKSUM, KEY, SEQUENCE].iter().filter(|flag| flags & **flag != 0).count();
    let inner = data.get(4 + 4 * optional..).ok_or(Skip::Short)?;
    self::carried(carried, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gre_options_are_skipped() {
        assert_eq!(gre(&[0, 0, 8, 0, 0x45]), Ok(&[0x45][..]));
        assert_eq!(gre(&[0x20, 0, 0x86, 0xdd, 0, 0, 0, 1, 0x60]), Ok(&[0x60][..]));
        assert_eq!(gre(&[0x00, 1, 8, 0, 0x45]), Err(Skip::NotIp));
        assert_eq!(gre(&[0xb0, 0, 8, 0, 0x45]), Err(Skip::Short));
    }
}
