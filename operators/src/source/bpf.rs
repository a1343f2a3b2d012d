//! Capture filters in libpcap's language.

use pcap::{Activated, BpfProgram, Capture};

/// A filter as far as it is known before the linktype is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    user: Option<String>,
    ports: Vec<u16>,
}

impl Filter {
    /// Packets that pass `user` and are TCP or UDP from or to one of `ports`, or whose ports cannot be told: fragments,
    /// IPv6 packets with extension headers, and packets in others. None given, none asked for.
    pub(crate) fn new(user: Option<String>, ports: Vec<u16>) -> Self {
        Self { user: user.filter(|text| !text.trim().is_empty()), ports }
    }

    /// The programs to try, the best first; the last is empty if there is nothing to filter.
    fn texts(&self) -> Vec<String> {
        // The user's part stands first: after `vlan` every offset means the packet inside the tag.
        let prefix = self.user.as_ref().map(|user| format!("({user}) and ")).unwrap_or_default();
        if self.ports.is_empty() {
            return vec![self.user.clone().unwrap_or_default()];
        }
        let ports: Vec<String> = self.ports.iter().map(|port| format!("tcp port {port} or udp port {port}")).collect();
        // A fragment but the first has no ports, and libpcap does not look for them behind IPv6 extension headers.
        let ports = format!("{} or (ip[6:2] & 0x1fff != 0) or {}", ports.join(" or "), extended());
        let tagged = |inside: &str| format!("{prefix}({inside} or (vlan and ({inside} or (vlan and ({inside})))))");
        vec![tagged(&format!("{ports} or {}", encapsulated())), tagged(&ports), format!("{prefix}({ports})")]
    }

    /// Whether everything passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.user.is_none() && self.ports.is_empty()
    }

    /// Sets the filter.
    ///
    /// # Errors
    /// libpcap's message. Linktypes without VLAN tags are tried without them.
    pub(crate) fn set<T: Activated + ?Sized>(&self, capture: &mut Capture<T>) -> Result<(), String> {
        if self.is_empty() { Ok(()) } else { self.first(|text| capture.filter(text, true)) }
    }

    /// Checks that the filter can be set.
    ///
    /// # Errors
    /// As [`Filter::set`].
    pub(crate) fn check<T: Activated + ?Sized>(&self, capture: &Capture<T>) -> Result<(), String> {
        self.compile(capture).map(drop)
    }

    /// The program of the filter.
    ///
    /// # Errors
    /// As [`Filter::set`].
    pub(crate) fn compile<T: Activated + ?Sized>(&self, capture: &Capture<T>) -> Result<BpfProgram, String> {
        self.first(|text| capture.compile(text, true))
    }

    /// What comes of the first text that works, or why the last does not.
    fn first<P>(&self, mut attempt: impl FnMut(&str) -> Result<P, pcap::Error>) -> Result<P, String> {
        let mut outcome = Err(String::new());
        for text in self.texts() {
            outcome = attempt(&text).map_err(|error| message(&error));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// Packets in which others may be, whatever these are: a mirror's tunnel or tag hides their ports. What is not looked into is
/// counted by its name where hellos are looked for.
fn encapsulated() -> String {
    let types = ETHERTYPES.map(|number| format!("ether proto {number:#06x}"));
    let protocols = PROTOCOLS.map(|number| format!("ip proto {number} or ip6 proto {number}"));
    let tunnels = TUNNELS.map(|port| format!("udp dst port {port}"));
    [types.join(" or "), protocols.join(" or "), tunnels.join(" or ")].join(" or ")
}

/// MPLS, PPPoE, Cisco's SGT and VN-Tag, provider backbone bridges, MACsec, NSH.
const ETHERTYPES: [u16; 8] = [0x8847, 0x8848, 0x8864, 0x8909, 0x8926, 0x88e7, 0x88e5, 0x894f];

/// IP in IP, IPv6 in IP, GRE, Ethernet in IP, MPLS in IP.
const PROTOCOLS: [u8; 5] = [4, 41, 47, 97, 137];

/// VXLAN and its former port, VXLAN-GPE, GENEVE, TZSP, GTP-U.
const TUNNELS: [u16; 6] = [4789, 8472, 4790, 6081, 37008, 2152];

/// IPv6 packets that begin with an extension header, whatever comes behind it; but for ICMPv6, which every link has now
/// and then behind hop-by-hop options (RFC 3810).
fn extended() -> String {
    let headers = EXTENSION_HEADERS.map(|header| format!("ip6[6] = {header}"));
    format!("(({}) and ip6[40] != 58)", headers.join(" or "))
}

/// IPv6 headers behind which there may be a TCP segment or UDP datagram (IANA's list): hop-by-hop options, routing, fragment,
/// authentication, destination options, mobility, host identity, shim6.
const EXTENSION_HEADERS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

/// libpcap's own words, without the wrapper's.
pub(crate) fn message(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(message) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use pcap::Linktype;

    use super::*;

    /// An Ethernet frame with `tags` VLAN tags and a TCP segment from 40000 to `port`.
    fn frame(tags: usize, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0, 7].repeat(tags));
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend([0; 16]);
        frame
    }

    fn passes(filter: &Filter, frame: &[u8]) -> bool {
        let capture = Capture::dead(Linktype::ETHERNET).expect("a capture");
        capture.compile(&filter.texts()[0], true).expect("a program").filter(frame)
    }

    #[test]
    fn ports_are_found_behind_up_to_two_tags() {
        let filter = Filter::new(None, vec![443, 8443]);
        for tags in 0..=2 {
            assert!(passes(&filter, &frame(tags, 443)) && passes(&filter, &frame(tags, 8443)), "{tags}");
            assert!(!passes(&filter, &frame(tags, 80)), "{tags}");
        }
    }

    /// An Ethernet frame with `tags` VLAN tags and an IPv6 packet that begins with this header, and what is behind it.
    fn frame6(tags: usize, next: u8, behind: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0, 7].repeat(tags));
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 28, next, 64]);
        frame.extend([0x20; 32]);
        frame.extend([behind, 0, 1, 4, 0, 0, 0, 0]);
        frame.extend([0; 20]);
        frame
    }

    #[test]
    fn ipv6_packets_with_extension_headers_are_let_through() {
        let filter = Filter::new(None, vec![443]);
        for tags in 0..=2 {
            for header in EXTENSION_HEADERS {
                assert!(passes(&filter, &frame6(tags, header, 6)), "{tags} {header}");
            }
            // TCP and UDP to other ports, ICMPv6; ICMPv6 behind hop-by-hop options.
            assert!([6, 17, 58].iter().all(|next| !passes(&filter, &frame6(tags, *next, 0))), "{tags}");
            assert!(!passes(&filter, &frame6(tags, 0, 58)), "{tags}");
        }
    }

    #[test]
    fn packets_in_which_others_may_be_are_let_through() {
        let filter = Filter::new(None, vec![443]);
        for tags in 0..=2 {
            let with = |ethertype: u16| {
                let mut frame = frame(tags, 80);
                frame[12 + 4 * tags..14 + 4 * tags].copy_from_slice(&ethertype.to_be_bytes());
                frame
            };
            assert!(ETHERTYPES.iter().all(|ethertype| passes(&filter, &with(*ethertype))), "{tags}");
            assert!([0x0806, 0x88cc].iter().all(|ethertype| !passes(&filter, &with(*ethertype))), "{tags}");
            let carrying = |protocol: u8, port: u16| {
                let mut frame = frame(tags, port);
                frame[14 + 4 * tags + 9] = protocol;
                frame
            };
            assert!(PROTOCOLS.iter().all(|protocol| passes(&filter, &carrying(*protocol, 80))), "{tags}");
            assert!(TUNNELS.iter().all(|port| passes(&filter, &carrying(17, *port))), "{tags}");
            assert!(!passes(&filter, &carrying(17, 53)) && !passes(&filter, &carrying(50, 80)), "{tags}");
        }
    }

    #[test]
    fn a_users_filter_is_joined_with_the_ports() {
        let filter = Filter::new(Some("ip or ip6".into()), vec![443]);
        assert!(passes(&filter, &frame(0, 443)) && !passes(&filter, &frame(0, 80)));
        assert_eq!(Filter::new(Some("udp".into()), vec![]).texts(), ["udp"]);
        assert_eq!(Filter::new(None, vec![]).texts(), [""]);
    }

    #[test]
    fn a_linktype_without_tags_is_filtered_without() {
        // DLT_RAW of Linux: IP packets without a link layer.
        let capture = Capture::dead(Linktype(12)).expect("a capture");
        assert_eq!(Filter::new(None, vec![443]).check(&capture), Ok(()));
        assert!(Filter::new(Some("tcp prot 443".into()), vec![]).check(&capture).is_err_and(|e| e.contains("syntax")));
    }
}
