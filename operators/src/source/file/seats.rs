//! How many files all sources may follow together: a process may have only so many open, and ends if it needs more.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many files one source follows at most.
pub(super) const MAX_FOLLOWED: usize = 256;

/// Files that the rest of the engine has open.
const OTHERS: usize = 256;

/// How often a file may be open while it is rotated: as the one before, the one that is read, and the next.
const EACH: usize = 3;

/// Files that are followed.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The place of a file that is followed.
pub(super) struct Seat;

impl Seat {
    pub fn take() -> Self {
        TAKEN.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Relaxed);
    }
}

/// How many more files can be followed.
pub(super) fn free() -> usize {
    most().saturating_sub(TAKEN.load(Relaxed))
}

/// How many files can be followed.
pub(super) fn most() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| std::fs::read_to_string("/proc/self/limits").map_or(usize::MAX, |limits| most_of(&limits)))
}

/// How many can be with these limits.
fn most_of(limits: &str) -> usize {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    let open = soft.and_then(|soft| soft.parse::<usize>().ok());
    open.map_or(usize::MAX, |open| (open.saturating_sub(OTHERS) / EACH).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_followed_as_may_be_open() {
        let limits = |soft: &str| {
            format!(
                "Limit    Soft Limit   Hard Limit   Units\nMax processes   7   7   processes\nMax open files   {soft}   1048576   files\n"
            )
        };
        let most = ["1024", "100", "1048576", "unlimited"].map(|soft| most_of(&limits(soft)));
        assert_eq!(most, [MAX_FOLLOWED, 1, 349_440, usize::MAX]);
        assert_eq!(most_of(""), usize::MAX);
    }
}
