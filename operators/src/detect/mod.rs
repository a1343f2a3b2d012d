//! What rows are judged by.

pub mod forest;
pub mod rules;
