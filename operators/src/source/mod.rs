//! Where rows come from.

pub(crate) mod bpf;
pub(crate) mod capture;
mod chunks;
pub mod feedback;
pub mod file;
pub(crate) mod file_filter;
mod intake;
pub(crate) mod interfaces;
mod limit;
mod lines;
mod numbers;
pub(crate) mod order;
pub(crate) mod packets;
pub(crate) mod paths;
pub mod pcap;
mod pcap_file;
mod pipe;
mod received;
mod sign;
mod socket_file;
pub mod syslog;
mod tail;
pub mod unix_socket;

pub use packets::packet_schema;

use std::time::Duration;

use engine::spec::humantime_duration;
use serde::Deserializer;

/// The output ports of a source of lines.
const PORTS: &[engine::contract::Port] = &[
    engine::contract::Port { name: "out", summary: "a row for each line that was understood" },
    engine::contract::Port {
        name: "rejected",
        summary: "lines that were not understood: `line` (its first 4 KiB) and `reason`; `time` is the watermark",
    },
];

/// For options that are a duration or absent.
pub(crate) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    humantime_duration::deserialize(deserializer).map(Some)
}

/// The default of options `max_ahead` of sources that receive as things happen.
fn default_max_ahead() -> Duration {
    Duration::from_secs(10)
}
