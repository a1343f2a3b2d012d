//! How many http_logs rows a second does `sink.clickhouse` send? See clickhouse.py, which starts it.
//!
//!     clickhouse URL DATABASE ROWS [RUNS] [OPTIONS]
//!
//! Options are further ones of the sink, such as `max_rows: 20000`.
//!
//! The rows, all columns of requests joined with hellos, are made beforehand; what is measured is from the first batch until
//! the server has answered the last insert. One JSON object a run.

use std::sync::Arc;

use benches::events::{Load, REQUESTS, Side};
use benches::memory::{Input, run};
use benches::process::{cpu_seconds, resident};
use engine::batch::{Batch, EdgeType, Time};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, database, rows, more @ ..] = arguments.as_slice() else {
        return Err("usage: clickhouse URL DATABASE ROWS [RUNS] [OPTIONS]".to_owned());
    };
    let number = |text: &String| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    let rows = number(rows)?;
    let runs = more.first().map_or(Ok(3), number)?;
    let options = more.get(1).map_or_else(String::new, |options| format!(", {options}"));
    // 45,000 requests a second of event time, in batches of two seconds.
    let load = Load { clients: 300_000, events: rows / REQUESTS * (1 + REQUESTS), wide: true };
    let batches: Arc<[(Time, Batch)]> = load.batches(Side::Joined).collect();
    let rows: usize = batches.iter().map(|(_, batch)| batch.rows.num_rows()).sum();
    let bytes: usize = batches.iter().map(|(_, batch)| batch.rows.get_array_memory_size()).sum();
    for number in 0..runs {
        let make = {
            let batches = Arc::clone(&batches);
            move || {
                let (batches, mut at) = (Arc::clone(&batches), 0);
                let next = move || {
                    at += 1;
                    batches.get(at - 1).cloned()
                };
                Box::new(std::iter::from_fn(next)) as Box<dyn Iterator<Item = (Time, Batch)> + Send>
            }
        };
        let input = Input { ty: EdgeType::stream(load.schema(Side::Joined)), make: Arc::new(make) };
        // A name of its own for each run, so that its inserts are not those of the run before.
        let node = format!(
            "  - {{ id: store{number}, kind: sink.clickhouse, from: {{ http_logs: input0 }}, url: \"{url}\", database: {database}, \
             every: 2s, timeout: 600s{options} }}\n"
        );
        let before = cpu_seconds();
        let (shared, elapsed) = run(vec![input], &node, 1)?;
        let (wall, cpu) = (elapsed.as_secs_f64(), cpu_seconds() - before);
        let sent = shared.metrics.node(&format!("store{number}"), "sink.clickhouse");
        let sent = |name| sent.counter(name).load(std::sync::atomic::Ordering::Relaxed);
        println!(
            "{{\"rows\":{rows},\"sent_rows\":{},\"retries\":{},\"bytes_per_row\":{},\"wall_s\":{wall:.3},\"cpu_s\":{cpu:.2},\
             \"rows_per_s\":{:.0},\"rows_per_cpu_s\":{:.0},\"rss_mb\":{}}}",
            sent("sent_rows"),
            sent("retries"),
            bytes / rows.max(1),
            rows as f64 / wall,
            rows as f64 / cpu,
            resident()
        );
    }
    Ok(())
}
