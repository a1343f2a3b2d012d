//! The operators, one file each; [`registry`] lists them in the order in which data flows.

pub mod aggregate;
pub mod campaigns;
pub mod correlate;
mod cut;
pub mod data;
pub mod derive;
pub mod detect;
pub mod enrich;
mod entries;
pub mod feedback;
pub mod filter;
pub mod fingerprint;
pub mod forest;
pub mod format;
mod linear;
pub mod peers;
pub mod recurrence;
mod relation;
pub mod sink;
pub mod source;
mod syslog;
mod timeline;
pub mod tls;
mod topics;
pub mod train;
mod value;
pub mod verdict;

use engine::contract::{Kind, Registry};

/// Every kind of node, from sources to sinks.
pub fn registry() -> Registry {
    let kinds = vec![
        Kind::of::<source::pcap::PcapSource>(),
        Kind::of::<source::file::FileSource>(),
        Kind::of::<source::unix_socket::UnixSocket>(),
        Kind::of::<source::syslog::Syslog>(),
        Kind::of::<source::feedback::FeedbackSource>(),
        Kind::of::<tls::client_hello::ClientHello>(),
        Kind::of::<correlate::Correlate>(),
        Kind::of::<filter::Filter>(),
        Kind::of::<derive::Derive>(),
        Kind::of::<enrich::asn::Asn>(),
        Kind::of::<enrich::reputation::Reputation>(),
        Kind::of::<enrich::bots::Bots>(),
        Kind::of::<enrich::browser::Browser>(),
        Kind::of::<enrich::anubis::Anubis>(),
        Kind::of::<aggregate::Aggregate>(),
        Kind::of::<peers::Peers>(),
        Kind::of::<train::forest::TrainForest>(),
        Kind::of::<detect::forest::DetectForest>(),
        Kind::of::<detect::rules::Rules>(),
        Kind::of::<verdict::Verdict>(),
        Kind::of::<feedback::Feedback>(),
        Kind::of::<recurrence::Recurrence>(),
        Kind::of::<campaigns::Campaigns>(),
        Kind::of::<sink::jsonl::Jsonl>(),
        Kind::of::<sink::unix_socket::UnixSocket>(),
        Kind::of::<sink::webhook::Webhook>(),
        Kind::of::<sink::syslog::Syslog>(),
        Kind::of::<sink::parquet::Parquet>(),
        Kind::of::<sink::clickhouse::ClickHouse>(),
    ];
    Registry::new(kinds).with_topics(topics::topics())
}
