//! What models are made by.

pub mod forest;
mod jobs;
mod sample;
