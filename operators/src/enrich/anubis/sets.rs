//! Sets of rules, and for each address the set of those that have a network with it.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::enrich::ranges::Ranges;

/// Rules by their numbers, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules(Box<[u64]>);

impl Rules {
    /// None of so many rules.
    pub fn none(rules: usize) -> Self {
        Self(vec![0; rules.div_ceil(64)].into())
    }

    /// All of so many rules.
    pub fn all(rules: usize) -> Self {
        let mut all = Self::none(rules);
        (0..rules).for_each(|rule| all.insert(rule));
        all
    }

    /// Adds a rule.
    pub fn insert(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    /// Takes a rule away.
    pub fn remove(&mut self, rule: usize) {
        self.0[rule / 64] &= !(1 << (rule % 64));
    }

    /// Whether a rule is among them.
    #[cfg(test)]
    pub fn contains(&self, rule: usize) -> bool {
        self.0[rule / 64] >> (rule % 64) & 1 == 1
    }

    /// Sixty-four of them.
    pub fn word(&self, nth: usize) -> u64 {
        self.0[nth]
    }

    /// How many words there are.
    pub fn words(&self) -> usize {
        self.0.len()
    }
}

/// Different sets, each once; the first is of rules that do not ask.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    sets: Vec<Rules>,
    known: HashMap<Rules, u32>,
}

impl Sets {
    /// With the rules that do not ask.
    pub fn new(others: Rules) -> Self {
        Self { known: HashMap::from([(others.clone(), 0)]), sets: vec![others] }
    }

    /// The rules that do not ask.
    pub fn others(&self) -> &Rules {
        &self.sets[0]
    }

    /// The number of a set.
    pub fn number(&mut self, set: Rules) -> u32 {
        let next = self.sets.len() as u32;
        let number = *self.known.entry(set.clone()).or_insert(next);
        if number == next {
            self.sets.push(set);
        }
        number
    }

    /// The sets by their numbers.
    pub fn all(&self) -> &[Rules] {
        &self.sets
    }
}

/// Which rules have a network with an address. Each network stands for all rules that have it or one around it: of all networks
/// around an address the most specific one therefore says everything.
pub(super) fn by_address(mut networks: Vec<(IpNet, usize)>, sets: &mut Sets) -> Ranges {
    // A network stands before those inside it.
    networks.sort_by_key(|(network, _)| (network.network(), network.prefix_len()));
    let mut found: Vec<(IpNet, u32)> = Vec::with_capacity(networks.len());
    let mut around: Vec<(IpNet, Rules)> = Vec::new();
    for same in networks.chunk_by(|(a, _), (b, _)| a == b) {
        let network = same[0].0;
        while around.last().is_some_and(|(outer, _)| !outer.contains(&network)) {
            around.pop();
        }
        let mut rules = around.last().map_or_else(|| sets.others().clone(), |(_, rules)| rules.clone());
        same.iter().for_each(|(_, rule)| rules.insert(*rule));
        found.push((network, sets.number(rules.clone())));
        around.push((network, rules));
    }
    Ranges::new(&found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_rules_of_all_networks_around_it() {
        let network = |text: &str| text.parse::<IpNet>().expect("a network");
        // Rule 3 asks for no address.
        let mut others = Rules::none(70);
        others.insert(3);
        let networks = vec![
            (network("10.1.0.0/16"), 69),
            (network("10.0.0.0/8"), 0),
            (network("10.1.2.0/24"), 1),
            (network("10.1.2.0/24"), 2),
            (network("10.2.0.0/16"), 0),
            (network("192.0.2.0/24"), 1),
            (network("2001:db8::/32"), 69),
            (network("::/0"), 2),
        ];
        let mut sets = Sets::new(others);
        let ranges = by_address(networks, &mut sets);
        for (address, rules) in [
            ("10.1.2.3", vec![0, 1, 2, 3, 69]),
            ("10.1.3.3", vec![0, 3, 69]),
            ("10.2.0.1", vec![0, 3]),
            ("10.3.0.1", vec![0, 3]),
            ("192.0.2.9", vec![1, 3]),
            ("11.0.0.0", vec![3]),
            ("2001:db8::1", vec![2, 3, 69]),
            ("::ffff:10.2.0.1", vec![0, 3]),
            ("fe80::1", vec![2, 3]),
        ] {
            let set = &sets.all()[ranges.get(address.parse().expect("an address")).unwrap_or(0) as usize];
            assert_eq!((0..70).filter(|rule| set.contains(*rule)).collect::<Vec<_>>(), rules, "{address}");
        }
    }
}
