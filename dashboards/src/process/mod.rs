//! Queries in processes of their own.
//!
//! The process that captures and correlates never plans or runs a statement. It starts a few query processes, which are the same
//! program with another first argument, and hands each of them one query at a time over a Unix socket: the text, and the tables
//! that the text names. Rows in memory are handed over as sealed memory files ([`system::Sealed`]), once each; Parquet files and
//! ClickHouse the query process reads itself. The answer comes back over the socket and is passed on as it comes.
//!
//! A query process has no rights but to read ([`confine`]), and its memory is bounded by the system. Whatever a statement does,
//! the worst that can happen is that its process ends: a process is killed when a query is over its time or nobody waits for it any
//! more, ends itself when it has no memory left, and is started anew for the next query.

mod child;
mod confine;
mod now;
mod places;
mod pool;
mod wire;
mod worker;

pub(crate) use places::Client;
pub use pool::Program;
pub(crate) use pool::{Answer, Pool};
pub use worker::{OpenHistory, query_process};
