//! Positions of lines in their source.
//!
//! Lines of one text are counted. Of several files that grow side by side the order in which their lines are read is not that
//! of another run, so a position names the file as well: what a log has of lines that are read again is known by it.

use std::collections::HashSet;

/// Bits of a position for the line in its file, and for the file; those above make each position greater than the one before.
const LINE_BITS: u32 = 20;
const FILE_BITS: u32 = 9;

/// How many files a source can tell apart at a time.
pub(super) const MAX_FILES: usize = 1 << FILE_BITS;

/// Gives lines their positions, each greater than the one before.
#[derive(Debug)]
pub(super) enum Numbers {
    /// The position of the next line.
    Lines(u64),
    /// The position behind that of the last line of some file.
    Files(u64),
}

impl Numbers {
    /// Goes on where positions were before.
    pub(super) fn new(next: u64, by_file: bool) -> Self {
        if by_file { Self::Files(next) } else { Self::Lines(next) }
    }

    /// The least that the next position can be.
    pub(super) fn next(&self) -> u64 {
        let (Self::Lines(next) | Self::Files(next)) = self;
        *next
    }

    /// The position of a line, which is the `nth` of its file.
    pub(super) fn give(&mut self, file: usize, nth: u64) -> u64 {
        match self {
            Self::Lines(next) => {
                *next += 1;
                *next - 1
            }
            Self::Files(next) => {
                let within = LINE_BITS + FILE_BITS;
                let own = ((file as u64 % MAX_FILES as u64) << LINE_BITS) | (nth % (1 << LINE_BITS));
                let round = *next >> within;
                let same = (round << within) | own;
                let position = if same >= *next { same } else { ((round + 1) << within) | own };
                *next = position.saturating_add(1);
                position
            }
        }
    }
}

/// Which lines behind a place the log has, by what [`Numbers::Files`] has given them: the file, and how many lines of it come
/// before from the place on. `taken` says which was the next line of a file there. Fewer than 2^20 lines of a file are ever
/// between a place and what the log has.
pub(super) fn of_files(logged: &[u64], taken: impl Fn(usize) -> u64) -> HashSet<(usize, u64)> {
    let lines = 1_u64 << LINE_BITS;
    let one = |position: &u64| {
        let file = (position >> LINE_BITS) as usize % MAX_FILES;
        (file, (position % lines + lines - taken(file) % lines) % lines)
    };
    logged.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

        #[test]
        fn positions_grow_and_name_their_lines(
            start in 0_u64..1 << 40, before in 0_u64..1 << 22, order in prop::collection::vec(0_usize..MAX_FILES, 1..80),
        ) {
            let mut numbers = Numbers::new(start, true);
            let mut nth = vec![before; MAX_FILES];
            let (mut given, mut lines) = (Vec::new(), HashSet::new());
            for file in order {
                prop_assert!(numbers.next() >= given.last().map_or(start, |last| last + 1));
                given.push(numbers.give(file, nth[file]));
                lines.insert((file, nth[file] - before));
                nth[file] += 1;
            }
            prop_assert!(given.is_sorted_by(|a, b| a < b) && given[0] >= start);
            prop_assert_eq!(of_files(&given, |_| before), lines);
        }
    }
}
