//! The engine: from a YAML pipeline to a running timely dataflow. Names no concrete operator.

pub mod batch;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod compare;
mod control;
pub mod expr;
pub mod flow;
pub mod graph;
pub mod ledger;
pub mod logged;
pub mod metrics;
pub mod outputs;
pub mod plan;
pub mod privileges;
mod processes;
pub mod registry;
pub mod reload;
pub mod render;
pub mod replay;
pub mod run;
pub mod shared;
pub mod source;
pub mod spec;
pub mod spool;
pub mod text;
pub mod time;
