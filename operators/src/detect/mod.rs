//! What rows are judged by.

pub mod rules;
