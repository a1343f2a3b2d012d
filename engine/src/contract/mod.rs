//! The contract between the engine and its operators: what an operator sees, and nothing else.
//!
//! A kind of node is a type that implements [`Operator`]. It is planned with a [`PlanContext`] and becomes a [`Node`], which
//! each worker builds with a [`BuildContext`]. A source brings a [`Reader`], a sink implements [`sink::Sink`]. How a dataflow
//! is run is behind that: no operator holds it.

mod build_context;
pub mod exchange;
mod here;
mod operator;
mod plan_context;
mod redirect;
mod running;
mod sign;
pub mod sink;
mod sink_handle;
mod sink_state;
mod source;
mod standing;

pub use crate::intake::{Intake, Intakes, NotTaken, document};
pub use build_context::{BuildContext, InStep};
pub(crate) use here::panicked_in;
pub use here::{Entered, Here};
pub use operator::{Facts, Inputs, Kind, Node, Operator, Port, Recorded, Registry, ServerFault, ServerTable, Topic};
pub use plan_context::PlanContext;
pub(crate) use plan_context::{DATA_DIR, Notes};
pub(crate) use redirect::Redirect;
pub use redirect::are_apart;
pub(crate) use running::Running;
pub use sign::{Seen, Sign};
pub use sink_handle::{Asking, Claim, Opening, SinkHandle, Turn};
#[cfg(test)]
pub(crate) use sink_state::Place;
pub(crate) use sink_state::SinkState;
pub use source::{Cursor, Output, Poll, Reader, Resume, output_ports, source};
pub use standing::Standing;

pub use crate::catalog::{History, HistoryError, Segment, Table, Wanted};
pub use crate::expr::{ExprFault, Scalar, Session, Windows};
pub use crate::metrics::{NodeMetrics, Rejected};
pub use crate::outputs::Reopen;
pub use crate::privileges::{Need, Privileges};
pub use crate::reference::{Parse, Reading, Reference, file_time, read_content, read_text};
pub use crate::shared::{Failure, FailureClass, Shared};
pub use crate::text::{age, day, printable};
pub use crate::time::{Arrival, Backlog, MAX_FUTURE, MAX_IN_FLIGHT, Watermark, nanos, wall_clock_ns};
