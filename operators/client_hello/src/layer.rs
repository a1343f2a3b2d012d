//! The layers that are counted by name when a frame ends in them.

/// Declares the layers once, with the names of their counters.
macro_rules! layers {
    ($($(#[doc = $doc:literal])+ $variant:ident => $counter:literal,)+) => {
        /// A link layer or tunnel that may carry IP, and whose inside was not reached: it is switched off, encrypted,
        /// or carries what is unknown here. Each is counted, so that one sees at once what a mirror port holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Layer {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Layer {
            /// All layers, in the order of their numbers.
            pub const ALL: [Self; [$($counter),+].len()] = [$(Self::$variant),+];

            /// Name of the counter.
            pub const fn counter(self) -> &'static str {
                match self {
                    $(Self::$variant => $counter,)+
                }
            }
        }
    };
}

layers! {
    /// An EtherType that is neither decoded nor known to carry no IP.
    Ethertype => "undecoded_ethertype",
    /// IEEE 802.2 with unknown service access points, SNAP with an unknown organisation or type.
    Llc => "undecoded_llc",
    /// Cisco's metadata tag (EtherType 0x8909), of another version.
    Sgt => "undecoded_sgt",
    /// MACsec (IEEE 802.1AE) with encrypted or changed data.
    Macsec => "undecoded_macsec",
    /// A network service header (RFC 8300).
    Nsh => "undecoded_nsh",
    /// MPLS with something else than IP or Ethernet, or with too many labels.
    Mpls => "undecoded_mpls",
    /// PPPoE (RFC 2516) of another version.
    Pppoe => "undecoded_pppoe",
    /// PPP with compressed, encrypted or split packets, or an unknown protocol.
    Ppp => "undecoded_ppp",
    /// Cisco HDLC.
    CiscoHdlc => "undecoded_cisco_hdlc",
    /// Frame Relay.
    FrameRelay => "undecoded_frame_relay",
    /// Linux's netfilter log.
    Nflog => "undecoded_nflog",
    /// IP in IP.
    IpInIp => "undecoded_ip_in_ip",
    /// GRE.
    Gre => "undecoded_gre",
    /// ERSPAN, of another version or frame type.
    Erspan => "undecoded_erspan",
    /// Ethernet in IP (RFC 3378).
    EtherIp => "undecoded_etherip",
    /// ESP of IPsec (RFC 4303), also over UDP (RFC 3948).
    Esp => "undecoded_esp",
    /// L2TP, versions 2 (RFC 2661) and 3 (RFC 3931).
    L2tp => "undecoded_l2tp",
    /// VXLAN and VXLAN-GPE.
    Vxlan => "undecoded_vxlan",
    /// GENEVE.
    Geneve => "undecoded_geneve",
    /// TZSP.
    Tzsp => "undecoded_tzsp",
    /// GTP-U.
    Gtp => "undecoded_gtp",
    /// WireGuard.
    Wireguard => "undecoded_wireguard",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_and_names_differ() {
        for (at, layer) in Layer::ALL.into_iter().enumerate() {
            assert_eq!(layer as usize, at);
            assert!(layer.counter().starts_with("undecoded_"));
            assert!(Layer::ALL[..at].iter().all(|other| other.counter() != layer.counter()));
        }
    }
}
