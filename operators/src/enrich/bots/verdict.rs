//! What the lists together say of a request.

use super::agents::Pattern;
use super::crawlers::{Crawler, Crawlers};

/// What the lists say of an address.
pub(super) struct Address<'a> {
    /// The name of its network.
    pub name: Option<&'a str>,
    /// The crawlers that publish it, the most specific first.
    pub crawlers: &'a [Crawler],
}

/// What the lists say of a User-Agent.
pub(super) struct Agent<'a> {
    /// The pattern that it matches.
    pub pattern: Option<&'a Pattern>,
    /// The crawlers that it names.
    pub names: Vec<Crawler>,
}

/// What is said of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict<'a> {
    pub ip: Option<&'a str>,
    pub ja4: Option<&'a str>,
    pub agent: Option<&'a str>,
    pub tags: Option<&'a str>,
    pub crawler: Option<&'a str>,
    pub verified: Option<bool>,
    pub name: Option<&'a str>,
}

impl<'a> Verdict<'a> {
    /// Of a request with this address, JA4 and User-Agent, as far as they are known.
    pub fn new(
        address: Option<&Address<'a>>,
        ja4: Option<&'a str>,
        agent: Option<&Agent<'a>>,
        crawlers: Option<&'a Crawlers>,
    ) -> Self {
        let pattern = agent.and_then(|agent| agent.pattern);
        let published = address.map_or(&[] as &[Crawler], |address| address.crawlers);
        let named = agent.map_or(&[] as &[Crawler], |agent| agent.names.as_slice());
        let both = published.iter().copied().find(|crawler| named.contains(crawler));
        // Without an address, or without a crawler's name, there is nothing to compare.
        let verified = address.filter(|_| !named.is_empty()).map(|_| both.is_some());
        let crawler = both.or_else(|| published.first().copied());
        let mut verdict = Self {
            ip: address.and_then(|address| address.name),
            ja4,
            agent: pattern.map(|pattern| &*pattern.name),
            tags: pattern.and_then(|pattern| pattern.tags.as_deref()),
            crawler: crawlers.zip(crawler).and_then(|(crawlers, crawler)| crawlers.name(crawler)),
            verified,
            name: None,
        };
        verdict.name = verdict.best();
        verdict
    }

    /// The best name, by how hard it is to forge.
    fn best(&self) -> Option<&'a str> {
        match self.verified {
            Some(true) => self.crawler,
            // What an impostor says of itself is not its name.
            Some(false) => self.ip.or(self.ja4).or(self.crawler),
            None => self.ip.or(self.ja4).or(self.crawler).or(self.agent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"prefix,crawler,agent\n192.0.2.0/24,Example,ExampleBot\n192.0.2.0/25,Other,OtherBot\n";

    fn judge(
        names: (Option<&'static str>, Option<&'static str>),
        address: Option<&str>,
        agent: Option<&str>,
    ) -> Verdict<'static> {
        let crawlers: &'static Crawlers = Box::leak(Box::new(Crawlers::read(LIST).expect("valid")));
        let pattern: &'static Pattern =
            Box::leak(Box::new(Pattern { name: "ExampleBot".into(), tags: Some("seo".into()) }));
        let address =
            address.map(|text| Address { name: names.0, crawlers: crawlers.at(text.parse().expect("an address")) });
        let pattern = agent.filter(|agent| agent.contains("ExampleBot")).map(|_| pattern);
        let agent = agent.map(|agent| Agent { pattern, names: crawlers.named(agent) });
        Verdict::new(address.as_ref(), names.1, agent.as_ref(), Some(crawlers))
    }

    #[test]
    fn who_says_so_is_verified_by_its_own_list_only() {
        let of = |address, agent| {
            let verdict = judge((None, None), address, agent);
            (verdict.crawler, verdict.verified, verdict.name)
        };
        let bot = Some("ExampleBot/1.0");
        assert_eq!(of(Some("192.0.2.200"), bot), (Some("Example"), Some(true), Some("Example")));
        assert_eq!(of(Some("::ffff:192.0.2.200"), bot), (Some("Example"), Some(true), Some("Example")));
        // Of both crawlers; the one that it names counts.
        assert_eq!(of(Some("192.0.2.1"), bot), (Some("Example"), Some(true), Some("Example")));
        assert_eq!(of(Some("192.0.2.1"), Some("OtherBot")), (Some("Other"), Some(true), Some("Other")));
        assert_eq!(of(Some("192.0.2.1"), Some("curl")), (Some("Other"), None, Some("Other")));
        // Impostors: from nowhere, and from another crawler.
        assert_eq!(of(Some("198.51.100.1"), bot), (None, Some(false), None));
        assert_eq!(of(Some("192.0.2.200"), Some("OtherBot")), (Some("Example"), Some(false), Some("Example")));
        // Nothing to compare.
        assert_eq!(of(None, bot), (None, None, Some("ExampleBot")));
        assert_eq!(of(Some("192.0.2.200"), None), (Some("Example"), None, Some("Example")));
        assert_eq!(of(Some("198.51.100.1"), Some("")), (None, None, None));
    }

    #[test]
    fn the_name_is_what_is_hardest_to_forge() {
        let of = |names, address, agent| judge(names, Some(address), Some(agent)).name;
        assert_eq!(of((Some("ip"), Some("ja4")), "192.0.2.200", "ExampleBot"), Some("Example"));
        assert_eq!(of((Some("ip"), Some("ja4")), "198.51.100.1", "ExampleBot"), Some("ip"));
        assert_eq!(of((None, Some("ja4")), "198.51.100.1", "ExampleBot"), Some("ja4"));
        assert_eq!(of((None, Some("ja4")), "192.0.2.200", "curl"), Some("ja4"));
        assert_eq!(of((None, None), "198.51.100.1", "curl"), None);
        let verdict = Verdict::new(None, None, None, None);
        assert_eq!(verdict, Verdict::default());
    }
}
