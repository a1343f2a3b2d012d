//! The engine: from a YAML pipeline to a running timely dataflow. Names no concrete operator.

pub mod batch;
pub mod catalog;
pub mod metrics;
pub mod time;
