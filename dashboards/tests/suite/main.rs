//! The service as a whole, asked without a socket unless a test is about the socket.

mod common;
mod history;
mod http;
mod intakes;
mod limits;
mod processes;
mod refusals;
mod tables;
