//! The web service of a run: SQL over HTTP, state and counters, and the overview page.
//!
//! [`app`] builds the whole service as one [`Router`], so that it can be tested without a socket:
//!
//! | route | what |
//! |---|---|
//! | `POST /sql` | the body is one read-only statement, or `{"query", "parameters"}`; the answer's format follows `Accept`, `?integers=string` and `?csv=spreadsheet` |
//! | `GET /sql?query=` | the same, with the statement in the address |
//! | `GET /tables` | the served tables: columns, key, rows in memory and on disk |
//! | `GET /status` | the pipeline: state, graph, counters of every node |
//! | `POST /api/NAME`, `GET /api/NAME` | hands a JSON document to the source that takes it; what is in effect of those |
//! | `GET /api/PAGE/NAME` | a named query, as the pages ask it; see `queries/` |
//! | `GET /health`, `GET /ready` | alive; ready to answer |
//! | `GET /metrics` | Prometheus text |
//! | `GET /`, `GET /assets/*` | the page; every file of it is part of the binary |

mod assets;
mod encode;
mod error;
mod functions;
mod given;
mod guard;
mod http_metrics;
mod intake;
mod origin;
mod output;
mod panels;
mod process;
mod query;
mod reader;
mod routes;
mod serve;
mod sql;
mod status;
mod table;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use engine::catalog::Catalog;
use engine::contract::Intakes;
use engine::metrics::Metrics;
use engine::reload::Reloads;
use serde::{Deserialize, Serialize};

pub use error::Error;
pub use process::{OpenHistory, Program, query_process};
pub use reader::{Reader, Rows};
pub use serve::listen;
pub use status::{State, Status};

/// What the service shows.
#[derive(Clone, Debug)]
pub struct Service {
    /// The tables.
    pub catalog: Arc<Catalog>,
    /// Counters of the nodes.
    pub metrics: Arc<Metrics>,
    /// How far the run is.
    pub status: Arc<Status>,
    /// What one client may ask for.
    pub limits: Limits,
    /// The pipeline's name.
    pub name: String,
    /// What became of changes of the pipeline while it ran.
    pub reloads: Arc<Reloads>,
    /// Where documents come in.
    pub intakes: Arc<Intakes>,
    /// Names by which the service is asked for, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// What runs queries.
    pub program: Program,
}

/// Bounds on what SQL over HTTP may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Rows of an answer; more are cut off and the answer says so.
    pub max_rows: usize,
    /// Bytes of an answer; more are cut off, and the answer says so.
    pub max_bytes: usize,
    /// How long a query may run, and how long its text may take to arrive.
    pub timeout: Duration,
    /// How long an answer may take to be read.
    pub delivery: Duration,
    /// Bytes that a query may hold in joins, sorts and groups, and bytes of an answer before it is encoded. It bounds what
    /// DataFusion accounts for; `process_memory` bounds all of it.
    pub memory: usize,
    /// Bytes that a query process may allocate (`RLIMIT_DATA`). Rows in memory, which it maps, do not count.
    pub process_memory: u64,
    /// Bytes of a query's text.
    pub max_sql_bytes: usize,
    /// Query processes, each with one query at a time. The page's own panels have one more.
    pub processes: usize,
    /// How long a query waits for its turn before it is turned away.
    pub queue: Duration,
    /// Connections, of which one client may have a quarter.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rows: 100_000,
            max_bytes: 64 << 20,
            timeout: Duration::from_secs(10),
            delivery: Duration::from_secs(30),
            memory: 256 << 20,
            process_memory: 1 << 30,
            max_sql_bytes: 64 << 10,
            processes: 2,
            queue: Duration::from_secs(12),
            connections: 512,
        }
    }
}

/// The service as a router.
///
/// # Errors
/// If the threads that run queries cannot be started.
pub fn app(service: Service) -> io::Result<Router> {
    let state = routes::Shared::new(service)?;
    let router = Router::new()
        .route("/sql", post(sql::post).get(sql::get).fallback(sql::other))
        .route("/tables", get(routes::tables))
        .route("/status", get(routes::status))
        .route("/health", get(routes::health))
        .route("/ready", get(routes::ready))
        .route("/metrics", get(routes::metrics))
        .route("/api/{name}", get(intake::show).post(intake::take))
        .route("/api/{page}/{name}", get(sql::panel))
        .route("/", get(assets::index))
        .route("/assets/{*path}", get(assets::asset))
        .fallback(routes::not_found)
        .layer(axum::middleware::from_fn_with_state(state.clone(), routes::observe))
        .with_state(state);
    Ok(router)
}
