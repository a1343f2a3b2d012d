//! Log lines on stderr that do not tear the progress bar.

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use engine::text::{json, line, message};
use indicatif::ProgressBar;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::{LogFormat, colour};

/// Whether log lines are JSON, and so is all else that goes to stderr.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether all that goes to stderr is to be JSON.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Relaxed)
}

/// Sends log lines to stderr, in turn with `bar`. What events say of files, servers and clients is made safe for a terminal; a
/// message of several lines is set in, so that no line of it can pass for another event.
pub(crate) fn start(format: LogFormat, bar: ProgressBar) {
    IS_JSON.store(format == LogFormat::Json, Relaxed);
    let default = match format {
        LogFormat::Text => "warn,follow=info",
        // Whoever collects log lines sees progress and summary in them too.
        LogFormat::Json => "warn,cluster=info,command_line=info,engine=info,spool=info,follow=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(BesideBar(bar, format));
    // Fails only if a subscriber is set already, as in a test: that one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(colour()).fmt_fields(debug_fn(field).delimited(" ")).try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
}

/// Writes a field of an event.
fn field(to: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(to, "{}", message(&format!("{value:?}"))),
        name => write!(to, "{name}={}", line(&format!("{value:?}"))),
    }
}

struct BesideBar(ProgressBar, LogFormat);

impl<'a> MakeWriter<'a> for BesideBar {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line(self.0.clone(), self.1)
    }
}

struct Line(ProgressBar, LogFormat);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The formatter hands on whole events.
        let text = match self.1 {
            LogFormat::Text => Cow::Borrowed(bytes),
            LogFormat::Json => Cow::Owned(json(&String::from_utf8_lossy(bytes)).into_owned().into_bytes()),
        };
        self.0.suspend(|| io::stderr().write_all(&text)).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
