//! Policies that are made up, against rules that are asked one by one, without regexes, sets or SQL.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

const AGENTS: [&str; 4] = ["red", "green", "blue", "redgreen"];
const PATHS: [&str; 4] = ["/", "/a", "/a/b", "/c"];
const NETWORKS: [&str; 6] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "2001:db8::/32", "0.0.0.0/0"];
const ADDRESSES: [&str; 6] = ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.200.0.1", "192.0.2.1", "2001:db8::1"];
const COUNTRIES: [&str; 3] = ["br", "cn", "de"];

/// A rule: of each question the numbers of what fits, empty if it does not ask.
#[derive(Clone, Debug)]
struct Question {
    agent: Option<usize>,
    path: Option<usize>,
    networks: Vec<usize>,
    countries: Vec<usize>,
    asns: Vec<u32>,
    /// Decides, or weighs so much.
    weight: Option<i32>,
}

/// Numbers of an agent, a path, an address, a country, and an autonomous system.
type Numbers = (Option<usize>, usize, usize, Option<usize>, Option<u32>);

impl Question {
    /// As YAML. The path is asked for in an expression: a rule with a regex for it has none for the User-Agent.
    fn yaml(&self, nth: usize) -> String {
        let list = |of: &[&str], numbers: &[usize]| {
            numbers.iter().map(|number| format!("'{}'", of[*number])).collect::<Vec<_>>().join(", ")
        };
        let mut yaml = match self.weight {
            Some(weight) => format!("- name: r{nth}\n  action: WEIGH\n  weight: {{ adjust: {weight} }}\n"),
            None => format!("- name: r{nth}\n  action: DENY\n"),
        };
        if let Some(agent) = self.agent {
            yaml += &format!("  user_agent_regex: {}\n", AGENTS[agent]);
        }
        if let Some(path) = self.path {
            yaml += &format!("  expression: path.startsWith(\"{}\") && method == \"GET\"\n", PATHS[path]);
        }
        if !self.networks.is_empty() {
            yaml += &format!("  remote_addresses: [{}]\n", list(&NETWORKS, &self.networks));
        }
        if !self.countries.is_empty() {
            yaml += &format!("  geoip: {{ countries: [{}] }}\n", list(&COUNTRIES, &self.countries));
        }
        if !self.asns.is_empty() {
            yaml += &format!("  asns: {{ match: {:?} }}\n", self.asns);
        }
        yaml
    }

    fn matches(&self, (agent, path, address, country, asn): Numbers) -> bool {
        let address: IpAddr = ADDRESSES[address].parse().expect("an address");
        let within = |network: &usize| NETWORKS[*network].parse::<IpNet>().expect("a network").contains(&address);
        let agent = agent.map_or("", |agent| AGENTS[agent]);
        self.agent.is_none_or(|wanted| agent.contains(AGENTS[wanted]))
            && self.path.is_none_or(|wanted| PATHS[path].starts_with(PATHS[wanted]))
            && (self.networks.is_empty() || self.networks.iter().any(within))
            && (self.countries.is_empty() || country.is_some_and(|country| self.countries.contains(&country)))
            && (self.asns.is_empty() || asn.is_some_and(|asn| self.asns.contains(&asn)))
    }
}

fn question() -> impl Strategy<Value = Question> {
    let some = |most: usize| prop::option::weighted(0.4, 0..most);
    let few = |most: usize| prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(0..most, 1..3)];
    let asns = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(1u32..4, 1..3)];
    let weight = prop::option::weighted(0.7, -10i32..10);
    (some(AGENTS.len()), some(PATHS.len()), few(NETWORKS.len()), few(COUNTRIES.len()), asns, weight)
        .prop_map(|(agent, path, networks, countries, asns, weight)| Question {
            agent,
            path,
            networks,
            countries,
            asns,
            weight,
        })
        .prop_filter("a rule asks for something", |rule| {
            rule.agent.is_some()
                || rule.path.is_some()
                || !rule.networks.is_empty()
                || !rule.countries.is_empty()
                || !rule.asns.is_empty()
        })
}

fn request() -> impl Strategy<Value = Numbers> {
    let some = |most: usize| prop::option::weighted(0.9, 0..most);
    (
        some(AGENTS.len()),
        0..PATHS.len(),
        0..ADDRESSES.len(),
        some(COUNTRIES.len()),
        prop::option::weighted(0.9, 1u32..5),
    )
}

/// Name, action, id and weight, by asking one rule after the other.
fn expected(rules: &[Question], request: Numbers) -> String {
    let (mut weight, mut weighed) = (0, false);
    for (nth, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.matches(request)) {
        match rule.weight {
            Some(adjust) => (weight, weighed) = (weight + adjust, true),
            None => return format!("r{nth} DENY root {} {weight}", nth + 1),
        }
    }
    let action = match weight {
        _ if !weighed => "-",
        weight if weight > 0 => "CHALLENGE",
        _ => "ALLOW",
    };
    format!("- {action} - - {weight}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, rng_seed: proptest::test_runner::RngSeed::Fixed(9), ..ProptestConfig::default() })]

    #[test]
    fn a_policy_says_what_its_rules_say_one_by_one(
        rules in prop::collection::vec(question(), 1..150),
        requests in prop::collection::vec(request(), 1..200),
    ) {
        let yaml: String = rules.iter().enumerate().map(|(nth, rule)| rule.yaml(nth)).collect();
        let loaded = load(&[("p.yaml", &format!("bots:\n{yaml}"))], "", &[]).unwrap_or_else(|faults| panic!("{faults}"));
        let numbers: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        let rows: Vec<Vec<(&str, &str)>> = requests
            .iter()
            .map(|(agent, path, address, country, asn)| {
                let mut row = vec![("method", "GET"), ("path", PATHS[*path]), ("src_ip", ADDRESSES[*address])];
                row.extend(agent.map(|agent| ("header_user_agent", AGENTS[agent])));
                row.extend(country.map(|country| ("src_country_code", COUNTRIES[country])));
                row.extend(asn.map(|asn| ("src_asn", numbers[asn as usize].as_str())));
                row
            })
            .collect();
        let rows: Vec<Request<'_>> = rows.iter().map(Vec::as_slice).collect();
        for (labels, request) in loaded.labels(&rows).iter().zip(&requests) {
            prop_assert_eq!(labels.join(" "), expected(&rules, *request), "{:?}", request);
        }
    }
}
