//! Members and values of links as numbers, and the numbers of campaigns.
//!
//! The graph is made of 63 bits of SHA-256 (FIPS 180-4), because comparing and sending numbers is what an iteration
//! does most. The hash has no key: the same input gives the same campaigns in every run and process. Two things that
//! hash alike would be taken for one. Among a million that happens by chance in one run of ten million, and to find an
//! address that hashes like a given one takes about 2^63 trials. Values of one's own that hash alike only link their
//! own owner, who can be linked by showing the same value anyway.

use sha2::{Digest, Sha256};

/// A member or a value.
pub(super) type Id = u64;

/// The id of a member that is written so.
pub(super) fn member(text: &[u8]) -> Id {
    hash(|hash| hash.update(text)) & !1
}

/// The id of a link's value; `nth` is the link's number, so that links share no values. The parts may not be cut in
/// another way into the same value.
pub(super) fn value<'a>(nth: usize, parts: impl Iterator<Item = &'a [u8]>) -> Id {
    let add = |hash: &mut Sha256| {
        hash.update((nth as u64).to_le_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    hash(add) | 1
}

/// Members have even ids, values odd ones.
pub(super) fn is_member(id: Id) -> bool {
    id.is_multiple_of(2)
}

/// The number of a campaign whose oldest member this is; never negative.
pub(super) fn campaign(oldest: Id) -> i32 {
    i32::try_from(oldest >> 33).unwrap_or(i32::MAX)
}

fn hash(add: impl FnOnce(&mut Sha256)) -> u64 {
    let mut hash = Sha256::new();
    add(&mut hash);
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_in_every_version() {
        // printf 192.0.2.1 | sha256sum: 37fcff24bf62035b2b08020afc08b4fe...
        let id = member(b"192.0.2.1");
        assert_eq!(id, 0x37fc_ff24_bf62_035b & !1);
        assert_eq!(campaign(id), 0x37fc_ff24 >> 1);
        assert!(campaign(u64::MAX) == i32::MAX && campaign(0) == 0);
    }

    #[test]
    fn values_differ_by_link_and_by_where_their_parts_end() {
        let of = |nth, parts: &[&[u8]]| value(nth, parts.iter().copied());
        let all = [of(0, &[b"ab", b"c"]), of(0, &[b"a", b"bc"]), of(0, &[b"abc"]), of(1, &[b"abc"]), of(0, &[])];
        assert!((1..all.len()).all(|n| !all[n..].contains(&all[n - 1])), "{all:?}");
        assert!(all.iter().all(|id| !is_member(*id)) && is_member(member(b"abc")));
    }
}
