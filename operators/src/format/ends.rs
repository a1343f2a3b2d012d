//! What follows from values without a column: addresses and ports from one value, as proxies write them, the host without its
//! port, and whether there was a cookie.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::cell::{Cell, Cells, address};
use super::schema::Format;
use super::text::transform;

/// Fills in addresses and ports from values that have both, the host, and whether a request had a cookie. `line` is the text
/// that cells stand in.
pub(super) fn fill(format: &Format, cells: &mut Cells, line: &str) {
    for &(cell, [ip, port]) in &format.ends {
        if cells.values[ip] != Cell::Missing {
            continue;
        }
        let Some((address, number)) = cells.beside.text(cells.values[cell], line).and_then(split) else { continue };
        // It is an address, which such a column takes.
        let _ = cells.at(ip).text(&address.to_string(), None);
        if let Some(number) = number {
            cells.values[port] = Cell::Unsigned(number.into());
        }
    }
    if let Some((cell, column)) = format.authority
        && cells.values[column] == Cell::Missing
        && let Some(host) = cells.beside.text(cells.values[cell], line).and_then(transform::host)
    {
        match host {
            // The beginning of the value.
            Cow::Borrowed(host) => cells.values[column] = cells.values[cell].part((0, host.len())),
            Cow::Owned(host) => {
                // It is text, which such a column takes.
                let _ = cells.at(column).text(&host, None);
            }
        }
    }
    if let Some((cell, column)) = format.cookie {
        let is_there = cells.values[cell] != Cell::Missing;
        // Without any header nothing is known of this one: servers can be told to log none.
        let has_headers = || {
            let columns = format.columns.iter().zip(&cells.values);
            columns.filter(|(column, _)| column.name.starts_with("header_")).any(|(_, cell)| *cell != Cell::Missing)
        };
        if cells.values[column] == Cell::Missing && (is_there || has_headers()) {
            cells.values[column] = Cell::Bool(is_there);
        }
    }
}

/// An address and its port: `192.0.2.1:443`, `[2001:db8::1]:443`, or without a port. IPv6 needs brackets to have one.
fn split(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let text = text.trim_ascii();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip, None));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some((socket.ip(), Some(socket.port())));
    }
    // With a zone that has a name.
    match text.rsplit_once(':') {
        Some((ip, port)) if ip.ends_with(']') => Some((address(ip)?, Some(port.parse().ok()?))),
        _ => Some((address(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn addresses_come_with_and_without_ports_brackets_and_zones() {
        for (text, expected) in [
            ("192.0.2.1:443", Some(("192.0.2.1", Some(443)))),
            ("192.0.2.1", Some(("192.0.2.1", None))),
            ("[2001:db8::1]:443", Some(("2001:db8::1", Some(443)))),
            ("[2001:db8::1]", Some(("2001:db8::1", None))),
            ("2001:db8::1", Some(("2001:db8::1", None))),
            ("[fe80::1%eth0]:5", Some(("fe80::1", Some(5)))),
            ("[fe80::1%3]:5", Some(("fe80::1", Some(5)))),
            ("192.0.2.1:65536", None),
            ("192.0.2.1:", None),
            ("[2001:db8::1]:x", None),
            ("example.test:443", None),
            ("/run/a.socket", None),
            ("@", None),
            ("", None),
        ] {
            let expected = expected.map(|(ip, port)| (ip.parse::<IpAddr>().expect("an address"), port));
            assert_eq!(split(text), expected, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]

        #[test]
        fn what_the_standard_library_writes_comes_back(v4 in any::<u32>(), v6 in any::<u128>(), port in any::<u16>()) {
            for ip in [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))] {
                prop_assert_eq!(split(&SocketAddr::new(ip, port).to_string()), Some((ip, Some(port))));
                prop_assert_eq!(split(&ip.to_string()), Some((ip, None)));
            }
        }

        #[test]
        fn any_text_is_an_address_or_not(text in "(?s).{0,40}") {
            let _ = split(&text);
        }
    }
}
