//! What to say when packets come and no hello is found: nearly always a mirror port or a filter that is not what it was
//! taken for.

use std::fmt::Write as _;

use client_hello::Counters;

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

/// Says it once, as soon as there are many packets.
#[derive(Debug, Default)]
pub(crate) struct Hint {
    said: bool,
}

impl Hint {
    /// The hint, if it is time for it.
    pub(crate) fn due(&mut self, counters: &Counters) -> Option<String> {
        if self.said || counters.packets_received < MANY {
            return None;
        }
        self.said = true;
        no_hello(counters)
    }
}

/// Why there may be no hello; `None` if there is one, or no packet.
pub(crate) fn no_hello(counters: &Counters) -> Option<String> {
    if counters.hellos > 0 || counters.packets_received == 0 {
        return None;
    }
    let mut met: Vec<(&str, u64)> =
        counters.iter().filter(|(name, count)| *count > 0 && *name != "packets_received").collect();
    met.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut text = format!("no ClientHello in {} packets", counters.packets_received);
    for (nth, (name, count)) in met.iter().take(REASONS).enumerate() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{} {name} {count}", if nth == 0 { ":" } else { "," });
    }
    let tunnels = OPTIONS.iter().filter(|(counter, _)| met.iter().any(|(name, _)| name == counter));
    let tunnels: Vec<&str> = tunnels.map(|(_, tunnel)| *tunnel).collect();
    if !tunnels.is_empty() {
        let _ = write!(text, "; look into tunnels with the option `tunnels`: {}", tunnels.join(", "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_reasons_are_named_once() {
        let mut counters = Counters { packets_received: 999, non_ip: 3, non_tcp: 900, ..Counters::default() };
        let mut hint = Hint::default();
        assert_eq!(hint.due(&counters), None);
        counters.packets_received = 1000;
        assert_eq!(hint.due(&counters).as_deref(), Some("no ClientHello in 1000 packets: non_tcp 900, non_ip 3"));
        assert_eq!(hint.due(&counters), None);
        counters.hellos = 1;
        assert_eq!(Hint::default().due(&counters), None);
    }

    #[test]
    fn names_of_counters_are_right() {
        let counters = Counters::default();
        assert!(OPTIONS.iter().all(|(name, _)| counters.iter().any(|(other, _)| other == *name)));
    }
}
