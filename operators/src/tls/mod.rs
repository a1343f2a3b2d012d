//! TLS over TCP.

pub mod client_hello;
pub(crate) mod hint;
mod rows;
mod run;
