//! TLS over TCP.

pub mod client_hello;
mod rows;
