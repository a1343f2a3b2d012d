//! `graph`: a pipeline as Mermaid or DOT.

use std::path::Path;

use super::{Exit, GraphFormat, load, print};
use crate::contract::Registry;
use crate::graph::{dot, mermaid};

pub(super) fn graph(file: &Path, format: GraphFormat, registry: &Registry) -> Exit {
    match load(file, registry) {
        Err(_) => Exit::Refused,
        Ok(plan) => print(&match format {
            GraphFormat::Mermaid => mermaid(&plan),
            GraphFormat::Dot => dot(&plan),
        }),
    }
}
