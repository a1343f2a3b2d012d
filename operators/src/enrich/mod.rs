//! Look-ups in reference data.

pub mod asn;
