//! Sends rows as syslog messages to a collector.

mod carrier;
mod message;

use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::{BuildContext, Facts, Inputs, Node, Operator, PlanContext, Port};
use engine::spec::{Located, humantime_duration};

use super::delivery::{self, Settings};
use super::written::{Format, Mode};
use crate::syslog::{FACILITIES, Place, SEVERITIES};
use carrier::{Collector, Stream as Way};
use message::Head;

/// See [`Operator::SUMMARY`].
pub struct Syslog;

/// What can be set.
///
/// A message is that of RFC 5424 with the row as a JSON object; its time is when it is sent. Over TCP and unix streams it is
/// framed by its length (RFC 6587, section 3.4.1). Syslog knows no answer. So by default each batch goes over a connection
/// of its own, whose end is the confirmation: the collector closes its side when it has read everything. A batch whose
/// connection breaks is sent again, so a row may come twice, never less than once. Over UDP and unix datagrams what was sent
/// is confirmed, and what is lost on the way nobody knows.
///
/// While there is no collector, rows wait in the spool, or the sources wait if there is none. There is no TLS (RFC 5425): for a
/// collector elsewhere, send to a local one that encrypts.
///
/// Counters: `sent_rows`, `retries` (attempts that failed), `too_large` (rows that no datagram can hold, which are dropped),
/// `dropped` (rows that were not sent when a run without a spool ended).
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct SyslogOptions {
    /// The collector: `udp://host:port`, `tcp://host:port`, or a socket's file, relative to the pipeline's:
    /// `unix-dgram:///dev/log`, `unix-stream://path`.
    #[schemars(with = "String")]
    to: Located<String>,
    /// The facility: `user`, `daemon`, `auth`, `local0` … `local7` or another of RFC 5424. Default: local0.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    facility: Option<Located<String>>,
    /// The severity: `emerg`, `alert`, `crit`, `err`, `warning`, `notice`, `info` or `debug`. For several, one sink behind a
    /// `filter` each. Default: warning.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    severity: Option<Located<String>>,
    /// The sender's name. Default: that of this machine.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    hostname: Option<Located<String>>,
    /// The program's name. Default: ja4-engine.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    app: Option<Located<String>>,
    /// When what goes over a stream is confirmed. Default: `read`.
    #[serde(default)]
    confirm: Confirm,
    /// How messages are told apart in a stream. Default: `octets`.
    #[serde(default)]
    framing: Framing,
    /// The columns to send, in this order. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    columns: Option<Vec<Located<String>>>,
    /// Which rows of a relation are sent. A stream has only settled rows.
    #[serde(default)]
    mode: Mode,
    /// How long the collector may take to accept a connection, messages, or to close. Default: 10s.
    #[serde(default = "ten_seconds", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    timeout: Duration,
    /// The longest pause before a batch that failed is sent again. The first is 100 ms; each is twice the one before.
    /// Default: 10s.
    #[serde(default = "ten_seconds", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    max_pause: Duration,
}

/// When what was sent over a stream is confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Confirm {
    /// When the collector has closed its side of the connection, which it does when it has read all.
    #[default]
    Read,
    /// When this machine's kernel has taken it. The connection stays open, and what is on its way when it breaks is lost.
    Sent,
}

/// How messages are told apart in a stream (RFC 6587).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Framing {
    /// Each has its length before it.
    #[default]
    Octets,
    /// Each ends with a line feed.
    Newline,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// The most rows and bytes of a batch.
const MOST: (usize, usize) = (500, 1 << 20);

impl Operator for Syslog {
    type Options = SyslogOptions;
    const KIND: &'static str = "sink.syslog";
    const SUMMARY: &'static str = "Sends rows as syslog messages to a collector.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];
    const NEEDS: &'static str = "any columns, or those in `columns`; no Binary";

    fn plan(options: SyslogOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let format = Format::plan(options.columns.as_deref(), options.mode, context);
        let place = Place::parse(&options.to.value).map_err(|fault| context.error(options.to.span, fault)).ok();
        let place = place.map(|place| place.with_path(|path| context.output_path(&path)));
        let facility = number(options.facility.as_ref(), "local0", ("facility", &FACILITIES), context);
        let severity = number(options.severity.as_ref(), "warning", ("severity", &SEVERITIES), context);
        let mut name = |given: &Option<Located<String>>, most: usize| match given {
            None => Some(None),
            Some(name) if message::is_name(&name.value, most) => Some(Some(name.value.clone())),
            Some(name) => {
                let fault = format!("`{}` is not up to {most} characters of ASCII without blanks", name.value);
                context.error(name.span, fault);
                None
            }
        };
        let hostname = name(&options.hostname, message::HOSTNAME);
        let app = name(&options.app, message::APP);
        if options.timeout.is_zero() || options.max_pause.is_zero() {
            context.error(context.span, "`timeout` and `max_pause` must be greater than 0");
            return None;
        }
        let head = Head::new(
            facility? * 8 + severity?,
            &hostname?.unwrap_or_else(message::this_machine),
            &app?.unwrap_or_else(|| "ja4-engine".to_owned()),
            context.id,
        );
        let way = Way { keeps_open: options.confirm == Confirm::Sent, newline: options.framing == Framing::Newline };
        let (timeout, max_pause) = (options.timeout, options.max_pause);
        Some(Box::new(SyslogNode { format: format?, place: place?, head, way, timeout, max_pause }))
    }
}

/// The number of a name, which is that of `default` if there is none.
fn number(
    given: Option<&Located<String>>,
    default: &str,
    (what, names): (&str, &[&str]),
    context: &mut PlanContext<'_>,
) -> Option<usize> {
    let name = given.map_or(default, |given| given.value.as_str());
    let found = names.iter().position(|one| *one == name);
    if let (None, Some(given)) = (found, given) {
        context.error(given.span, format!("`{name}` is no {what}: {}", names.join(", ")));
    }
    found
}

struct SyslogNode {
    format: Format,
    place: Place,
    head: Head,
    way: Way,
    timeout: Duration,
    max_pause: Duration,
}

impl Node for SyslogNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn facts(&self) -> Facts {
        Facts { records_changes: self.format.is_of_changes(), ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let settings = Settings {
            place: self.place.to_string(),
            target: self.place.to_string(),
            most: delivery::most(MOST.0, MOST.1),
            max_pause: self.max_pause,
        };
        let too_large = context.metrics.counter("too_large");
        let carrier = || Ok(Collector::new(self.place.clone(), self.head.clone(), self.way, self.timeout, too_large));
        vec![delivery::build(context, input.stream, &self.format, settings, carrier)]
    }
}
