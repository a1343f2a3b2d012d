//! The table of connections: bounded, and in order of last use, so that what goes first is always the same.

use std::cell::Cell;

use ahash::RandomState;
use hashbrown::HashTable;

use super::flow::{Class, Flow, FlowKey};

/// Place of a flow in the table; valid until the flow is removed.
pub(crate) type Index = u32;

const NONE: Index = Index::MAX;

/// A hash of a key, the same for both directions: in four bytes, so that a slot takes 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hashed(u32);

impl Hashed {
    /// The index looks at the highest bits and at the lowest.
    fn wide(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

#[derive(Debug)]
struct Slot {
    key: FlowKey,
    flow: Flow,
    /// Time of the last packet, nanoseconds since the epoch.
    last: i64,
    /// Grows with every use of any flow.
    used: u64,
    older: Index,
    newer: Index,
    /// Of the key.
    hash: Hashed,
    /// Which of the lists it is in.
    list: ListId,
}

/// The flows of a class, and of them those that hold bytes: only these are worth evicting when the buffers are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ListId {
    class: Class,
    holds: bool,
}

impl ListId {
    fn of(flow: &Flow) -> Self {
        Self { class: flow.class(), holds: flow.holds() }
    }

    fn index(self) -> usize {
        self.class as usize * 2 + usize::from(self.holds)
    }
}

/// A list through the slots, oldest use first.
#[derive(Debug, Clone, Copy)]
struct List {
    oldest: Index,
    newest: Index,
    len: usize,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct FlowTable {
    slots: Vec<Option<Slot>>,
    free: Vec<Index>,
    index: HashTable<Index>,
    /// Keyed anew in every process: nobody can send keys that collide. No result depends on it.
    hasher: RandomState,
    /// The hash that was asked for last.
    hashed: Cell<(FlowKey, Hashed)>,
    /// One for each `ListId`.
    lists: [List; 6],
    /// Uses of flows so far.
    uses: u64,
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        let nobody = FlowKey { src: 0, dst: 0, src_port: 0, dst_port: 0, udp: false };
        let empty = List { oldest: NONE, newest: NONE, len: 0 };
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hashed: Cell::new((nobody, Hashed(hasher.hash_one(nobody) as u32))),
            hasher,
            lists: [empty; 6],
            uses: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Where the flow with this key is.
    pub(crate) fn find(&self, key: &FlowKey) -> Option<Index> {
        self.find_by(self.hash(key), key)
    }

    fn find_by(&self, hash: Hashed, key: &FlowKey) -> Option<Index> {
        self.index.find(hash.wide(), |at| self.slot(*at).is_some_and(|slot| slot.key == *key)).copied()
    }

    /// Where the flow is to which a packet of this direction belongs, and whether the client sent it.
    pub(crate) fn find_either(&self, key: &FlowKey) -> Option<(Index, bool)> {
        let reversed = key.reversed();
        let fits = |at: &Index| self.slot(*at).is_some_and(|slot| slot.key == *key || slot.key == reversed);
        let at = *self.index.find(self.hash(key).wide(), fits)?;
        let slot = self.slot(at)?;
        if slot.key == *key {
            return Some((at, true));
        }
        let twin = if slot.flow.has_twin { self.find(key) } else { None };
        Some(twin.map_or((at, false), |twin| (twin, true)))
    }

    /// A flow with its direction.
    pub(crate) fn entry(&mut self, at: Index) -> Option<(FlowKey, &mut Flow)> {
        self.slot_mut(at).map(|slot| (slot.key, &mut slot.flow))
    }

    /// The direction of a flow.
    pub(crate) fn key(&self, at: Index) -> Option<FlowKey> {
        self.slot(at).map(|slot| slot.key)
    }

    pub(crate) fn get(&self, at: Index) -> Option<&Flow> {
        self.slot(at).map(|slot| &slot.flow)
    }

    pub(crate) fn get_mut(&mut self, at: Index) -> Option<&mut Flow> {
        self.slot_mut(at).map(|slot| &mut slot.flow)
    }

    /// Time of the flow's last packet.
    pub(crate) fn last(&self, at: Index) -> Option<i64> {
        self.slot(at).map(|slot| slot.last)
    }

    /// Adds a flow whose key is not there.
    pub(crate) fn insert(&mut self, key: FlowKey, mut flow: Flow, now: i64) -> Index {
        let hash = self.hash(&key);
        if let Some(other) = self.find_by(hash, &key.reversed()).and_then(|at| self.get_mut(at)) {
            (flow.has_twin, other.has_twin) = (true, true);
        }
        self.uses += 1;
        let list = ListId::of(&flow);
        let slot = Slot { key, flow, last: now, used: self.uses, older: NONE, newer: NONE, hash, list };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as Index
            }
        };
        self.append(at);
        let Self { slots, index, .. } = self;
        let hash_of = |at: &Index| slots[*at as usize].as_ref().map_or(0, |slot| slot.hash.wide());
        index.insert_unique(hash.wide(), at, hash_of);
        at
    }

    /// Notes that the flow was used now; call it after its stage changed, or what it holds.
    pub(crate) fn touch(&mut self, at: Index, now: i64) {
        self.uses += 1;
        let used = self.uses;
        let Some(slot) = self.slot_mut(at) else { return };
        (slot.last, slot.used) = (now, used);
        let list = ListId::of(&slot.flow);
        // The packets of a connection often follow each other: it is the newest already.
        if slot.list == list && slot.newer == NONE {
            return;
        }
        self.unlink(at);
        if let Some(slot) = self.slot_mut(at) {
            slot.list = list;
        }
        self.append(at);
    }

    pub(crate) fn remove(&mut self, at: Index) {
        let Some(hash) = self.slot(at).map(|slot| slot.hash) else { return };
        self.unlink(at);
        if let Ok(entry) = self.index.find_entry(hash.wide(), |other| *other == at) {
            entry.remove();
        }
        self.slots[at as usize] = None;
        self.free.push(at);
    }

    /// The flow that goes next, always the one of its class unused for longest. Of flows with only a SYN at most half
    /// of all stay; then go expendable ones, those with only a SYN, and the rest.
    pub(crate) fn oldest(&self) -> Option<Index> {
        let syns = [false, true].map(|holds| self.list(Class::OnlySyn, holds).len);
        let flood = syns[0] + syns[1] > self.len() / 2;
        let order = match flood {
            true => [Class::OnlySyn, Class::Expendable, Class::Unfinished],
            false => [Class::Expendable, Class::OnlySyn, Class::Unfinished],
        };
        order.into_iter().find_map(|class| self.oldest_of(class))
    }

    /// The flow of a class unused for longest.
    pub(crate) fn oldest_of(&self, class: Class) -> Option<Index> {
        let heads = [false, true].map(|holds| self.list(class, holds).oldest);
        heads.into_iter().filter(|at| *at != NONE).min_by_key(|at| self.slot(*at).map(|slot| slot.used))
    }

    /// The flow that goes next when the buffers are full: of those that hold bytes an expendable one, else one whose
    /// hello may still come; of these the one unused for longest.
    pub(crate) fn oldest_holder(&self) -> Option<Index> {
        let order = [Class::Expendable, Class::OnlySyn, Class::Unfinished];
        order.into_iter().map(|class| self.list(class, true).oldest).find(|at| *at != NONE)
    }

    /// The same for both directions. A packet asks for that of one connection several times.
    fn hash(&self, key: &FlowKey) -> Hashed {
        let key = key.undirected();
        let (last, hash) = self.hashed.get();
        if last == key {
            return hash;
        }
        let hash = Hashed(self.hasher.hash_one(key) as u32);
        self.hashed.set((key, hash));
        hash
    }

    fn list(&self, class: Class, holds: bool) -> &List {
        &self.lists[ListId { class, holds }.index()]
    }

    fn slot(&self, at: Index) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    fn slot_mut(&mut self, at: Index) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// Puts an unlinked slot at the end of its list.
    fn append(&mut self, at: Index) {
        let Some(list) = self.slot(at).map(|slot| slot.list.index()) else { return };
        let list = &mut self.lists[list];
        list.len += 1;
        let newest = std::mem::replace(&mut list.newest, at);
        if newest == NONE {
            list.oldest = at;
        }
        if let Some(slot) = self.slot_mut(newest) {
            slot.newer = at;
        }
        if let Some(slot) = self.slot_mut(at) {
            slot.older = newest;
        }
    }

    fn unlink(&mut self, at: Index) {
        let Some(slot) = self.slot_mut(at) else { return };
        let (older, newer, list) = (slot.older, slot.newer, slot.list.index());
        (slot.older, slot.newer) = (NONE, NONE);
        self.lists[list].len -= 1;
        match self.slot_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.lists[list].oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.lists[list].newest = older,
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
