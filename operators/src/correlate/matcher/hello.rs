//! Hellos that are held: how long each is alive, and when to look at it.

use super::{END, Rules, Side};
use crate::correlate::connections::ConnId;
#[cfg(doc)]
use crate::correlate::connections::NONE;
use crate::correlate::store::Row;
use crate::timeline::Timed;

/// A hello that may still be matched.
pub(super) struct Hello {
    pub time: i64,
    pub seq: u64,
    /// End of the last match, or `i64::MIN`.
    pub last: i64,
    pub row: Row,
    pub connection: ConnId,
    /// How many requests have matched.
    pub matches: u32,
    /// The hello of the same connection before this one, or [`NONE`].
    pub earlier: u32,
    /// What it counts for against the bound.
    pub units: u32,
}

impl Hello {
    /// The last begin of a request that may have it.
    #[inline]
    pub fn alive_until(&self, rules: &Rules) -> i64 {
        let first = self.time.saturating_add(rules.window);
        let kept = if self.matches > 0 { first.max(self.last.saturating_add(rules.keepalive_ttl)) } else { first };
        kept.min(self.time.saturating_add(rules.max_age)).min(END - 1)
    }

    /// The last end of a request that may have it.
    #[inline]
    pub fn held_until(&self, rules: &Rules) -> i64 {
        self.alive_until(rules).saturating_add(rules.longest).min(END - 1)
    }

    /// Whether it may be given to a request that began at `begin`, whichever of them was first.
    #[inline]
    pub fn is_usable(&self, rules: &Rules, begin: i64) -> bool {
        self.alive_until(rules) >= begin && !(rules.one_to_one && self.matches > 0)
    }

    /// Its row.
    #[inline]
    pub fn side(&self) -> Side {
        Side { row: self.row, time: self.time, begin: self.time }
    }
}

/// When to look at a hello again: not after it expires. Each hello has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub at: i64,
    /// The hello's own time and position in its source, so that of equal ones the first goes first.
    pub rank: (i64, u64),
    pub hello: u32,
}

impl Timed for Due {
    #[inline]
    fn time(&self) -> i64 {
        self.at
    }
}
