//! What to say when packets come and no hello is found: nearly always a mirror port or a filter that is not what it was
//! taken for.

use std::fmt::Write as _;

use client_hello::Counters;
use engine::contract::{Seen, Sign};

/// Packets without a hello after which that is strange.
const MANY: u64 = 1000;

/// Tunnels that are looked into on request, by their counters and the option's value.
const OPTIONS: [(&str, &str); 5] = [
    ("undecoded_gre", "gre"),
    ("undecoded_vxlan", "vxlan"),
    ("undecoded_geneve", "geneve"),
    ("undecoded_tzsp", "tzsp"),
    ("undecoded_gtp", "gtp"),
];

/// Reasons that are named at most.
const REASONS: usize = 4;

/// What the counters of `tls.client_hello` say, which are those of its extractor.
pub(super) fn sign(seen: &Seen) -> Sign {
    let packets = seen.counter("packets_received");
    // Since the beginning: in a minute of a quiet site there may be one long download and no new connection.
    match seen.ever.get("hellos").copied().unwrap_or(0) {
        0 if packets >= MANY || seen.over && packets > 0 => Sign::Wrong(said(packets, seen.counters())),
        0 => Sign::Unclear,
        _ => Sign::Fine,
    }
}

/// Why there may be no hello; `None` if there is one, or no packet.
pub(crate) fn no_hello(counters: &Counters) -> Option<String> {
    let none = counters.hellos == 0 && counters.packets_received > 0;
    none.then(|| said(counters.packets_received, counters.iter().filter(|(_, count)| *count > 0)))
}

fn said<'c>(packets: u64, counters: impl Iterator<Item = (&'c str, u64)>) -> String {
    let mut met: Vec<(&str, u64)> = counters.filter(|(name, _)| *name != "packets_received").collect();
    met.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut text = format!("no ClientHello in {packets} packets");
    for (nth, (name, count)) in met.iter().take(REASONS).enumerate() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{} {name} {count}", if nth == 0 { ":" } else { "," });
    }
    let tunnels = OPTIONS.iter().filter(|(counter, _)| met.iter().any(|(name, _)| name == counter));
    let tunnels: Vec<&str> = tunnels.map(|(_, tunnel)| *tunnel).collect();
    if !tunnels.is_empty() {
        let _ = write!(text, "; look into tunnels with the option `tunnels`: {}", tunnels.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_reasons_are_named() {
        let mut counters = Counters { packets_received: 1000, non_ip: 3, non_tcp: 900, ..Counters::default() };
        counters.undecoded[0] = 1;
        let said = no_hello(&counters).expect("no hello");
        assert!(said.starts_with("no ClientHello in 1000 packets: non_tcp 900, non_ip 3, undecoded_"), "{said}");
        counters.hellos = 1;
        assert_eq!(no_hello(&counters), None);
        assert_eq!(no_hello(&Counters::default()), None);
    }

    #[test]
    fn a_download_without_a_new_connection_is_no_sign() {
        let named = [("packets_received", 5 * MANY)].into();
        let mut seen = Seen { named, ever: [("packets_received", 9 * MANY), ("hellos", 1)].into(), ..Seen::default() };
        assert_eq!(sign(&seen), Sign::Fine);
        seen.ever.remove("hellos");
        assert!(matches!(sign(&seen), Sign::Wrong(_)));
    }

    #[test]
    fn names_of_counters_are_right() {
        let counters = Counters::default();
        let known = |wanted: &str| counters.iter().any(|(name, _)| name == wanted);
        assert!(OPTIONS.iter().all(|(name, _)| known(name)) && known("packets_received") && known("hellos"));
    }
}
