//! Whom a rule is for. Addresses come from the network by way of tables: what is none, or is one of ours, becomes no rule.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// The fewest bits of a network of IPv4, and of IPv6: a wider one is the internet's rather than a client's.
const FEWEST_BITS: (u8, u8) = (16, 32);

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entity {
    /// Its address or network; `None` for every address.
    pub network: Option<IpNet>,
    /// Its JA4; `None` for every one.
    pub ja4: Option<String>,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.network, &self.ja4) {
            (Some(network), None) => f.write_str(&written(network)),
            (Some(network), Some(ja4)) => write!(f, "{} with {ja4}", written(network)),
            (None, ja4) => f.write_str(ja4.as_deref().unwrap_or_default()),
        }
    }
}

/// A network as text: an address alone without its bits.
pub fn written(network: &IpNet) -> String {
    match is_single(network) {
        true => network.addr().to_string(),
        false => network.to_string(),
    }
}

/// Whether it is one address.
pub fn is_single(network: &IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}

/// Reads an address or a network of a row.
///
/// # Errors
/// If it is neither.
pub fn network(text: &str) -> Result<IpNet, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = text.parse().map_err(|_| "no address or network")?;
    // A network of IPv4 within IPv6 would be no network of the clients that come by IPv4.
    match network {
        IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => Err("a network of IPv4 written as IPv6"),
        network => Ok(network.trunc()),
    }
}

/// Reads a JA4 of a row: three parts of letters and digits.
///
/// # Errors
/// If it is none.
pub fn ja4(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split('_').collect();
    let is_hex = |part: &str| part.len() == 12 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match parts[..] {
        [head, ciphers, extensions]
            if head.len() == 10
                && head.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && is_hex(ciphers)
                && is_hex(extensions) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("no JA4"),
    }
}

/// What must not become a rule.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Let private addresses pass.
    pub allow_private: bool,
    /// Addresses that are ours, such as of this machine and of the servers.
    pub own: Vec<IpNet>,
}

impl Guard {
    /// Why a network must not become a rule, if there is a reason.
    pub fn refuses(&self, network: &IpNet) -> Option<&'static str> {
        let fewest = if matches!(network, IpNet::V4(_)) { FEWEST_BITS.0 } else { FEWEST_BITS.1 };
        if network.prefix_len() < fewest {
            return Some("a network that is too wide (IPv4 /16 and IPv6 /32 are the widest)");
        }
        if self.own.iter().any(|own| overlap(own, network)) {
            return Some("an address of this machine or its servers");
        }
        if self.allow_private {
            return None;
        }
        let is_in = |reserved: &str| reserved.parse::<IpNet>().is_ok_and(|reserved| overlap(&reserved, network));
        RESERVED.iter().any(|(reserved, _)| is_in(reserved)).then_some("a private, local or reserved address")
    }
}

/// Whether an address is in both.
fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Addresses that no client of the internet has. Those for documentation (RFC 5737, RFC 3849) are not among them: recordings use them.
const RESERVED: [(&str, &str); 14] = [
    ("0.0.0.0/8", "RFC 791"),
    ("10.0.0.0/8", "RFC 1918"),
    ("100.64.0.0/10", "RFC 6598"),
    ("127.0.0.0/8", "RFC 1122"),
    ("169.254.0.0/16", "RFC 3927"),
    ("172.16.0.0/12", "RFC 1918"),
    ("192.168.0.0/16", "RFC 1918"),
    ("224.0.0.0/4", "RFC 5771"),
    ("240.0.0.0/4", "RFC 1112"),
    ("::/128", "RFC 4291"),
    ("::1/128", "RFC 4291"),
    ("fc00::/7", "RFC 4193"),
    ("fe80::/10", "RFC 4291"),
    ("ff00::/8", "RFC 4291"),
];

/// The addresses of this machine, as Linux says; none elsewhere.
pub fn local_addresses() -> Vec<IpNet> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut all: Vec<IpNet> = fib_trie(&v4).chain(if_inet6(&v6)).map(IpNet::from).collect();
    all.sort();
    all.dedup();
    all
}

/// Addresses that stand before `/32 host LOCAL`.
fn fib_trie(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let mut last = None;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        match line.strip_prefix("|-- ") {
            Some(address) => {
                last = address.parse::<IpAddr>().ok();
                None
            }
            None => last.filter(|_| line == "/32 host LOCAL"),
        }
    })
}

/// The first word of each line is an address without colons.
fn if_inet6(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let digits = |line: &str| u128::from_str_radix(line.split(' ').next()?, 16).ok();
    text.lines().filter_map(digits).map(|number| IpAddr::V6(number.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_read_or_refused() {
        let read = |text| network(text).map(|network| written(&network));
        assert_eq!(read("203.0.113.9"), Ok("203.0.113.9".to_owned()));
        assert_eq!(read("::ffff:203.0.113.9"), Ok("203.0.113.9".to_owned()));
        assert_eq!(read("203.0.113.9/24"), Ok("203.0.113.0/24".to_owned()));
        assert_eq!(read("2001:DB8::/64"), Ok("2001:db8::/64".to_owned()));
        for wrong in
            ["", "a", "203.0.113.9/33", "203.0.113.9; deny all", "203.0.113.9\n", "::ffff:203.0.113.0/120", "1.2.3"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fingerprints_are_read_or_refused() {
        assert!(ja4("t13d1516h2_8daaf6152771_b186095e22b6").is_ok());
        for wrong in [
            "",
            "t13d1516h2",
            "t13d1516h2_8daaf6152771_b186095e22b6\"",
            "t13d1516h2_8daaf6152771_b186095e22b",
            "t_\n_x",
        ] {
            assert!(ja4(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_ours_is_refused() {
        let guard = Guard { allow_private: false, own: vec!["198.51.100.7/32".parse().expect("a network")] };
        let refused = |text: &str| guard.refuses(&network(text).expect("a network"));
        for text in [
            "10.1.2.3",
            "127.0.0.1",
            "192.168.0.0/24",
            "::1",
            "fe80::1",
            "fd00::/64",
            "198.51.100.7",
            "198.51.100.0/24",
        ] {
            assert!(refused(text).is_some(), "{text}");
        }
        for text in ["198.51.100.8", "203.0.113.0/24", "2001:db8::1", "8.8.8.8"] {
            assert_eq!(refused(text), None, "{text}");
        }
        assert!(refused("8.0.0.0/15").is_some_and(|reason| reason.contains("wide")));
        let open = Guard { allow_private: true, ..guard.clone() };
        assert_eq!(open.refuses(&network("10.1.2.3").expect("a network")), None);
        assert!(open.refuses(&network("0.0.0.0/0").expect("a network")).is_some(), "never everybody");
        for (reserved, _) in RESERVED {
            assert!(reserved.parse::<IpNet>().is_ok(), "{reserved}");
        }
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 192.0.2.9\n        /32 host LOCAL\n";
        assert_eq!(fib_trie(text).map(|address| address.to_string()).collect::<Vec<_>>(), ["192.0.2.9"]);
        let text = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert_eq!(if_inet6(text).map(|address| address.to_string()).collect::<Vec<_>>(), ["2001:db8::1"]);
    }
}
