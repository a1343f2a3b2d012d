//! The engine: from a YAML pipeline to a running timely dataflow. Names no concrete operator.

pub mod batch;
pub mod catalog;
pub mod contract;
mod control;
pub mod dataflow;
pub mod dir_lock;
pub mod expr;
pub mod files;
pub mod functions;
pub mod graph;
mod intake;
mod merge;
pub mod metrics;
pub mod outputs;
pub mod plan;
pub mod privileges;
mod processes;
mod progress;
pub mod reference;
pub mod reload;
mod render;
pub mod replay;
pub mod run;
pub mod shared;
pub mod signs;
pub mod source_log;
pub mod spec;
pub mod start;
pub mod store;
pub mod text;
pub mod time;

pub use {cluster, spool};
