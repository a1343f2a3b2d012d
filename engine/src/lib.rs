//! The engine: from a YAML pipeline to a running timely dataflow. Names no concrete operator.

pub mod batch;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod expr;
pub mod graph;
pub mod metrics;
pub mod plan;
pub mod registry;
pub mod render;
pub mod run;
pub mod source;
pub mod spec;
pub mod text;
pub mod time;
