//! mod_reqin_log: one JSON record a request, as a datagram on a unix socket.
//!
//! `httpd` is the only module that may call C. It turns what the server has into slices of bytes and numbers, and gives them to the
//! others, which are safe Rust and know nothing of the server:
//!
//! - `config`: the directives, their defaults and what is wrong with a value.
//! - `connection`: what is known of a connection: its addresses, how many requests it had, how it began.
//! - `h2`: the frames that a client of HTTP/2 begins with.
//! - `record`: a request as JSON, cut to what a datagram takes.
//! - `channel`: the socket; what is lost is counted and reported.
//! - `counters`: numbers of the whole server.

mod channel;
mod config;
mod connection;
mod counters;
mod h2;
#[allow(unsafe_code, reason = "the border to httpd, which is C")]
mod httpd;
mod json;
mod moment;
mod record;
