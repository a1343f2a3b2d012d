//! What a run of a plan shares, at its start.

use std::sync::Arc;

use super::Plan;
use crate::catalog::{Catalog, Table};
use crate::shared::Shared;

impl Shared {
    /// What a run of this plan shares; the served tables are empty.
    pub fn new(plan: &Plan) -> Self {
        let mut shared = Self::default();
        shared.catalog = Arc::new(Catalog::new(tables(plan)));
        for node in &plan.nodes {
            shared.metrics.node(&node.id, node.kind.name);
        }
        shared
    }
}

/// The served tables of a plan, in its order, empty.
pub(crate) fn tables(plan: &Plan) -> Vec<Arc<Table>> {
    let serve = plan.serve.iter();
    let tables = serve.flat_map(|serve| {
        serve
            .tables
            .iter()
            .map(|(name, node, port)| Arc::new(Table::new(name, &plan.nodes[*node].outputs[*port], serve.hot_rows)))
    });
    tables.collect()
}
