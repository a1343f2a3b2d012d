//! The connections that anything is known of, by key.

use ahash::RandomState;
use hashbrown::HashTable;

/// Identifies a connection's client side, or both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Source address as 128 bits; IPv4 is mapped into IPv6.
    pub src: u128,
    /// Destination address, or 0 if it is not part of the key.
    pub dst: u128,
    /// Hash of the sensor's name, or 0 if it is not part of the key.
    pub sensor: u64,
    /// Source port.
    pub src_port: u16,
    /// Destination port, or 0 if it is not part of the key.
    pub dst_port: u16,
    /// Over UDP (QUIC) and not TCP: the same ports are another connection.
    pub udp: bool,
}

impl Key {
    /// A hash that is the same on every worker and in every process.
    pub fn route(&self) -> u64 {
        let fold = |v: u128| (v >> 64) as u64 ^ (v as u64);
        let ports = u64::from(self.src_port) << 32 | u64::from(self.dst_port) << 16 | u64::from(self.udp);
        mix(mix(fold(self.src) ^ ports.rotate_left(16)).wrapping_add(fold(self.dst)) ^ self.sensor)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
pub(super) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Names a connection for as long as anything is known of it.
pub(super) type ConnId = u32;

/// The connection of a row that does not say which one it belongs to.
pub(super) const UNKNOWN: ConnId = ConnId::MAX;

/// No hello.
pub(super) const NONE: u32 = u32::MAX;

/// No request.
pub(super) const NO_REQUEST: u64 = u64::MAX;

/// What is known of a connection.
#[derive(Clone, Copy)]
pub(super) struct Connection {
    /// The hello with the latest time, or [`NONE`].
    pub latest: u32,
    /// How many hellos are held.
    pub hellos: u32,
    /// How many rows wait.
    pub waiting: u32,
    /// The first and the last request that wait for a hello after them, or [`NO_REQUEST`].
    pub unmatched: (u64, u64),
}

/// What names a connection; apart, because it is looked at only when rows arrive and when the connection ends.
#[derive(Clone, Copy)]
struct Name {
    key: Key,
    hash: u64,
}

/// All connections of a worker.
#[derive(Default)]
pub(super) struct Connections {
    table: HashTable<ConnId>,
    names: Vec<Name>,
    slots: Vec<Connection>,
    free: Vec<ConnId>,
    hasher: RandomState,
}

impl Connections {
    /// The hash that [`Connections::wait`] takes. Others cannot know it, so that no sender can choose keys with equal ones.
    pub fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Notes a row that waits, and with it its connection.
    pub fn wait(&mut self, key: &Key, hash: u64) -> ConnId {
        let names = &self.names;
        if let Some(&id) = self.table.find(hash, |id| names[*id as usize].key == *key) {
            self.slots[id as usize].waiting += 1;
            return id;
        }
        let name = Name { key: *key, hash };
        let fresh = Connection { latest: NONE, hellos: 0, waiting: 1, unmatched: (NO_REQUEST, NO_REQUEST) };
        let id = match self.free.pop() {
            Some(id) => {
                (self.names[id as usize], self.slots[id as usize]) = (name, fresh);
                id
            }
            None => {
                self.names.push(name);
                self.slots.push(fresh);
                (self.slots.len() - 1) as ConnId
            }
        };
        let names = &self.names;
        self.table.insert_unique(hash, id, |id| names[*id as usize].hash);
        id
    }

    /// A row waits no longer.
    pub fn done(&mut self, id: ConnId) {
        if id != UNKNOWN {
            self.slots[id as usize].waiting -= 1;
            self.forget_if_empty(id);
        }
    }

    /// Forgets a connection of which nothing waits and nothing is held.
    pub fn forget_if_empty(&mut self, id: ConnId) {
        let connection = &self.slots[id as usize];
        if connection.waiting > 0 || connection.latest != NONE {
            return;
        }
        if let Ok(entry) = self.table.find_entry(self.names[id as usize].hash, |other| *other == id) {
            entry.remove();
            self.free.push(id);
        }
    }

    /// How many connections are known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.len()
    }
}

impl std::ops::Index<ConnId> for Connections {
    type Output = Connection;

    fn index(&self, id: ConnId) -> &Connection {
        &self.slots[id as usize]
    }
}

impl std::ops::IndexMut<ConnId> for Connections {
    fn index_mut(&mut self, id: ConnId) -> &mut Connection {
        &mut self.slots[id as usize]
    }
}
