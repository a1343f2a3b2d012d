//! `source.syslog`: log lines that come as syslog messages, over the network or unix sockets.
//!
//! The header of a message is passed over, and the text behind it is a line for `format`. Whoever can send can write requests
//! that nobody made; so by default only this machine can.

mod connections;
mod framing;
mod kernel;
mod listen;
mod receive;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::{
    BuildContext, Facts, Inputs, Node, Operator, PlanContext, Port, Privileges, Recorded, Seen, Sign, source,
};
use engine::spec::{Beside, Located, humantime_duration};
use ipnet::IpNet;

use super::chunks::ChunkReader;
use super::file::FileSource;
use super::intake::Settings;
use super::received::Received;
use super::{sign, socket_file};
use crate::format::{LineOptions, Rejects};
use crate::syslog::Place;
use listen::{At, Limits};

/// Receives lines as syslog messages.
///
/// Counters: `messages`, `datagrams`, `truncated` (datagrams larger than a line may be), `connections`,
/// `connections_refused` (there were `max_connections`), `connections_idle` (closed after `idle_timeout`),
/// `senders_refused` (datagrams and connections from elsewhere than `allow`), `kernel_dropped` (datagrams over UDP that
/// came faster than they were read).
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Options {
    /// Where messages come in, or a list of such places: `udp://127.0.0.1:5514`, `tcp://[::1]:5514`, `unix-dgram://path`,
    /// `unix-stream://path`, paths relative to the pipeline's file. Over TCP and unix streams a message has its length before
    /// it or ends with a line feed (RFC 6587); there is no TLS. A socket that an earlier run left is removed.
    #[schemars(with = "Places")]
    listen: Places,
    /// The networks from which messages are taken, such as `[192.0.2.0/24]`; needed to listen at another address than that of
    /// this machine for itself. A sender's address over UDP is what it says: anybody on the way can forge it.
    /// Default: `[127.0.0.0/8, "::1"]`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    allow: Option<Vec<Located<String>>>,
    /// How far a row's time may be before the greatest time seen without being late. While nothing comes, the same
    /// distance to the wall clock. Default 1s.
    #[serde(default = "second", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    lateness: Duration,
    /// How far a row's time may be ahead of this machine's clock; further ahead it is rejected, so that one wrong time
    /// does not make all that follow late. Default 10s.
    #[serde(default = "super::default_max_ahead", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    max_ahead: Duration,
    /// Permissions of sockets' files in octal; who may write may send. Default "0660".
    mode: Option<Located<String>>,
    /// The most connections at a time; further ones are closed at once. Default: 64.
    #[serde(default = "sixty_four")]
    max_connections: usize,
    /// After how long without a byte a connection is closed. Default: 1h.
    #[serde(default = "hour", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    idle_timeout: Duration,
}

/// One place or several.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
enum Places {
    One(String),
    Several(Vec<String>),
}

fn second() -> Duration {
    Duration::from_secs(1)
}
fn hour() -> Duration {
    Duration::from_secs(3600)
}
fn sixty_four() -> usize {
    64
}

/// `source.syslog`.
pub struct Syslog {
    places: Vec<At>,
    settings: Settings,
    limits: Limits,
}

impl Operator for Syslog {
    type Options = Beside<Options, LineOptions>;
    const KIND: &'static str = "source.syslog";
    const SUMMARY: &'static str = "Receives lines as syslog messages, over UDP, TCP or unix sockets";
    const INPUTS: Inputs = Inputs::None;
    const OUTPUTS: &'static [Port] = super::PORTS;
    const GIVES: &'static str = "`time`, `seq` and the columns of `format` (`list formats`) or `columns`, with `syslog_columns` those of the header; `rejected` has `time`, `seq`, `line` and `reason`";
    const RECORDED: Option<Recorded> = Some(Recorded {
        kind: FileSource::KIND,
        path: "path",
        without: &["listen", "allow", "mode", "max_connections", "idle_timeout"],
    });

    fn plan(
        Beside { own: options, shared: lines }: Self::Options,
        context: &mut PlanContext<'_>,
    ) -> Option<Box<dyn Node>> {
        let format = lines.choose(context);
        let mode = socket_file::mode(options.mode.as_ref(), context);
        let allow = options.allow.as_ref().map(|networks| {
            networks.iter().filter_map(|text| match network(&text.value) {
                Some(network) => Some(network),
                None => {
                    context.error(text.span, format!("`{}` is not an address or a network", text.value));
                    None
                }
            })
        });
        let allow: Option<Vec<IpNet>> = allow.map(Iterator::collect);
        let texts = match options.listen {
            Places::One(text) => vec![text],
            Places::Several(texts) => texts,
        };
        if texts.is_empty() || options.max_connections == 0 || options.idle_timeout.is_zero() {
            context.error(context.span, "`listen` needs a place, and `max_connections` and `idle_timeout` are not 0");
            return None;
        }
        let mut places = Vec::new();
        for text in &texts {
            let place = Place::parse(text).map(|place| place.with_path(|path| context.path(&path)));
            match place.and_then(|place| at(place, mode.unwrap_or(0o660), allow.is_some())) {
                Ok(place) => places.push(place),
                Err(fault) => context.error(context.span, fault),
            }
        }
        if places.len() < texts.len() {
            return None;
        }
        mode?;
        Some(Box::new(Self {
            places,
            settings: Settings {
                format: format?,
                lateness: options.lateness,
                tick: context.tick,
                max_line: lines.max_line(),
                max_rejected: lines.max_rejected(),
                max_ahead: Some(options.max_ahead),
            },
            limits: Limits {
                allow: allow.unwrap_or_else(|| ["127.0.0.0/8", "::1"].into_iter().filter_map(network).collect()),
                max_message: lines.max_line(),
                max_connections: options.max_connections,
                idle: options.idle_timeout,
            },
        }))
    }
}

/// A network, or an address alone.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Where it is listened, if that may be.
fn at(place: Place, mode: u32, has_networks: bool) -> Result<At, String> {
    let address = |text: &str| -> Result<SocketAddr, String> {
        let address: SocketAddr =
            text.parse().map_err(|_| format!("`{text}` is not an address and a port, such as 127.0.0.1:5514"))?;
        if !address.ip().is_loopback() && !has_networks {
            return Err(format!("others can send to {address}: say by `allow` from which networks messages are taken"));
        }
        Ok(address)
    };
    Ok(match place {
        Place::Udp(text) => At::Udp(address(&text)?),
        Place::Tcp(text) => At::Tcp(address(&text)?),
        Place::UnixDatagram(path) => {
            socket_file::only_a_socket(&path)?;
            At::UnixDatagram(path, mode)
        }
        Place::UnixStream(path) => {
            socket_file::only_a_socket(&path)?;
            At::UnixStream(path, mode)
        }
    })
}

impl Node for Syslog {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![EdgeType::stream(Arc::clone(&self.settings.format.schema)), EdgeType::stream(Rejects::schema())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, _: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        source(context, 2, || {
            let (handover, received) = Received::new(context.is_logged());
            let sockets = self.places.iter().map(At::bind).collect::<Result<Vec<_>, String>>()?;
            receive::start(sockets, handover, self.limits.clone(), &context.metrics)?;
            Ok(ChunkReader::new(received, &self.settings, &context.resume(), &context.metrics))
        })
    }

    fn sign(&self, seen: &Seen) -> Sign {
        sign::lines(seen)
    }

    fn facts(&self) -> Facts {
        Facts { is_live: true, ..Facts::default() }
    }

    fn probe(&self, _: &Privileges) -> Result<(), String> {
        self.places.iter().try_for_each(At::probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_can_send_only_if_it_is_said_who() {
        let place = |text: &str| Place::parse(text).expect("a place");
        assert!(at(place("udp://127.0.0.2:514"), 0o660, false).is_ok());
        assert!(at(place("tcp://[::1]:514"), 0o660, false).is_ok());
        for text in ["udp://0.0.0.0:514", "tcp://[::]:514", "tcp://192.0.2.1:514"] {
            let fault = at(place(text), 0o660, false).map(drop).expect_err(text);
            assert!(fault.contains("`allow`"), "{fault}");
            assert!(at(place(text), 0o660, true).is_ok());
        }
        assert!(at(place("udp://localhost:514"), 0o660, true).is_err());
        assert_eq!(network("192.0.2.7"), "192.0.2.7/32".parse().ok());
        assert!(network("here").is_none());
    }
}
