//! A replay writes what the live run has written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use engine::contract::Inputs;
use engine::plan::{LoadOptions, Plan};
use engine::replay::{Of, Replay};
use engine::run::execute_with;
use engine::shared::Shared;
use engine::time::wall_clock_ns;
use serde_json::json;

use super::cases::LONG;
use super::files::{files, lines};
use super::node::same;
use super::sinks::net_of;
use super::sources::{sender, until};
use super::{MS, WORKERS};
use crate::replay::{load, run_with};

/// Every kind that works on requests, and a file for each of its ports.
const REQUESTS: &str = "name: live
data_dir: data
spool: { commit: 5ms }
nodes:
  - { id: hellos, kind: source.unix_socket, path: hellos, format: ja4sentinel, lateness: 2s, max_ahead: 6h }
  - { id: requests, kind: source.unix_socket, path: requests, format: reqin_log, lateness: 2s, max_ahead: 6h }
  - { id: pairs, kind: correlate, from: { hello: hellos, request: requests }, window: 5s, keepalive_ttl: 3s }
  - { id: numbers, kind: filter, from: pairs, where: cast(path as bigint) > 0 }
  - { id: more, kind: derive, from: requests, columns: [{ name: value, expr: cast(path as bigint) }] }
  - { id: known, kind: enrich.asn, from: pairs, file: RECORDED/asn.csv }
  - { id: rated, kind: enrich.reputation, from: known, file: LISTS/asn_reputation.csv }
  - { id: bots, kind: enrich.bots, from: rated, BOT_LISTS }
  - { id: browsers, kind: enrich.browser, from: bots, file: LISTS/browser_ja4.csv }
  - { id: policy, kind: enrich.anubis, from: browsers, policy: policy.yaml }
  - { id: scored, kind: detect.forest, from: policy, model: model.json }
  - { id: verdicts, kind: verdict, from: scored, scheme: [{ verdict: ODD, when: cast(path as bigint) > 0 }] }
  - { id: groups, kind: aggregate, from: known, by: [src_ip], window: 10s, features: [
      { name: hits, expr: count(*) }, { name: paths, expr: count(distinct path) }, { name: gap, expr: avg(gap_ms) } ] }
  - { id: found, kind: detect.rules, from: groups, rules: [{ name: some, level: LOW, when: hits > 5, reason: '{hits}' }] }
  - { id: last, kind: detect.rules, from: groups.final, rules: [{ name: some, level: LOW, when: hits > 5, reason: '{hits}' }] }
  - { id: again, kind: recurrence, from: last, granularity: 1m }
  - { id: ranked, kind: peers, from: groups.final, by: [window_start], columns: PEER_COLUMNS_OF_GROUPS }
  - { id: fleets, kind: campaigns, from: last, link: [[rules]], min_members: 2 }
";

/// The ports of [`REQUESTS`] that are written; a relation that never settles by its changes.
const FILES: &[&str] = &[
    "hellos",
    "hellos.rejected",
    "requests",
    "requests.rejected",
    "pairs",
    "pairs.late",
    "numbers",
    "numbers.rejected",
    "more",
    "more.rejected",
    "known",
    "rated",
    "bots",
    "browsers",
    "policy",
    "scored",
    "verdicts",
    "verdicts.rejected",
    "groups",
    "groups.final",
    "found",
    "last",
    "again",
    "again.joined",
    "ranked",
    "fleets",
    "fleets.joined",
];

/// Kinds that do not work on requests.
const NOT_ON_REQUESTS: &[&str] = &["tls.client_hello", "feedback"];

/// The client of the last request, whose window nothing closes.
const MARK: &str = "198.51.100.99";

#[test]
fn a_replay_writes_what_the_live_run_has_written() {
    for kind in
        operators::registry().kinds().iter().filter(|kind| kind.inputs != Inputs::None && !kind.outputs.is_empty())
    {
        let is_there = REQUESTS.contains(&format!("kind: {},", kind.name)) || NOT_ON_REQUESTS.contains(&kind.name);
        assert!(is_there, "put {} into REQUESTS", kind.name);
    }
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in files() {
        std::fs::write(dir.path().join(name), content).expect("written");
    }
    let mut yaml = LONG.iter().fold(REQUESTS.to_owned(), |yaml, (short, long)| yaml.replace(short, long));
    for port in FILES {
        let mode = if ["again", "fleets"].contains(port) { ", mode: changes" } else { "" };
        let id = port.replace('.', "_");
        yaml += &format!("  - {{ id: {id}_file, kind: sink.jsonl, from: {port}, path: data/{port}.jsonl{mode} }}\n");
    }
    let path = dir.path().join("p.yaml");
    let plan = load(&path, &yaml).unwrap_or_else(|shown| panic!("{shown}"));
    // An hour ahead of the clock, so that what is late is known; two hours later comes the end of all windows but its own.
    let base = wall_clock_ns() + 3_600_000 * MS;
    let end = base + 2 * 3_600_000 * MS;
    let shared = Arc::new(Shared::new(&plan));
    let (running, written) = (Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
    let noted = Arc::clone(&written);
    let thread = std::thread::spawn(move || {
        run_with(plan, 2, &running, move |_, dataflows| {
            // What leaves through a dataflow's sinks before its frontier is durable.
            let passed = (end / MS) as u64 - 60_000;
            if dataflows.from(0).iter().flatten().all(|dataflow| dataflow.frontier() >= passed) {
                noted.store(true, Relaxed);
            }
        });
    });
    let mark = json!({ "timestamp": end, "src_ip": MARK, "src_port": 9, "path": "1" }).to_string();
    for (seed, name) in [(7, "hellos"), (8, "requests")] {
        let sender = sender(&dir.path().join(name));
        for line in lines(seed, base).iter().map(Vec::as_slice).chain([mark.as_bytes()]) {
            sender.send(line).expect("sent");
        }
    }
    until("what was sent to be written", || written.load(Relaxed) || shared.failure().is_some());
    shared.stop();
    thread.join().expect("ends");
    assert_eq!(shared.failure(), None);
    let rows = |data: &Path, port: &str| {
        let text = std::fs::read_to_string(data.join(format!("{port}.jsonl"))).expect("a file");
        net_of(text.lines().filter(|line| !line.contains(MARK)))
    };
    for workers in WORKERS {
        let again = dir.path().join(format!("again{workers}"));
        let variable = |_: &str| None;
        let options = LoadOptions { output: Some(&again), ..LoadOptions::new(&variable) };
        let plan = Plan::load_as(&path, &operators::registry(), &options);
        let plan = Arc::new(plan.unwrap_or_else(|(problems, sources)| panic!("{}", sources.render(&problems, false))));
        let shared = Arc::new(Shared::new(&plan));
        let spool = dir.path().join("data/spool");
        let of = Of { spool: Some(&spool), ..Of::default() };
        let replay = Replay::prepare(&plan, &shared, &of).expect("a spool");
        let (options, missed) = replay.start(workers);
        execute_with(plan, &shared, options).expect("ends well");
        assert!(missed.records().is_empty());
        for port in FILES {
            let live = rows(&dir.path().join("data"), port);
            assert!(!live.is_empty(), "{port} has rows");
            same(&rows(&again, port), &live, &format!("{port}, replayed by {workers} workers"));
        }
    }
}
