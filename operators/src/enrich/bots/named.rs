//! Lists that give names to networks and to fingerprints.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::enrich::csv::{self, Known};
use crate::enrich::faults::Faults;
use crate::enrich::ranges::Ranges;

/// Names, each once.
#[derive(Default)]
struct Names {
    names: Vec<Box<str>>,
    known: HashMap<Box<str>, u32, ahash::RandomState>,
}

impl Names {
    fn add(&mut self, name: &str) -> u32 {
        if let Some(at) = self.known.get(name) {
            return *at;
        }
        let at = self.names.len() as u32;
        self.names.push(name.into());
        self.known.insert(name.into(), at);
        at
    }
}

/// The names of networks.
pub(super) struct Networks {
    ranges: Ranges,
    names: Vec<Box<str>>,
    count: usize,
}

impl Networks {
    /// Reads CSV with `prefix` and `bot_name`.
    ///
    /// # Errors
    /// The first bad rows.
    pub fn read(content: &[u8]) -> Result<Self, Faults> {
        let (mut names, mut networks) = (Names::default(), Known::default());
        csv::read(content, ["prefix", "bot_name"], 2, |line, [prefix, name]| {
            networks.add(csv::prefix(prefix)?, prefix, line, names.add(csv::name(name, "the bot's name")?))
        })?;
        let networks: Vec<(IpNet, u32)> = networks.into_pairs().collect();
        Ok(Self { ranges: Ranges::new(&networks), names: names.names, count: networks.len() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The name of the most specific network that holds an address.
    pub fn get(&self, address: IpAddr) -> Option<&str> {
        self.ranges.get(address).and_then(|at| self.names.get(at as usize)).map(AsRef::as_ref)
    }
}

/// The names of fingerprints.
pub(super) struct Fingerprints {
    name_of: HashMap<Box<str>, u32, ahash::RandomState>,
    names: Vec<Box<str>>,
}

impl Fingerprints {
    /// Reads CSV with `ja4` and `bot_name`.
    ///
    /// # Errors
    /// The first bad rows.
    pub fn read(content: &[u8]) -> Result<Self, Faults> {
        let (mut names, mut fingerprints) = (Names::default(), Known::default());
        csv::read(content, ["ja4", "bot_name"], 2, |line, [ja4, name]| {
            let key: Box<str> = csv::ja4(ja4)?.into();
            fingerprints.add(key, ja4, line, names.add(csv::name(name, "the bot's name")?))
        })?;
        Ok(Self { name_of: fingerprints.into_pairs().collect(), names: names.names })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.name_of.len()
    }

    /// The name of a JA4.
    pub fn get(&self, ja4: &str) -> Option<&str> {
        self.name_of.get(ja4).and_then(|at| self.names.get(*at as usize)).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

    #[test]
    fn the_most_specific_network_names_an_address() {
        let content = b"prefix,bot_name\n192.0.2.0/24,wide\n192.0.2.7,one\n2001:db8::/32,six\n192.0.2.0/24,wide\n";
        let networks = Networks::read(content).expect("valid");
        let of = |address: &str| networks.get(address.parse().expect("an address")).map(str::to_owned);
        assert_eq!((of("192.0.2.1").as_deref(), of("192.0.2.7").as_deref()), (Some("wide"), Some("one")));
        assert_eq!((of("::ffff:192.0.2.7").as_deref(), of("2001:db8::9").as_deref()), (Some("one"), Some("six")));
        assert_eq!((of("198.51.100.1"), of("::")), (None, None));
    }

    #[test]
    fn fingerprints_are_found_whole() {
        let content = format!("source,bot_name,ja4\nown,probe,{JA4}\n");
        let fingerprints = Fingerprints::read(content.as_bytes()).expect("valid");
        assert_eq!(
            (fingerprints.get(JA4), fingerprints.get(&JA4[..35]), fingerprints.get("")),
            (Some("probe"), None, None)
        );
    }

    #[test]
    fn bad_rows_are_named() {
        let shown = |result: Option<Faults>| result.map(|faults| faults.text()).unwrap_or_default();
        let content = "prefix,bot_name\n192.0.2.0/24,a\n192.0.2.1/24,a\n192.0.2.0/24,b\nx,a\n192.0.2.3,\n";
        let expected = [
            "3: `192.0.2.1/24` has bits behind its prefix; the network is 192.0.2.0/24",
            "4: `192.0.2.0/24` is given otherwise in line 2",
            "5: `x` is not a network",
            "6: the bot's name is empty",
        ];
        assert_eq!(shown(Networks::read(content.as_bytes()).err()).lines().collect::<Vec<_>>(), expected);
        let content = format!("ja4,bot_name\n{JA4},a\n{JA4},b\nt13,a\n{JA4}\n");
        let shown = shown(Fingerprints::read(content.as_bytes()).err());
        assert!(shown.contains("3: `t13d1516h2_8daaf6152771_e5627efa2ab1` is given otherwise in line 2"), "{shown}");
        assert!(shown.contains("4: `t13` is not a JA4") && shown.contains("5: the row has 1 fields"), "{shown}");
    }
}
