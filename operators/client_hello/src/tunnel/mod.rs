//! Tunnels that carry IP, in IP and over UDP.

mod gre;
mod udp;

use super::ip::protocol;
use super::layer::Layer;
use super::link;
use super::packet::{Skip, Tunnels};

pub(crate) use udp::{over_udp, passed_by};

impl Tunnels {
    fn looks_into(self, layer: Layer) -> bool {
        match layer {
            Layer::IpInIp | Layer::Gre | Layer::EtherIp | Layer::Mpls => self.gre,
            Layer::Vxlan => self.vxlan,
            Layer::Geneve => self.geneve,
            Layer::Tzsp => self.tzsp,
            Layer::Gtp => self.gtp,
            _ => false,
        }
    }
}

/// The IP packet inside the payload of another one that is neither TCP nor UDP.
pub(crate) fn over_ip(protocol: u8, payload: &[u8], tunnels: Tunnels) -> Result<&[u8], Skip> {
    let layer = match protocol {
        protocol::IPV4 | protocol::IPV6 => Layer::IpInIp,
        protocol::GRE => Layer::Gre,
        protocol::MPLS => Layer::Mpls,
        protocol::ETHERIP => Layer::EtherIp,
        protocol::ESP => Layer::Esp,
        protocol::L2TP => Layer::L2tp,
        _ => return Err(Skip::OtherTransport),
    };
    if !tunnels.looks_into(layer) {
        return Err(Skip::Undecoded(layer));
    }
    match layer {
        Layer::Gre => gre::gre(payload),
        // RFC 4023
        Layer::Mpls => link::within(layer, (link::MPLS, payload)),
        Layer::EtherIp => etherip(payload),
        _ => Ok(payload),
    }
}

/// Ethernet behind a version of four bits, and twelve reserved ones (RFC 3378 section 3).
fn etherip(payload: &[u8]) -> Result<&[u8], Skip> {
    match payload {
        [version, _, frame @ ..] if version >> 4 == 3 => link::within(Layer::EtherIp, (link::BRIDGED, frame)),
        [_, _, ..] => Err(Skip::Undecoded(Layer::EtherIp)),
        _ => Err(Skip::Short),
    }
}
