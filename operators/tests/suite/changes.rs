//! Changes of a running pipeline one after the other, refused and interrupted ones among them: no row is lost, none is
//! there twice, and changes add up to what is true.
//!
//! `CHANGES` says how many, `SEED` which.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::reload::Outcome;
use engine::run::{Options, RunError, execute_with};
use engine::shared::Shared;
use engine::time::wall_clock_ns;
use serde_json::Value;

use super::replay::{load, parse};

/// Rows that are sent before each change.
const ROWS: u64 = 20;

/// All of them let rows through whose number does not end with 3 or 5.
const CONDITIONS: [&str; 3] = ["n <> ''", "n not like '%3'", "n not like '%5'"];

const WINDOWS: [&str; 3] = ["1s", "1m", "1h"];

/// What changes of the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Of rows that everything else is made of.
    tag: u64,
    condition: usize,
    window: usize,
    /// Part of a node's id.
    name: u64,
    /// A sink more, with a file of its own.
    extra: Option<u64>,
}

impl Shape {
    fn yaml(&self) -> String {
        let (condition, window, name) = (CONDITIONS[self.condition], WINDOWS[self.window], self.name);
        let features = "features: [{ name: hits, expr: count(*) }]";
        let extra = self.extra.map_or_else(String::new, |n| {
            format!("  - {{ id: extra, kind: sink.jsonl, from: kept{name}, path: data/extra{n}.jsonl }}\n")
        });
        format!(
            "name: changes\ndata_dir: data\nspool: {{ commit: 5ms }}\nnodes:\n  \
             - {{ id: rows, kind: source.unix_socket, path: rows.socket, columns: {{ time: time, src_ip: text, n: text }}, lateness: 100ms }}\n  \
             - {{ id: tagged, kind: derive, from: rows, columns: [{{ name: tag, expr: \"'{tag}'\" }}] }}\n  \
             - {{ id: all, kind: sink.jsonl, from: tagged, path: data/all.jsonl }}\n  \
             - {{ id: hours, kind: aggregate, from: tagged, by: [src_ip], window: 1h, {features} }}\n  \
             - {{ id: hours_file, kind: sink.jsonl, from: hours, path: data/hours.jsonl, mode: changes }}\n  \
             - {{ id: kept{name}, kind: filter, from: tagged, where: \"{condition}\" }}\n  \
             - {{ id: kept_file, kind: sink.jsonl, from: kept{name}, path: data/kept.jsonl }}\n  \
             - {{ id: groups, kind: aggregate, from: kept{name}, by: [src_ip], window: {window}, {features} }}\n  \
             - {{ id: groups_file, kind: sink.jsonl, from: groups.final, path: data/groups.jsonl }}\n{extra}",
            tag = self.tag,
        )
    }

    /// The same with one thing changed.
    fn changed(&self, random: &mut Random) -> Self {
        let mut shape = self.clone();
        match random.below(5) {
            0 => shape.tag += 1,
            1 => shape.condition = (shape.condition + 1) % CONDITIONS.len(),
            2 => shape.window = (shape.window + 1 + random.below(2) as usize) % WINDOWS.len(),
            3 => shape.name += 1,
            _ => shape.extra = shape.extra.is_none().then(|| random.below(3)),
        }
        shape
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

/// A run in a thread, in a folder that it shares with those after it.
struct Run {
    dir: PathBuf,
    shared: Arc<Shared>,
    outcomes: Receiver<Outcome>,
    thread: JoinHandle<Result<(), RunError>>,
    sender: UnixDatagram,
}

impl Run {
    fn start(dir: &Path, yaml: &str, workers: usize) -> Self {
        let path = dir.join("p.yaml");
        let plan = Arc::new(load(&path, yaml).expect("valid"));
        let shared = Arc::new(Shared::new(&plan));
        let (told, outcomes) = channel();
        shared.reloads.tell(move |outcome| _ = told.send(outcome.clone()));
        let run = Arc::clone(&shared);
        let loader = Box::new(move || parse(&path));
        let thread = std::thread::spawn(move || {
            execute_with(plan, &run, Options { workers, loader: Some(loader), ..Options::default() })
        });
        let sender = UnixDatagram::unbound().expect("made");
        let dir = dir.to_owned();
        until("the socket", || sender.connect(dir.join("rows.socket")).is_ok());
        Self { dir, shared, outcomes, thread, sender }
    }

    /// Sends rows with the numbers from `from` to before `to`.
    fn send(&self, from: u64, to: u64) {
        self.send_ahead(Duration::ZERO, from, to);
    }

    /// Rows whose times are so much in the future.
    fn send_ahead(&self, ahead: Duration, from: u64, to: u64) {
        for n in from..to {
            let time = wall_clock_ns() + ahead.as_nanos() as i64;
            let row = format!(r#"{{"time":{time},"src_ip":"192.0.2.{}","n":"{n}"}}"#, n % 3);
            self.sender.send(row.as_bytes()).expect("sent");
        }
    }

    fn ask(&self, yaml: &str) {
        std::fs::write(self.dir.join("p.yaml"), yaml).expect("written");
        self.shared.reloads.request();
    }

    /// The outcome of a change. While the one before is not over it is asked for again.
    fn change(&self, yaml: &str) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            self.ask(yaml);
            let outcome = self.outcomes.recv_timeout(Duration::from_secs(40)).expect("an outcome");
            match outcome {
                Outcome::Refused(why) if why.contains("is not over") => assert!(Instant::now() < deadline, "{why}"),
                outcome => return outcome,
            }
        }
    }

    fn end(self) {
        self.thread.join().expect("no panic").expect("ends well");
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line that is being written is none yet.
    text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line.strip_suffix('\n')?).ok()).collect()
}

/// How often each number is in a file.
fn numbers(path: &Path) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for line in lines(path) {
        let n = line["n"].as_str().expect("a text").parse().expect("a number");
        *found.entry(n).or_default() += 1;
    }
    found
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the files must hold of the numbers below `sent`.
fn check(data: &Path, sent: u64, said: &str) {
    let (all, kept) = (numbers(&data.join("all.jsonl")), numbers(&data.join("kept.jsonl")));
    assert!(all.keys().copied().eq(0..sent), "{} of {sent} rows {said}", all.len());
    assert!(all.values().chain(kept.values()).all(|count| *count == 1), "rows twice {said}");
    let lost: Vec<u64> = (0..sent).filter(|n| ![3, 5].contains(&(n % 10)) && !kept.contains_key(n)).collect();
    assert!(lost.is_empty(), "lost behind the filter: {lost:?} {said}");
}

/// The sum of all changes that a file has: hits by address, whatever the window.
fn net(path: &Path) -> BTreeMap<String, i64> {
    let mut hits = BTreeMap::new();
    for line in lines(path) {
        let address = line["src_ip"].as_str().expect("a text").to_owned();
        *hits.entry(address).or_default() +=
            line["diff"].as_i64().expect("diff") * line["hits"].as_i64().expect("hits");
    }
    hits
}

/// What the changes of the first rows must add up to.
fn hits(sent: u64) -> BTreeMap<String, i64> {
    let of = |client: u64| (format!("192.0.2.{client}"), (0..sent).filter(|n| n % 3 == client).count() as i64);
    (0..3).map(of).collect()
}

#[test]
fn no_change_loses_or_doubles_a_row() {
    let seed = setting("SEED", 16);
    let (mut random, dir) = (Random(seed), tempfile::tempdir().expect("a directory"));
    let data = dir.path().join("data");
    let (mut shape, mut sent, mut applied, mut interrupted) = (Shape::default(), 0, 0, 0);
    let mut run = Run::start(dir.path(), &shape.yaml(), 2);
    for nth in 0..setting("CHANGES", 30) {
        run.send(sent, sent + ROWS);
        sent += ROWS;
        let said = format!("at change {nth} from {shape:?}, SEED={seed}");
        match random.below(10) {
            0 => {
                let outcome = run.change(&shape.yaml().replace("kind: filter", "kind: filtre"));
                assert!(
                    matches!(&outcome, Outcome::Refused(why) if why.contains("did you mean")),
                    "{outcome:?} {said}"
                );
            }
            1 => {
                let outcome = run.change(&shape.yaml().replace("window: 1h", "window: 1h, durable: true"));
                assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("durable")), "{outcome:?} {said}");
            }
            2 => {
                let outcome = run.change(&shape.yaml());
                assert!(matches!(outcome, Outcome::Unchanged(_)), "{outcome:?} {said}");
            }
            3 => {
                // What is in the file is durable, whatever the change was about to do.
                until("the rows", || numbers(&data.join("all.jsonl")).len() as u64 == sent);
                let new = Shape { name: shape.name + 1, ..shape.clone() };
                run.ask(&new.yaml());
                if random.below(2) == 0 {
                    let _ = run.outcomes.recv_timeout(Duration::from_millis(random.below(60)));
                }
                run.shared.abort();
                run.end();
                // The source's own thread ends a little later.
                let probe = UnixDatagram::unbound().expect("made");
                until("the old socket", || probe.connect(dir.path().join("rows.socket")).is_err());
                run = Run::start(dir.path(), &shape.yaml(), 1 + random.below(2) as usize);
                interrupted += 1;
            }
            _ => {
                let new = shape.changed(&mut random);
                let outcome = run.change(&new.yaml());
                assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?} {said} to {new:?}");
                shape = new;
                applied += 1;
            }
        }
    }
    until("the rows", || numbers(&data.join("all.jsonl")).len() as u64 == sent);
    let expected = hits(sent);
    let hours = data.join("hours.jsonl");
    until(&format!("changes that add up to {expected:?}, {:?}, SEED={seed}", net(&hours)), || net(&hours) == expected);
    run.shared.stop();
    run.end();
    assert_eq!(net(&hours), expected);
    check(&data, sent, &format!("after {applied} changes, {interrupted} interrupted, SEED={seed}"));
    assert!(applied > 0);
}

#[test]
fn a_durable_edge_goes_on_with_another_source() {
    let dir = tempfile::tempdir().expect("a directory");
    let yaml = |nth: u32| {
        format!(
            "name: other\ndata_dir: data\nspool: {{ commit: 5ms }}\nnodes:\n  \
             - {{ id: rows{nth}, kind: source.unix_socket, path: rows.socket{nth}, columns: {{ time: time, src_ip: text, n: text }}, lateness: 100ms }}\n  \
             - {{ id: kept, kind: filter, from: rows{nth}, where: \"n <> ''\", durable: true }}\n  \
             - {{ id: file, kind: sink.jsonl, from: kept, path: data/kept.jsonl }}\n"
        )
        .replace("rows.socket0", "rows.socket")
    };
    let run = Run::start(dir.path(), &yaml(0), 2);
    let file = dir.path().join("data/kept.jsonl");
    let mut sent = 0;
    for nth in 1..4 {
        run.send(sent, sent + ROWS);
        sent += ROWS;
        until("the rows", || numbers(&file).len() as u64 == sent);
        let outcome = run.change(&yaml(nth));
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        until("the socket", || run.sender.connect(dir.path().join(format!("rows.socket{nth}"))).is_ok());
    }
    run.send(sent, sent + ROWS);
    sent += ROWS;
    until("the rows", || numbers(&file).len() as u64 == sent);
    run.shared.stop();
    run.end();
    assert!(numbers(&file).values().all(|count| *count == 1));
}

#[test]
fn changes_within_one_tick_add_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let hours = dir.path().join("data/hours.jsonl");
    let yaml =
        |tag| Shape { tag, ..Shape::default() }.yaml().replace("lateness: 100ms", "lateness: 100ms, max_ahead: 6h");
    let run = Run::start(dir.path(), &yaml(0), 2);
    // Time stands still until rows come that are further ahead.
    let ahead = |hours: u64| Duration::from_secs(hours * 3600);
    run.send_ahead(ahead(2), 0, ROWS);
    run.send_ahead(ahead(3), ROWS, 2 * ROWS);
    until("the first rows", || net(&hours) == hits(ROWS));
    for tag in 1..4 {
        let outcome = run.change(&yaml(tag));
        assert!(matches!(&outcome, Outcome::Applied(said) if !said.contains("still writes")), "{outcome:?}");
    }
    run.send_ahead(ahead(4), 2 * ROWS, 3 * ROWS);
    until(&format!("changes that add up to {:?}", hits(2 * ROWS)), || net(&hours) == hits(2 * ROWS));
    run.shared.stop();
    run.end();
}
