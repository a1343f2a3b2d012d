//! Progress of a run on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::plan::Plan;
use engine::run::Summary;
use engine::shared::Shared;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::LogFormat;
use crate::summary::number;

/// How often a bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is written for a run that ends; a shorter run writes none.
const LINE: Duration = Duration::from_secs(2);
/// How often a line is written for a run that goes on for ever.
const LIVE_LINE: Duration = Duration::from_secs(60);

/// The bar of a run: hidden unless stderr is a terminal and progress is wanted.
pub(crate) fn bar(quiet: bool, format: LogFormat) -> ProgressBar {
    if quiet || format == LogFormat::Json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
}

/// Shows progress on a thread of its own until it is dropped.
pub(crate) struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    bar: ProgressBar,
}

impl Progress {
    /// Starts to show how far the run is.
    pub(crate) fn start(plan: &Arc<Plan>, shared: &Arc<Shared>, bar: &ProgressBar, format: LogFormat) -> Self {
        let (stop, stopped) = channel();
        let (plan, shared, drawn) = (Arc::clone(plan), Arc::clone(shared), bar.clone());
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let every = match (drawn.is_hidden(), plan.is_bounded()) {
                (false, _) => REDRAW,
                (true, true) => LINE,
                (true, false) => LIVE_LINE,
            };
            let (start, mut before) = (Instant::now(), (Instant::now(), 0));
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let summary = Summary::new(&plan, &shared, start.elapsed());
                let rate = rate(&mut before, summary.source_rows());
                show(&drawn, &shared, &summary, rate, format);
            }
        });
        // Without a thread there is no progress to see; the run goes on.
        Self { stop: Some(stop), thread: thread.ok(), bar: bar.clone() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// Rows per second since the last look.
fn rate(before: &mut (Instant, u64), rows: u64) -> f64 {
    let now = Instant::now();
    let seconds = now.duration_since(before.0).as_secs_f64().max(1e-9);
    let rate = rows.saturating_sub(before.1) as f64 / seconds;
    *before = (now, rows);
    rate
}

fn show(bar: &ProgressBar, shared: &Shared, summary: &Summary, rate: f64, format: LogFormat) {
    let (read, total) = (shared.progress.read.load(Relaxed), shared.progress.total.load(Relaxed));
    let counts = format!(
        "{} rows/s, late {}, rejected {}",
        number(rate as u64),
        number(summary.late()),
        number(summary.rejected())
    );
    if format == LogFormat::Json {
        let (rows, late, rejected) = (summary.source_rows(), summary.late(), summary.rejected());
        tracing::info!(read, total, rows, late, rejected, rows_per_second = rate, "progress");
    } else if bar.is_hidden() {
        let elapsed = HumanDuration(summary.wall);
        let part = match total {
            0 => format!("{} rows", number(summary.source_rows())),
            _ => format!("{} of {} ({} %)", HumanBytes(read), HumanBytes(total), read.saturating_mul(100) / total),
        };
        let _ = writeln!(io::stderr(), "{elapsed}: {part}, {counts}");
    } else {
        let template = if total > 0 { "{bar:12} {percent}% {wide_msg}" } else { "{spinner} {elapsed} {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if total > 0 {
            bar.set_length(total);
        }
        bar.set_position(read);
        bar.set_message(counts);
    }
}
