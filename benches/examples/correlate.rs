//! How many events a second does `correlate` join in memory, and does its memory stay flat?
//!
//!     correlate CLIENTS EVENTS narrow|wide [WORKERS] [stream]
//!
//! With `stream`, events are made on the way instead of beforehand, and the process's resident memory is printed every
//! 2.5 million rows of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use benches::events::{Load, Side};
use benches::join::{Input, run};
use benches::process::{cpu_seconds, resident};
use engine::batch::{Batch, EdgeType, Time};

/// Rows of requests between two lines about memory.
const REPORT: u64 = 2_500_000;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: u64| -> Result<u64, String> {
        arguments.get(at).map_or(Ok(or), |text| text.parse().map_err(|_| format!("`{text}` is no number")))
    };
    let wide = arguments.get(2).is_some_and(|text| text == "wide");
    let load = Load { clients: number(0, 50_000)?.max(1), events: number(1, 2_000_000)?, wide };
    let workers = usize::try_from(number(3, 1)?).unwrap_or(1).max(1);
    let stream = arguments.iter().any(|text| text == "stream");
    let [hellos, requests] = [Side::Hello, Side::Request].map(|side| input(load, side, stream));
    println!("{load:?}, {workers} workers; before the run {} MB resident", resident());
    let runs = if stream { 1 } else { 3 };
    for _ in 0..runs {
        let before = cpu_seconds();
        let outcome = run(hellos.clone(), requests.clone(), workers, ", window: 10s, keepalive_ttl: 10s")?;
        let (wall, cpu) = (outcome.elapsed.as_secs_f64(), cpu_seconds() - before);
        println!(
            "{:.2} million events/s, {:.2} a second of CPU time: {} events in {wall:.2} s, {cpu:.2} s of CPU; {} rows, \
             {} correlated; {} MB resident",
            load.events as f64 / wall / 1e6,
            load.events as f64 / cpu / 1e6,
            load.events,
            outcome.rows,
            outcome.correlated,
            resident()
        );
    }
    Ok(())
}

fn input(load: Load, side: Side, stream: bool) -> Input {
    type Boxed = Box<dyn Iterator<Item = (Time, Batch)> + Send>;
    let ty = EdgeType::stream(load.schema(side));
    if stream {
        let make = move || {
            let sent = AtomicU64::new(0);
            Box::new(load.batches(side).inspect(move |(_, batch)| {
                let rows = batch.rows.num_rows() as u64;
                let before = sent.fetch_add(rows, Relaxed);
                if side == Side::Request && before / REPORT != (before + rows) / REPORT {
                    println!("  {} requests: {} MB resident", before + rows, resident());
                }
            })) as Boxed
        };
        return Input { ty, make: Arc::new(make) };
    }
    let batches: Arc<[(Time, Batch)]> = load.batches(side).collect();
    let make = move || {
        let (batches, mut at) = (Arc::clone(&batches), 0);
        Box::new(std::iter::from_fn(move || {
            at += 1;
            batches.get(at - 1).cloned()
        })) as Boxed
    };
    Input { ty, make: Arc::new(make) }
}
