//! Look-ups in reference data.

pub mod asn;
mod lookup;
mod ranges;
