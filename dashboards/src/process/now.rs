//! The tables at the moment of a query, to be handed over.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use engine::catalog::{Catalog, Handed, Segment, Table};

use super::wire::{SegmentNow, StoredNow, TableNow};

/// A table at the moment of a query.
pub(super) struct Now {
    table: Arc<Table>,
    pub handed: Handed,
    is_read: bool,
}

/// All tables. Rows are handed out only of those whose name is somewhere in the statement.
pub(super) fn tables(catalog: &Catalog, sql: &str) -> io::Result<Vec<Now>> {
    let sql = sql.to_lowercase();
    let now = |table: Arc<Table>| {
        let is_read = sql.contains(&table.name.to_lowercase());
        let handed = if is_read { table.hand_out()? } else { table.hand_out_nothing()? };
        Ok(Now { table, handed, is_read })
    };
    catalog.tables().into_iter().map(now).collect()
}

impl Now {
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let parent = |segment: &Segment| segment.path.parent().map(PathBuf::from);
        self.handed.snapshot.segments.iter().filter_map(parent)
    }

    pub fn message(&self) -> TableNow {
        let segment = |segment: &Segment| SegmentNow {
            path: segment.path.clone(),
            rows: segment.rows,
            bytes: segment.bytes,
            unread: segment.unread.clone(),
        };
        let stored = self.handed.snapshot.stored.as_ref().map(|stored| StoredNow {
            place: stored.place.describe(),
            before: stored.before,
            gap: stored.gap,
        });
        TableNow {
            name: self.table.name.clone(),
            schema: self.handed.schema.id(),
            hot: self.handed.parts.iter().map(|(sealed, at)| (sealed.id(), *at)).collect(),
            segments: self.handed.snapshot.segments.iter().map(segment).collect(),
            stored,
            hot_rows: self.table.hot_rows(),
            is_read: self.is_read,
        }
    }
}
