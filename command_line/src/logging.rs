//! Log lines on stderr that do not tear the progress bar.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::{LogFormat, colour};

/// Whether log lines are JSON, and so is all else that goes to stderr.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether all that goes to stderr is to be JSON.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Relaxed)
}

/// Sends log lines to stderr, in turn with `bar`. Control characters in events are escaped by the formatters.
pub(crate) fn start(format: LogFormat, bar: ProgressBar) {
    IS_JSON.store(format == LogFormat::Json, Relaxed);
    let default = match format {
        LogFormat::Text => "warn,follow=info",
        // Whoever collects log lines sees progress and summary in them too.
        LogFormat::Json => "warn,cluster=info,command_line=info,engine=info,spool=info,follow=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(BesideBar(bar));
    // Fails only if a subscriber is set already, as in a test: that one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colour()).try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
}

struct BesideBar(ProgressBar);

impl<'a> MakeWriter<'a> for BesideBar {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line(self.0.clone())
    }
}

struct Line(ProgressBar);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(bytes)).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
