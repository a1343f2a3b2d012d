//! Known bots: by address, fingerprint and User-Agent, and whether a crawler is the one that it says.

mod agents;
mod crawlers;
mod list;
mod named;
mod pattern;
mod verdict;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use engine::contract::{Inputs, Node, Operator, Parse, PlanContext, Port};
use engine::spec::Located;

use super::agent::cut;
use super::faults::Faults;
use super::inspect::About;
use super::lookup::{self, Distinct, Lookup};
use crate::source::optional_duration;
use agents::Agents;
use crawlers::Crawlers;
use named::{Fingerprints, Networks};
use verdict::{Address, Agent, Verdict};

/// See [`Operator::SUMMARY`].
pub struct Bots;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct BotsOptions {
    /// CSV with `prefix,bot_name`: networks or single addresses of bots. The most specific one that holds the address gives
    /// `bot_ip`. One of `networks`, `ja4`, `agents` and `crawlers` must be set, and all may be; what a list gives is null without
    /// it. Paths of lists are relative to the pipeline's file. A list with a bad row is refused, and the first five are named. A
    /// live run reads lists again when they change, as `enrich.asn` does: see its option `file`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    networks: Option<Located<PathBuf>>,
    /// CSV with `ja4,bot_name`: fingerprints of bots. It gives `bot_ja4`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    ja4: Option<Located<PathBuf>>,
    /// JSON as npm's crawler-user-agents: a list of objects with `pattern`, a regular expression, and perhaps `tags`, a list of
    /// texts; what else they have is not used. The first pattern of the list that is found in the User-Agent gives `bot_agent`
    /// and `bot_tags`. Case counts; `\d`, `\s` and `\w` are ASCII. At most 20,000 patterns of 256 bytes in 8 MiB, of which 1,000
    /// may be more than a text. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    agents: Option<Located<PathBuf>>,
    /// CSV with `prefix,crawler` and perhaps `agent` and `date`: networks that crawlers publish. It gives `bot_crawler` and, with the
    /// User-Agent, `bot_verified`. `agent` is a text that the User-Agent contains if it names this crawler, in upper or lower
    /// case. A crawler may have several, each in some row; one without any is named by `crawler`. A network may be of several
    /// crawlers. `date` is the day of the crawler's list, such as `2026-12-01`; the earliest is the date of the file. At most
    /// 1,000 crawlers, and texts of 3 to 64 bytes. `ja4-engine data fetch crawlers` makes the file. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    crawlers: Option<Located<PathBuf>>,
    /// Lists that are older are a trouble of the node, which `status` shows: see this option of `enrich.asn`. Default: none.
    #[serde(default, deserialize_with = "optional_duration")]
    #[schemars(with = "Option<String>")]
    max_age: Option<Duration>,
    /// The column with the address, for `networks` and `crawlers`. Default: `src_ip`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    address: Option<Located<String>>,
    /// The column with the JA4, for `ja4`. Default: `ja4`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    ja4_column: Option<Located<String>>,
    /// The column with the User-Agent, for `agents` and `crawlers`. Its first 512 bytes are looked at. Default:
    /// `header_user_agent`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    user_agent: Option<Located<String>>,
}

/// What is added, all nullable.
const ADDED: [(&str, DataType); 7] = [
    ("bot_ip", DataType::Utf8),
    ("bot_ja4", DataType::Utf8),
    ("bot_agent", DataType::Utf8),
    ("bot_tags", DataType::Utf8),
    ("bot_crawler", DataType::Utf8),
    ("bot_verified", DataType::Boolean),
    ("bot_name", DataType::Utf8),
];

impl Operator for Bots {
    type Options = BotsOptions;
    const KIND: &'static str = "enrich.bots";
    const SUMMARY: &'static str =
        "Names known bots by address, JA4 and User-Agent, and tells crawlers from those who pretend to be one.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "every row, with seven columns more" }];
    const NEEDS: &'static str = "as Utf8, `src_ip`, `ja4` and `header_user_agent`, or what options name instead; only those for which there is a list";
    const GIVES: &'static str = "the columns of the input; `bot_ip`, `bot_ja4` and `bot_agent`, the bot's name by each list; \
        `bot_tags`, with commas; `bot_crawler`, who publishes the address; `bot_verified` (Boolean): true if a crawler that the \
        User-Agent names publishes the address, false if none of them does (an impostor), null if it names none; `bot_name`, the \
        first that there is: `bot_crawler` if verified, `bot_ip`, `bot_ja4`, `bot_crawler`, and `bot_agent` unless of an impostor";

    fn plan(options: BotsOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let BotsOptions { networks, ja4, agents, crawlers, max_age, address, ja4_column, user_agent } = options;
        let mut column = |is_needed: bool, named: Option<Located<String>>, default: &str, what: &str| {
            // The outer option says whether nothing is wrong, the inner one whether there is a column.
            if !is_needed && named.is_none() {
                return Some(None);
            }
            lookup::text_column(named, default, what, context).map(Some)
        };
        let address = column(networks.is_some() || crawlers.is_some(), address, "src_ip", "an address");
        let fingerprint = column(ja4.is_some(), ja4_column, "ja4", "a JA4");
        let agent = column(agents.is_some() || crawlers.is_some(), user_agent, "header_user_agent", "a User-Agent");
        let given: [(Option<Located<PathBuf>>, Parse<List>); 4] = [
            (networks, |content| list(Networks::read(content), List::Networks)),
            (ja4, |content| list(Fingerprints::read(content), List::Fingerprints)),
            (agents, |content| list(Agents::read(content), List::Agents)),
            (crawlers, |content| list(Crawlers::read(content), List::Crawlers)),
        ];
        let sources: Vec<_> = given.into_iter().filter_map(|(file, parse)| Some((file?, parse))).collect();
        let mut complete = true;
        if sources.is_empty() {
            context.error(context.span, "it needs a list: `networks`, `ja4`, `agents` or `crawlers`");
            complete = false;
        }
        for (nth, (file, _)) in sources.iter().enumerate() {
            // Versions are kept by path: one file cannot be read in two ways.
            if sources[..nth].iter().any(|(other, _)| other.value == file.value) {
                context.error(file.span, "another list of this node is in the same file");
                complete = false;
            }
        }
        let added = ADDED.map(|(name, data_type)| Field::new(name, data_type, true));
        let columns =
            address.zip(fingerprint).zip(agent).map(|((address, ja4), agent)| Columns { address, ja4, agent });
        let node = lookup::plan(columns.unwrap_or_default(), &added, (sources, max_age), context);
        node.filter(|_| complete && columns.is_some())
    }
}

/// A list, as one of the files has it.
enum List {
    Networks(Networks),
    Fingerprints(Fingerprints),
    Agents(Agents),
    Crawlers(Crawlers),
}

fn list<T>(read: Result<T, Faults>, list: impl FnOnce(T) -> List) -> Result<List, String> {
    read.map(list).map_err(|faults| faults.text())
}

/// Indices of the columns that are looked at.
#[derive(Clone, Copy, Default)]
struct Columns {
    address: Option<usize>,
    ja4: Option<usize>,
    agent: Option<usize>,
}

/// The lists that there are.
#[derive(Default)]
struct Lists<'a> {
    networks: Option<&'a Networks>,
    fingerprints: Option<&'a Fingerprints>,
    agents: Option<&'a Agents>,
    crawlers: Option<&'a Crawlers>,
}

impl<'a> Lists<'a> {
    fn new(parts: &'a [Arc<List>]) -> Self {
        let mut lists = Self::default();
        for part in parts {
            match &**part {
                List::Networks(list) => lists.networks = Some(list),
                List::Fingerprints(list) => lists.fingerprints = Some(list),
                List::Agents(list) => lists.agents = Some(list),
                List::Crawlers(list) => lists.crawlers = Some(list),
            }
        }
        lists
    }

    /// `None` if the text is no address.
    fn address(&self, text: &str) -> Option<Address<'a>> {
        let address: IpAddr = text.parse().ok()?;
        let crawlers = self.crawlers.map_or(Default::default(), |list| list.at(address));
        Some(Address { name: self.networks.and_then(|list| list.get(address)), crawlers })
    }

    fn agent(&self, text: &str) -> Agent<'a> {
        let text = cut(text);
        let names = self.crawlers.map(|list| list.named(text)).unwrap_or_default();
        Agent { pattern: self.agents.and_then(|list| list.find(text)), names }
    }
}

impl Lookup for Columns {
    type Part = List;

    fn label(&self, rows: &RecordBatch, parts: &[Arc<List>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let lists = Lists::new(parts);
        let texts = |at: Option<usize>| at.map(|at| rows.column(at).as_string::<i32>());
        let addresses = texts(self.address).map(|texts| Distinct::new(texts, |text| lists.address(text)));
        let fingerprints = texts(self.ja4)
            .map(|texts| Distinct::new(texts, |text| lists.fingerprints.and_then(|list| list.get(text))));
        let agents = texts(self.agent).map(|texts| Distinct::new(texts, |text| lists.agent(text)));
        let verdicts: Vec<Verdict<'_>> = (0..rows.num_rows())
            .map(|row| {
                let address = addresses.as_ref().and_then(|found| found.get(row)).and_then(Option::as_ref);
                let ja4 = fingerprints.as_ref().and_then(|found| found.get(row)).copied().flatten();
                let agent = agents.as_ref().and_then(|found| found.get(row));
                Verdict::new(address, ja4, agent, lists.crawlers)
            })
            .collect();
        let column = |text: for<'v> fn(&Verdict<'v>) -> Option<&'v str>| -> ArrayRef {
            Arc::new(verdicts.iter().map(text).collect::<StringArray>())
        };
        Ok(vec![
            column(|verdict| verdict.ip),
            column(|verdict| verdict.ja4),
            column(|verdict| verdict.agent),
            column(|verdict| verdict.tags),
            column(|verdict| verdict.crawler),
            Arc::new(verdicts.iter().map(|verdict| verdict.verified).collect::<BooleanArray>()),
            column(|verdict| verdict.name),
        ])
    }

    fn made(list: &List) -> Option<SystemTime> {
        match list {
            List::Crawlers(crawlers) => crawlers.made(),
            _ => None,
        }
    }
}

/// What lists the content of a file is read as.
pub(super) fn inspect(content: &[u8], column: &str) -> Result<About, String> {
    let (list, what) = match column {
        "networks" => (list(Networks::read(content), List::Networks)?, "networks of bots"),
        "ja4" => (list(Fingerprints::read(content), List::Fingerprints)?, "JA4 of bots"),
        "agents" => (list(Agents::read(content), List::Agents)?, "User-Agent patterns"),
        _ => (list(Crawlers::read(content), List::Crawlers)?, "networks of crawlers"),
    };
    let entries = match &list {
        List::Networks(list) => list.len(),
        List::Fingerprints(list) => list.len(),
        List::Agents(list) => list.len(),
        List::Crawlers(list) => list.len(),
    };
    Ok(About { what: what.to_owned(), entries, made: Columns::made(&list), note: None })
}

#[cfg(test)]
mod tests;
