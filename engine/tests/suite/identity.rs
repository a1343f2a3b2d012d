//! Digests, definitions, and what a changed pipeline means for a running one.

use engine::plan::diff::{Diff, Fate, State, rebuild};
use engine::plan::{LoadOptions, Plan};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

use crate::{kinds, plan, shows};

type Written = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// `id`, kind and the rest of each node; `packets` and `hellos` are as a capture and its decoder.
const NODES: [Written; 8] = [
    ("packets", "test.numbers", &[("rows", "3"), ("live", "true"), ("raw", "true")]),
    ("hellos", "test.keep", &[("from", "packets"), ("where", "n > 1")]),
    ("requests", "test.numbers", &[("rows", "3"), ("live", "true")]),
    ("both", "test.both", &[("from", "{ left: hellos, right: requests }")]),
    ("big", "test.keep", &[("from", "both"), ("where", "n > 2")]),
    ("sink", "test.collect", &[("from", "big"), ("into", "x")]),
    ("log", "test.keep", &[("from", "requests"), ("where", "n >= 0")]),
    ("copy", "test.collect", &[("from", "log"), ("into", "y")]),
];

/// Who reads whom, directly or not: the node, then what is downstream of it.
fn downstream(id: &str) -> &'static [&'static str] {
    match id {
        "packets" => &["packets", "hellos", "both", "big", "sink"],
        "hellos" => &["hellos", "both", "big", "sink"],
        "requests" => &["requests", "both", "big", "sink", "log", "copy"],
        "both" => &["both", "big", "sink"],
        "big" => &["big", "sink"],
        "log" => &["log", "copy"],
        "sink" => &["sink"],
        _ => &["copy"],
    }
}

type Nodes = Vec<(String, String, Vec<(String, String)>)>;

fn nodes() -> Nodes {
    let own = |text: &str| text.to_owned();
    NODES
        .iter()
        .map(|(id, kind, options)| (own(id), own(kind), options.iter().map(|(k, v)| (own(k), own(v))).collect()))
        .collect()
}

fn yaml(nodes: &Nodes, rest: &str) -> String {
    // Not beneath the pipeline's directory, which is another one each time.
    let mut text = format!("name: t\ndata_dir: /data\n{rest}nodes:\n");
    for (id, kind, options) in nodes {
        text.push_str(&format!("  - id: {id}\n    kind: {kind}\n"));
        options.iter().for_each(|(key, value)| text.push_str(&format!("    {key}: {value}\n")));
    }
    text
}

fn load(text: &str) -> Plan {
    plan(text).unwrap_or_else(|shown| panic!("{shown}\n{text}"))
}

fn with(rest: &str, change: impl Fn(&mut Nodes)) -> Plan {
    let mut nodes = nodes();
    change(&mut nodes);
    load(&yaml(&nodes, rest))
}

fn digests(plan: &Plan) -> Vec<(String, [u8; 32])> {
    let mut all: Vec<_> = plan.nodes.iter().map(|node| (node.id.clone(), node.digest)).collect();
    all.sort();
    all
}

fn set(nodes: &mut Nodes, id: &str, key: &str, value: &str) {
    let node = nodes.iter_mut().find(|node| node.0 == id).expect("there");
    node.2.retain(|(name, _)| name != key);
    node.2.push((key.to_owned(), value.to_owned()));
}

fn states(diff: &Diff) -> Vec<(&str, &State)> {
    let differ = diff.nodes.iter().filter(|node| node.state != State::Unchanged);
    differ.map(|node| (node.id.as_str(), &node.state)).collect()
}

/// A node's option, another value, and what is said of it.
const CHANGES: [(&str, &str, &str, &str); 9] = [
    ("packets", "rows", "4", "rows: 3 -> 4"),
    ("packets", "batch", "5", "batch: - -> 5"),
    ("hellos", "where", "n > 0", "where: n > 1 -> n > 0"),
    ("requests", "lateness", "2s", "lateness: - -> 2s"),
    ("both", "from", "{ left: requests, right: hellos }", "from.left: hellos -> requests"),
    ("big", "where", "n > 3", "where: n > 2 -> n > 3"),
    ("sink", "into", "z", "into: x -> z"),
    ("log", "where", "n >= 1", "where: n >= 0 -> n >= 1"),
    ("copy", "panics_at", "99", "panics_at: - -> 99"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(33), ..ProptestConfig::default() })]

    #[test]
    fn a_digest_does_not_depend_on_order_quotes_comments_or_layout(
        order in Just((0..NODES.len()).collect::<Vec<_>>()).prop_shuffle(),
        turn in 0usize..5, quoted in any::<bool>(), comment in "[a-z:#{} ]{0,12}",
    ) {
        let plain = with("", |_| {});
        let other = with(&format!("# {comment}\n"), |nodes| {
            *nodes = order.iter().map(|&at| nodes[at].clone()).collect();
            for (_, _, options) in nodes {
                let len = options.len();
                options.rotate_left(turn % len);
                for (key, value) in options {
                    match key.as_str() {
                        "where" if quoted => *value = format!("'{value}' # as it was"),
                        "where" => *value = format!(">-\n      {}", value.replace(' ', "\n      ")),
                        "from" => *value = value.replace("left: hellos, right: requests", "right: requests, left: hellos"),
                        _ => value.push_str("   # the same"),
                    }
                }
            }
        });
        prop_assert_eq!(digests(&plain), digests(&other));
        prop_assert_eq!(plain.digest(), other.digest());
        prop_assert!(rebuild(&plain, &other).is_empty());
    }

    #[test]
    fn a_changed_option_changes_the_node_and_what_is_downstream(which in any::<Index>(), also in any::<Index>()) {
        let given = [which.index(CHANGES.len()), also.index(CHANGES.len())].map(|at| CHANGES[at]);
        let (old, new) = (with("", |_| {}), with("", |nodes| {
            given.iter().for_each(|(id, key, value, _)| set(nodes, id, key, value));
        }));
        prop_assert_ne!(old.digest(), new.digest());
        let affected = |id: &str| given.iter().any(|change| downstream(change.0).contains(&id));
        for ((id, old), (other, new)) in digests(&old).iter().zip(&digests(&new)) {
            prop_assert_eq!((id, old != new), (other, affected(id)));
        }
        let diff = rebuild(&old, &new);
        for node in &diff.nodes {
            let own = given.iter().filter(|change| change.0 == node.id);
            match &node.state {
                State::Changed { changes } => {
                    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
                    let said: Vec<String> = changes.iter().map(|c| format!("{}: {} -> {}", c.path, value(&c.old), value(&c.new))).collect();
                    own.for_each(|change| assert!(said.contains(&change.3.to_owned()), "{said:?}"));
                }
                State::Affected { because } => {
                    prop_assert!(affected(&node.id) && own.count() == 0 && node.fate != Fate::Kept);
                    prop_assert!(because.iter().all(|id| affected(id)) && !because.is_empty());
                }
                // What is different before a log is no difference behind it.
                State::Unchanged => prop_assert!(own.count() == 0 && (!affected(&node.id) || node.fate == Fate::Kept)),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}

#[test]
fn an_island_in_which_anything_has_changed_is_rebuilt_and_the_others_go_on() {
    let old = with("", |_| {});
    assert_eq!(old.partition().ingest, [vec![0, 1], vec![2]]);
    let diff = rebuild(&old, &with("", |nodes| set(nodes, "big", "where", "n > 9")));
    assert_eq!(diff.ids(Fate::Kept), ["packets", "hellos", "requests", "log", "copy"]);
    assert_eq!(diff.ids(Fate::Rebuilt), ["both", "big", "sink"]);
    assert_eq!(diff.summary(), "1 node changed; 5 kept, 3 rebuilt");
}

#[test]
fn what_stands_before_the_spool_starts_again_if_it_has_changed() {
    let old = with("", |_| {});
    let diff = rebuild(&old, &with("", |nodes| set(nodes, "hellos", "where", "n > 9")));
    // The packets are not kept: their source ends with the decoder. What is behind the log reads on.
    assert_eq!(diff.ids(Fate::Started), ["packets", "hellos"]);
    assert_eq!(diff.ids(Fate::Kept), ["requests", "both", "big", "sink", "log", "copy"]);
    assert_eq!(states(&diff).len(), 1, "of hellos only: {:?}", states(&diff));
    // The spool has all ports, also one that nothing has read so far.
    let late = |nodes: &mut Nodes| set(nodes, "log", "from", "requests.late");
    let diff = rebuild(&old, &with("", late));
    assert_eq!(diff.ids(Fate::Started), Vec::<&str>::new());
    assert_eq!(diff.ids(Fate::Rebuilt), ["log", "copy"]);
}

#[test]
fn nodes_that_come_and_go_leave_other_islands_running() {
    let old = with("", |_| {});
    let new = with("", |nodes| {
        nodes.retain(|node| node.0 != "copy");
        let more = [("from", "big"), ("into", "w")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        nodes.push(("more".to_owned(), "test.collect".to_owned(), more.to_vec()));
    });
    let diff = rebuild(&old, &new);
    assert_eq!(states(&diff), [("more", &State::Added), ("copy", &State::Removed)]);
    assert_eq!(diff.ids(Fate::Kept), ["packets", "hellos", "requests"]);
    assert_eq!(diff.ids(Fate::Rebuilt), ["both", "big", "sink", "log", "more"]);
    assert_eq!(diff.ids(Fate::Stopped), ["copy"]);
    assert_eq!(diff.summary(), "0 nodes changed, 1 added, 1 removed; 3 kept, 5 rebuilt");
}

#[test]
fn served_tables_and_sections_count() {
    let serve = |rest: &str| with(&format!("serve: {{ {rest} }}\n"), |_| {});
    let old = serve("tables: { big: big, r: requests }");
    let same = serve("listen: 127.0.0.1:9, tables: { r: requests, big: big }");
    let diff = rebuild(&old, &same);
    assert_eq!(diff.ids(Fate::Kept).len(), 8);
    assert!(!diff.is_empty() && diff.sections[0].path == "serve.listen");
    // A table is filled by the island that makes its rows.
    for serve in [serve("hot_rows: 7, tables: { big: big, r: requests }"), serve("tables: { other: big, r: requests }")]
    {
        let diff = rebuild(&old, &serve);
        assert_eq!((diff.ids(Fate::Rebuilt), diff.is_empty()), (vec!["both", "big", "sink"], false));
    }
    let ticks = with("tick: 1s\n", |_| {});
    let diff = rebuild(&with("", |_| {}), &ticks);
    assert!(states(&diff).contains(&("copy", &State::Affected { because: vec!["log".into(), "tick".into()] })));
    assert_eq!(diff.ids(Fate::Kept), Vec::<&str>::new());
    assert_eq!(diff.restart.as_deref(), Some("`tick`"));
}

#[test]
fn files_count_by_what_they_say_or_by_where_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let load = |extra: &str, list: &str, data: &str| {
        std::fs::write(dir.path().join("list.yaml"), list).expect("written");
        std::fs::write(dir.path().join("data.csv"), data).expect("written");
        let path = dir.path().join("p.yaml");
        std::fs::write(&path, yaml(&nodes(), "")).expect("written");
        let overrides: Vec<String> = ["big.yaml=list.yaml", "big.data=data.csv", extra].map(str::to_owned).to_vec();
        let options = LoadOptions { overrides: &overrides, ..LoadOptions::new(&|_| None) };
        Plan::load_as(&path, &kinds::registry(), &options)
            .unwrap_or_else(|(problems, sources)| panic!("{}", sources.render(&problems, false)))
    };
    let old = load("tick=100ms", "- { name: a, expr: x }\n- { name: b, expr: y }\n", "1");
    let same = load("tick=100ms", "# said otherwise\n- expr: x\n  name: a\n- { name: b, expr: 'y' }\n", "2");
    assert!(rebuild(&old, &same).is_empty());
    let diff = rebuild(&old, &load("tick=100ms", "- { name: a, expr: z }\n- { name: b, expr: y }\n", "2"));
    let State::Changed { changes } = states(&diff)[0].1 else { panic!("{diff:?}") };
    assert_eq!((changes[0].path.as_str(), changes.len()), ("list.yaml.a.expr", 1));
    let other = load("big.data=other.csv", "- { name: a, expr: x }\n- { name: b, expr: y }\n", "1");
    let diff = rebuild(&old, &other);
    assert_eq!(states(&diff).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["big", "sink"]);
}

#[test]
fn an_override_is_checked_like_the_file_and_shown_where_it_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("p.yaml");
    std::fs::write(&path, yaml(&nodes(), "")).expect("written");
    let refused = |given: &str| {
        let options = LoadOptions { overrides: &[given.to_owned()], ..LoadOptions::new(&|_| None) };
        match Plan::load_as(&path, &kinds::registry(), &options) {
            Ok(_) => panic!("accepted: {given}"),
            Err((problems, sources)) => sources.render(&problems, false),
        }
    };
    shows(&refused("big.were=n > 1"), &["--set big.were=n > 1:1:5", "unknown option `were`", "did you mean `where`?"]);
    shows(&refused("requests.lateness=30x"), &["--set requests.lateness=30x:1:19", "not a duration", "^^^"]);
    shows(&refused("big.where=m > 1"), &["--set big.where=m > 1:1:11", "^"]);
    shows(&refused("bih.where=n > 1"), &["did you mean `big`?"]);
    shows(&refused("tick=soon"), &["--set tick=soon:1:6", "not a duration"]);
}
