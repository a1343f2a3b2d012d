//! The seam to the web service, which the engine does not know.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::catalog::Catalog;
use engine::contract::Intakes;
use engine::metrics::Metrics;
use engine::reload::Reloads;
use engine::spec::QueryLimits;

/// Starts a web service: binds the address, then answers on threads of its own.
///
/// An error of kind `AddrInUse` or `PermissionDenied` gets a message of its own.
pub type Web = fn(WebContext) -> io::Result<Box<dyn WebService>>;

/// Tells whether a run has begun.
#[derive(Clone)]
pub struct Begun(Arc<dyn Fn() -> bool + Send + Sync>);

impl Begun {
    /// Asks this function.
    pub fn new(has_begun: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(has_begun))
    }

    /// Whether it has.
    pub fn is_so(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Begun").field(&self.is_so()).finish()
    }
}

/// What a web service shows.
#[derive(Clone, Debug)]
pub struct WebContext {
    /// The pipeline's name.
    pub name: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Names by which the service is asked for, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// What queries may use.
    pub queries: QueryLimits,
    /// The served tables.
    pub catalog: Arc<Catalog>,
    /// Counters of the nodes.
    pub metrics: Arc<Metrics>,
    /// What became of changes while the run went on.
    pub reloads: Arc<Reloads>,
    /// Where documents come in.
    pub intakes: Arc<Intakes>,
    /// Whether the run has begun: its sources send, and its sinks are open.
    pub begun: Begun,
}

/// A web service that runs. Dropping it stops it: requests under way are answered first, for a bounded time.
pub trait WebService: Send {
    /// Where it listens: the port is the real one if port 0 was asked for.
    fn address(&self) -> SocketAddr;

    /// Notes how far the run is.
    fn set_state(&self, state: RunState);
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Sources are read.
    Running,
    /// Every source has ended; the tables are complete.
    Finished,
    /// The run has stopped with an error, which is the text.
    Failed(String),
}
