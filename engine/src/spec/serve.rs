//! The section `serve`: what the web service shows, and what may be asked of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pipeline::humantime_duration;
use super::{Diagnostic, Located, Tree, Value, options};

/// The `serve` section as written.
#[derive(Clone, Debug)]
pub struct ServeSpec {
    /// Address and port of the web service.
    pub listen: Located<String>,
    /// Names by which the web service is asked for, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The most rows that a table keeps in memory.
    pub hot_rows: usize,
    /// What queries may use.
    pub queries: QueryLimits,
    /// Table name to node, or node and port.
    pub tables: Vec<(Located<String>, Located<String>)>,
}

/// What queries over HTTP may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Processes that run queries, one at a time each.
    pub processes: usize,
    /// Bytes that each of them may allocate.
    pub memory: u64,
    /// How long a query may run.
    pub timeout: Duration,
}

/// What is served over HTTP.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub(super) struct Serve {
    /// Address and port of the web service. Default 127.0.0.1:8080.
    #[serde(default = "default_listen")]
    listen: Option<Located<String>>,
    /// Names by which the web service is asked for, such as behind a proxy. Addresses and `localhost` always work; any
    /// other name is refused, because a page of another site could have it resolve to this address. Default none.
    #[serde(default)]
    hosts: Vec<String>,
    /// The most rows that a table keeps in memory. Default 200000.
    #[serde(default = "default_hot_rows")]
    hot_rows: usize,
    /// Processes that run queries, one at a time each. Whatever a query does, the run goes on. From 1 to 16; default 2.
    #[serde(default = "default_query_processes")]
    query_processes: usize,
    /// Memory that each of them may allocate; what a query needs more ends the query. At least 256MiB; default 1GiB.
    #[serde(default = "default_query_memory", deserialize_with = "super::spool::size")]
    #[schemars(with = "String")]
    query_memory: u64,
    /// How long a query may run before it is stopped. Default 10s.
    #[serde(default = "default_query_timeout", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    query_timeout: Duration,
    /// Table name to node, or node and port: `requests: labelled`, `late: correlated.late`.
    tables: BTreeMap<String, Located<String>>,
}

fn default_listen() -> Option<Located<String>> {
    None
}

fn default_query_processes() -> usize {
    2
}

fn default_query_memory() -> u64 {
    1 << 30
}

fn default_query_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_hot_rows() -> usize {
    200_000
}

/// Reads the section.
pub(super) fn read(tree: &Tree, problems: &mut Vec<Diagnostic>) -> Option<ServeSpec> {
    let several = |(_, of): &&(Located<String>, Tree)| matches!(of.value, Value::List(_));
    if let Some((name, of)) = tree.get("tables").and_then(Tree::entries).and_then(|tables| tables.iter().find(several))
    {
        let fault = Diagnostic::new(of.span, format!("the table `{}` shows the rows of one node", name.value));
        problems.push(fault.help("put those of several together before: { kind: filter, from: [a, b], where: true }"));
        return None;
    }
    let serve: Serve = options::read(tree, problems)?;
    let queries = query_limits(&serve, tree, problems);
    let listen = serve.listen.unwrap_or_else(|| Located::new("127.0.0.1:8080".to_owned(), tree.span));
    // The order as written; the map behind `Serve` has sorted the names.
    let written = tree.get("tables").and_then(Tree::entries).unwrap_or_default();
    let tables =
        written.iter().filter_map(|(name, _)| Some((name.clone(), serve.tables.get(&name.value)?.clone()))).collect();
    Some(ServeSpec { listen, hosts: serve.hosts, hot_rows: serve.hot_rows, queries, tables })
}

fn query_limits(serve: &Serve, tree: &Tree, problems: &mut Vec<Diagnostic>) -> QueryLimits {
    let mut fault = |option: &str, text: &str| {
        let at = tree.get(option).map_or(tree.span, |value| value.span);
        problems.push(Diagnostic::new(at, text.to_owned()));
    };
    if !(1..=16).contains(&serve.query_processes) {
        fault("query_processes", "`query_processes` is from 1 to 16");
    }
    if serve.query_memory < 256 << 20 {
        fault("query_memory", "`query_memory` is at least 256MiB");
    }
    if serve.query_timeout.is_zero() || serve.query_timeout > Duration::from_secs(3600) {
        fault("query_timeout", "`query_timeout` is more than 0 and at most 1h");
    }
    QueryLimits { processes: serve.query_processes, memory: serve.query_memory, timeout: serve.query_timeout }
}
