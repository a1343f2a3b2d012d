//! What the options of cases name, and what is sent to live sources.

use std::sync::OnceLock;

use engine::time::wall_clock_ns;
use serde_json::{Value, json};

use super::rows::{ADDRESSES, TEXTS, draw, one, recording, table, times};
use super::{CUTS, MS};
use crate::replay::{load, record, run, unique};

/// When the lines of `source.*` begin, in ns: an hour ahead of the clock, so that time does not pass by it.
pub(super) fn base() -> i64 {
    static BASE: OnceLock<i64> = OnceLock::new();
    *BASE.get_or_init(|| wall_clock_ns() + 3_600_000 * MS)
}

/// A policy of which every kind of matcher is asked.
const POLICY: &str = r#"
bots:
  - { name: crawler, user_agent_regex: "(?i)bot|curl", remote_addresses: ["192.0.2.0/24", "2001:db8::/32"], action: ALLOW }
  - { name: impostor, user_agent_regex: "(?i)bot", action: DENY }
  - { name: big, action: WEIGH, weight: { adjust: 20 }, expression: 'headers["X-Big"].size() > 3' }
  - { name: cloud, asns: { match: [16509] }, action: WEIGH, weight: { adjust: 15 } }
thresholds:
  - { name: much, expression: weight >= 30, action: DENY }
  - { name: some, expression: weight > 0, action: CHALLENGE }
"#;

/// A forest over columns of [`table`] and of groups.
fn model() -> Vec<u8> {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    MODEL.get_or_init(forest).clone()
}

/// Trained by `train.forest` over rows as those of the cases.
fn forest() -> Vec<u8> {
    let (dir, name) = (tempfile::tempdir().expect("a folder"), unique());
    record(&name, recording(&table(9, "nr"), CUTS[0], None));
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: r, kind: test.replay, name: {name} }}\n  - {{ id: m, kind: train.forest, from: r, \
         model: model.json, min_rows: 100, features: [number, real, flag] }}\n"
    );
    run(load(&dir.path().join("p.yaml"), &yaml).unwrap_or_else(|shown| panic!("{shown}")), 1);
    std::fs::read(dir.path().join("model.json")).expect("a model")
}

/// What the options of cases name.
pub(super) fn files() -> [(&'static str, Vec<u8>); 3] {
    [("lines.jsonl", lines(6, base()).join(&b'\n')), ("policy.yaml", POLICY.into()), ("model.json", model())]
}

/// Lines of requests, or of hellos, with times from `base` on; the first is right, and one in nine is not understood.
pub(super) fn lines(seed: u64, base: i64) -> Vec<Vec<u8>> {
    let line = |(row, ms): (usize, i64)| {
        let time = base + ms * MS;
        let row_of = |time: Value, port: i64| {
            let mut line = json!({ "timestamp": time, "src_ip": one(ADDRESSES, draw(seed, 20, row)), "src_port": port,
                "ja4": "t13d", "path": one(TEXTS, draw(seed, 21, row)), "response_size": u64::MAX,
                "host": "\u{fc}", "duration_ms": draw(seed, 22, row) % 3_000 });
            if draw(seed, 23, row).is_multiple_of(9) {
                line["path"] = Value::Null;
            }
            line.to_string().into_bytes()
        };
        match if row == 0 { 9 } else { draw(seed, 24, row) % 45 } {
            0 => b"{".to_vec(),
            1 => b"{}".to_vec(),
            2 => row_of("yesterday".into(), 1),
            3 => row_of(time.into(), 70_000),
            4 => b"\xff\0\xfe".to_vec(),
            // What is no UTF-8 is repaired.
            5 => {
                let good = row_of(time.into(), 2);
                [&good[..good.len() - 1], b",\"query\":\"\xe9\"}"].concat()
            }
            _ => row_of(time.into(), (draw(seed, 25, row) % 4) as i64),
        }
    };
    times(seed).into_iter().enumerate().map(line).collect()
}
