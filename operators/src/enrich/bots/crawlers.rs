//! Addresses that crawlers publish, and the User-Agents by which these crawlers name themselves.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aho_corasick::AhoCorasick;
use chrono::NaiveDate;
use ipnet::IpNet;

use crate::enrich::csv;
use crate::enrich::faults::Faults;
use crate::enrich::ranges::Ranges;

/// The most crawlers, and the most texts of all of them.
const MOST: usize = 1_000;

/// The most crawlers that one address may be of.
const MOST_SHARED: usize = 16;

/// The fewest and most bytes of a text that a User-Agent must contain.
const TEXT: (usize, usize) = (3, 64);

/// A network with fewer bits would verify a good part of the internet: a mistake, or worse.
const FEWEST_BITS: (u8, u8) = (8, 16);

/// A crawler, by its place in the file.
pub(super) type Crawler = u16;

/// The crawlers of networks, beginning with those of the most specific prefix.
type Sets = Vec<Box<[Crawler]>>;

/// Crawlers with their networks and texts.
pub(super) struct Crawlers {
    names: Vec<Box<str>>,
    ranges: Ranges,
    sets: Sets,
    texts: AhoCorasick,
    /// The crawler of each text.
    text_of: Vec<Crawler>,
    count: usize,
    /// The earliest day that a row has.
    day: Option<NaiveDate>,
}

impl Crawlers {
    /// Reads CSV with `prefix`, `crawler` and, if they are there, `agent` and `date`.
    ///
    /// # Errors
    /// The first bad rows.
    pub fn read(content: &[u8]) -> Result<Self, Faults> {
        let mut given = Given::default();
        csv::read(content, ["prefix", "crawler", "agent", "date"], 2, |line, row| given.add(line, row))?;
        let (ranges, sets) = given.sets()?;
        let (texts, text_of) = given.texts()?;
        let texts = AhoCorasick::builder().ascii_case_insensitive(true).build(texts);
        let texts = texts.map_err(|error| Faults::one(1, error.to_string()))?;
        let (count, day) = (given.networks.len(), given.day);
        let names = given.crawlers.into_iter().map(|crawler| crawler.name).collect();
        Ok(Self { names, ranges, sets, texts, text_of, count, day })
    }

    /// How many networks there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The begin of the earliest day of a crawler's list, if rows have one.
    pub fn made(&self) -> Option<SystemTime> {
        let seconds = self.day?.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?))
    }

    /// The name of a crawler.
    pub fn name(&self, crawler: Crawler) -> Option<&str> {
        self.names.get(usize::from(crawler)).map(AsRef::as_ref)
    }

    /// The crawlers that publish an address: those of the most specific prefix first.
    pub fn at(&self, address: IpAddr) -> &[Crawler] {
        let set = self.ranges.get(address).and_then(|at| self.sets.get(at as usize));
        set.map_or(&[], AsRef::as_ref)
    }

    /// The crawlers that a User-Agent names, in the order of the file.
    pub fn named(&self, agent: &str) -> Vec<Crawler> {
        let found = self.texts.find_overlapping_iter(agent);
        let named: BTreeSet<Crawler> =
            found.filter_map(|found| self.text_of.get(found.pattern().as_usize()).copied()).collect();
        named.into_iter().collect()
    }
}

/// A crawler of the file.
struct Named {
    name: Box<str>,
    /// Where it is named first.
    line: u64,
    texts: BTreeSet<Box<str>>,
}

/// The rows of the file.
#[derive(Default)]
struct Given {
    crawlers: Vec<Named>,
    by_name: HashMap<Box<str>, Crawler, ahash::RandomState>,
    /// The line that names a network first, and the crawlers of it.
    networks: HashMap<IpNet, (u64, Vec<Crawler>), ahash::RandomState>,
    /// How many texts there are.
    texts: usize,
    day: Option<NaiveDate>,
}

impl Given {
    fn add(&mut self, line: u64, [prefix, crawler, agent, date]: [&str; 4]) -> Result<(), String> {
        let network = csv::prefix(prefix)?;
        let fewest = if network.addr().is_ipv4() { FEWEST_BITS.0 } else { FEWEST_BITS.1 };
        if network.prefix_len() < fewest {
            return Err(format!("`{prefix}` is too wide: a crawler's network has at least {fewest} bits"));
        }
        let at = self.crawler(line, csv::name(crawler, "the crawler's name")?)?;
        if !agent.is_empty() {
            check(agent)?;
            let is_new = self.crawlers[usize::from(at)].texts.insert(agent.to_ascii_lowercase().into());
            self.texts += usize::from(is_new);
        }
        if self.texts > MOST {
            return Err(format!("the file has more than {MOST} different values of `agent`"));
        }
        if !date.is_empty() {
            let day = NaiveDate::parse_from_str(date, "%Y-%m-%d");
            let day = day.map_err(|_| format!("`{date}` is no day, such as 2026-12-01"))?;
            self.day = Some(self.day.map_or(day, |earliest| earliest.min(day)));
        }
        let (_, crawlers) = self.networks.entry(network).or_insert_with(|| (line, Vec::new()));
        if !crawlers.contains(&at) {
            crawlers.push(at);
        }
        if crawlers.len() > MOST_SHARED { Err(shared(network)) } else { Ok(()) }
    }

    fn crawler(&mut self, line: u64, name: &str) -> Result<Crawler, String> {
        if let Some(at) = self.by_name.get(name) {
            return Ok(*at);
        }
        if self.crawlers.len() == MOST {
            return Err(format!("the file has more than {MOST} crawlers"));
        }
        let at = self.crawlers.len() as Crawler;
        self.crawlers.push(Named { name: name.into(), line, texts: BTreeSet::new() });
        self.by_name.insert(name.into(), at);
        Ok(at)
    }

    /// The networks, each with its crawlers and those of all networks that hold it.
    fn sets(&self) -> Result<(Ranges, Sets), Faults> {
        let lengths: BTreeSet<u8> = self.networks.keys().map(IpNet::prefix_len).collect();
        let mut known: HashMap<Vec<Crawler>, u32, ahash::RandomState> = HashMap::default();
        let mut networks = Vec::with_capacity(self.networks.len());
        let mut given: Vec<(&IpNet, u64)> = self.networks.iter().map(|(network, (line, _))| (network, *line)).collect();
        given.sort_by_key(|(_, line)| *line);
        for (network, line) in given {
            let mut all: Vec<Crawler> = Vec::new();
            for length in lengths.range(..=network.prefix_len()).rev() {
                let holds = IpNet::new(network.addr(), *length).ok().and_then(|net| self.networks.get(&net.trunc()));
                let crawlers = holds.map_or(&[] as &[Crawler], |(_, crawlers)| crawlers);
                let new: Vec<Crawler> = crawlers.iter().copied().filter(|crawler| !all.contains(crawler)).collect();
                all.extend(new);
            }
            if all.len() > MOST_SHARED {
                return Err(Faults::one(line, shared(*network)));
            }
            let next = known.len() as u32;
            networks.push((*network, *known.entry(all).or_insert(next)));
        }
        let mut sets: Sets = vec![Box::default(); known.len()];
        for (set, at) in known {
            sets[at as usize] = set.into();
        }
        Ok((Ranges::new(&networks), sets))
    }

    /// The texts by which crawlers are named, and whose they are: a crawler without one is named by its name.
    fn texts(&self) -> Result<(Vec<&str>, Vec<Crawler>), Faults> {
        let (mut texts, mut text_of) = (Vec::new(), Vec::new());
        for (at, crawler) in self.crawlers.iter().enumerate() {
            if crawler.texts.is_empty() {
                check(&crawler.name).map_err(|reason| Faults::one(crawler.line, reason))?;
                texts.push(&*crawler.name);
            }
            texts.extend(crawler.texts.iter().map(AsRef::as_ref));
            text_of.resize(texts.len(), at as Crawler);
        }
        Ok((texts, text_of))
    }
}

/// Refuses what would be found in many User-Agents.
fn check(text: &str) -> Result<(), String> {
    let (fewest, most) = TEXT;
    if (fewest..=most).contains(&text.len()) {
        return Ok(());
    }
    Err(format!("`{text}` is looked for in User-Agents, so it must have {fewest} to {most} bytes: see `agent`"))
}

fn shared(network: IpNet) -> String {
    format!("{network} is of more than {MOST_SHARED} crawlers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crawlers(rows: &str) -> Crawlers {
        let read = Crawlers::read(format!("prefix,crawler,agent\n{rows}").as_bytes());
        read.unwrap_or_else(|faults| panic!("{}", faults.text()))
    }

    fn fault(content: &str) -> String {
        Crawlers::read(content.as_bytes()).err().map(|faults| faults.text()).unwrap_or_default()
    }

    fn names(crawlers: &Crawlers, of: &[Crawler]) -> Vec<String> {
        of.iter().filter_map(|crawler| crawlers.name(*crawler)).map(str::to_owned).collect()
    }

    #[test]
    fn an_address_is_of_every_crawler_whose_network_holds_it() {
        let list = crawlers(
            "192.0.2.0/24,wide,\n192.0.2.128/25,half,\n192.0.2.128/25,other,\n192.0.2.129,one,\n192.0.2.64/26,wide,\n2001:db8::/32,six,\n",
        );
        let at = |address: &str| names(&list, list.at(address.parse().expect("an address")));
        assert_eq!(at("192.0.2.1"), ["wide"]);
        assert_eq!(at("192.0.2.65"), ["wide"]);
        assert_eq!(at("192.0.2.130"), ["half", "other", "wide"]);
        assert_eq!(at("::ffff:192.0.2.129"), ["one", "half", "other", "wide"]);
        assert_eq!((at("2001:db8::1"), at("198.51.100.1").len()), (vec!["six".to_owned()], 0));
    }

    #[test]
    fn a_crawler_is_named_by_its_texts_or_its_name() {
        let list =
            crawlers("192.0.2.0/24,google,Googlebot\n192.0.2.0/25,google,GoogleOther\n198.51.100.0/24,ExampleBot,\n");
        let named = |agent: &str| names(&list, &list.named(agent));
        assert_eq!(named("Mozilla/5.0 (compatible; googleBOT/2.1)"), ["google"]);
        assert_eq!(named("GoogleOther, Googlebot; examplebot/1.0"), ["google", "ExampleBot"]);
        assert!(named("google").is_empty() && named("").is_empty() && named("\u{212a}").is_empty());
        let list = Crawlers::read(b"crawler,prefix\nExampleBot,192.0.2.0/24\n").expect("agent may be missing");
        assert_eq!(list.named("ExampleBot").len(), 1);
        assert!(Crawlers::read(b"crawler,prefix\n").is_ok_and(|list| list.named("x").is_empty()));
    }

    #[test]
    fn the_earliest_list_is_the_date_of_the_file() {
        let list = |rows: &str| Crawlers::read(format!("prefix,crawler,agent,date\n{rows}").as_bytes());
        let made = |rows: &str| list(rows).ok().and_then(|list| list.made());
        let day = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let rows = "192.0.2.0/24,bot,,2026-12-01\n192.0.3.0/24,other,,2026-11-30\n192.0.4.0/24,third,,\n";
        assert_eq!((made(rows), made("192.0.2.0/24,bot,,\n")), (day(1_795_996_800), None));
        assert!(list("192.0.2.0/24,bot,,yesterday\n").err().is_some_and(|faults| faults.text().contains("is no day")));
    }

    #[test]
    fn bad_rows_are_named() {
        let rows = "prefix,crawler,agent\n0.0.0.0/0,a,xxx\n2000::/3,a,xxx\n192.0.2.0/24,,xxx\n192.0.2.0/24,a,x\n";
        let shown = fault(rows);
        assert!(shown.contains("2: `0.0.0.0/0` is too wide: a crawler's network has at least 8 bits"), "{shown}");
        assert!(
            shown.contains("3: `2000::/3` is too wide") && shown.contains("4: the crawler's name is empty"),
            "{shown}"
        );
        assert!(shown.contains("5: `x` is looked for in User-Agents, so it must have 3 to 64 bytes"), "{shown}");
        assert!(fault("prefix,crawler\n\n192.0.2.0/24,ab\n").starts_with("3: `ab` is looked for"));
    }

    #[test]
    fn sizes_are_bounded() {
        let many = |count: usize, row: &dyn Fn(usize) -> String| {
            let rows: Vec<String> = (0..count).map(row).collect();
            fault(&format!("prefix,crawler,agent\n{}\n", rows.join("\n")))
        };
        assert!(
            many(1001, &|n| format!("10.0.{}.{},bot{n},", n / 250, n % 250))
                .contains("1002: the file has more than 1000 crawlers")
        );
        assert!(
            many(1001, &|n| format!("10.0.0.0/8,bot,agent{n}")).contains("more than 1000 different values of `agent`")
        );
        assert!(many(17, &|n| format!("10.0.0.0/8,bot{n},")).contains("18: 10.0.0.0/8 is of more than 16 crawlers"));
        assert!(many(17, &|n| format!("10.0.0.0/{},bot{n},", n + 8)).contains("is of more than 16 crawlers"));
    }
}
