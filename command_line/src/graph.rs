//! `graph`: a pipeline as Mermaid or DOT.

use std::path::Path;

use engine::contract::Registry;
use engine::graph::{dot, mermaid};

use crate::{Exit, GraphFormat, load, print};

pub(crate) fn graph(file: &Path, format: GraphFormat, registry: &Registry) -> Exit {
    match load(file, registry) {
        Err(_) => Exit::Refused,
        Ok(plan) => print(&match format {
            GraphFormat::Mermaid => mermaid(&plan),
            GraphFormat::Dot => dot(&plan),
        }),
    }
}
