//! Look-ups in reference data.

mod agent;
pub mod anubis;
pub mod asn;
pub mod bots;
pub mod browser;
mod csv;
mod faults;
pub(crate) mod inspect;
pub(crate) mod lookup;
mod ranges;
pub mod reputation;
