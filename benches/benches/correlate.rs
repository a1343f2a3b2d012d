//! How many events a second does `correlate` join in memory, on one worker?
//!
//! Hellos and requests are made beforehand ([`benches::events`]): 1 to 3, up to 2 s out of order, joined within 10 s,
//! from 50,000 and 300,000 clients, half of them IPv6. Batches have 8192 rows. An event is a row of either side; the
//! batches of the result are built and counted. `narrow` has 8 columns, `wide` all of `reqin_log` and `ja4sentinel`.

use std::hint::black_box;
use std::sync::Arc;

use benches::events::{Load, Side};
use benches::join::{Input, run};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::batch::{Batch, EdgeType, Time};

/// Events of a narrow and of a wide run.
const EVENTS: [u64; 2] = [2_000_000, 400_000];

fn input(load: Load, side: Side) -> Input {
    let batches: Arc<[(Time, Batch)]> = load.batches(side).collect();
    let make = move || {
        let (batches, mut at) = (Arc::clone(&batches), 0);
        Box::new(std::iter::from_fn(move || {
            at += 1;
            batches.get(at - 1).cloned()
        })) as Box<dyn Iterator<Item = (Time, Batch)> + Send>
    };
    Input { ty: EdgeType::stream(load.schema(side)), make: Arc::new(make) }
}

fn correlate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("correlate");
    group.sample_size(10);
    for (wide, events) in [(false, EVENTS[0]), (true, EVENTS[1])] {
        for clients in [50_000, 300_000] {
            let load = Load { clients, events, wide };
            let (hellos, requests) = (input(load, Side::Hello), input(load, Side::Request));
            group.throughput(Throughput::Elements(events));
            group.bench_function(BenchmarkId::new(if wide { "wide" } else { "narrow" }, clients), |bencher| {
                bencher.iter(|| {
                    let outcome = run(hellos.clone(), requests.clone(), 1, ", window: 10s, keepalive_ttl: 10s");
                    let outcome = outcome.expect("the join runs");
                    assert_eq!((outcome.rows, outcome.correlated), (events / 4 * 3, events / 4 * 3));
                    black_box(outcome);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, correlate);
criterion_main!(benches);
