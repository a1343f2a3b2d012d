//! Cases, where they come from, and how bytes are changed.

use std::path::{Path, PathBuf};

/// Frames of one linktype.
#[derive(Debug, Clone)]
pub struct Case {
    pub linktype: i32,
    pub frames: Vec<Vec<u8>>,
    /// The bytes of a client in order, if the frames are made of them.
    pub stream: Option<Vec<u8>>,
    /// Much may be buffered, so that nothing is evicted before there are many pieces.
    pub roomy: bool,
}

impl Case {
    pub fn of(linktype: i32, frames: Vec<Vec<u8>>) -> Self {
        Self { linktype, frames, stream: None, roomy: false }
    }

    /// Bytes of all frames, with what the stream has besides.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(Vec::len).sum::<usize>() + self.stream.as_ref().map_or(0, Vec::len)
    }
}

/// A small generator (SplitMix64): equal runs for equal seeds.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}

/// Changes the order and number of parts, some of them for parts of another seed.
pub fn rearrange(parts: &mut Vec<Vec<u8>>, seeds: &[Vec<Vec<u8>>], random: &mut Random) {
    for _ in 0..random.below(4) {
        let (a, b) = (random.below(parts.len()), random.below(parts.len()));
        match random.below(4) {
            0 => parts.swap(a, b),
            1 => parts.insert(b, parts[a].clone()),
            2 if parts.len() > 1 => drop(parts.remove(a)),
            _ => {
                let other = random.pick(seeds);
                parts.insert(b, random.pick(other).clone());
            }
        }
    }
}

/// Changes some bytes and lengths; half of the changes hit the first `headers` bytes.
pub fn damage(parts: &mut [Vec<u8>], headers: usize, random: &mut Random) {
    const INTERESTING: [u8; 12] = [0, 1, 2, 3, 4, 0x0f, 0x16, 0x40, 0x7f, 0x80, 0xfe, 0xff];
    for _ in 0..=random.below(8) {
        let at = random.below(parts.len());
        let part = &mut parts[at];
        if part.is_empty() {
            continue;
        }
        let reach = if random.one_in(2) { part.len().min(headers) } else { part.len() };
        let place = random.below(reach);
        match random.below(6) {
            0 => part[place] ^= 1 << random.below(8),
            1 => part[place] = random.next() as u8,
            2 => part[place] = *random.pick(&INTERESTING),
            3 => part.truncate(place),
            4 => {
                let piece = part[place..part.len().min(place + random.below(64))].to_vec();
                part.splice(place..place, piece);
            }
            _ => drop(part.drain(place..part.len().min(place + random.below(32)))),
        }
    }
}

/// The pcap files of a folder, in the order of their names.
pub fn seeds(folder: &Path) -> Vec<Case> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths.iter().filter_map(|path| read(&std::fs::read(path).ok()?)).filter(|case| !case.frames.is_empty()).collect()
}

/// A pcap file in this machine's byte order.
fn read(file: &[u8]) -> Option<Case> {
    let number = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?));
    let (linktype, mut at, mut frames) = (number(20)? as i32, 24, Vec::new());
    while let Some(len) = number(at + 8) {
        frames.push(file.get(at + 16..at + 16 + len as usize)?.to_vec());
        at += 16 + len as usize;
    }
    Some(Case::of(linktype, frames))
}

pub fn pcap(case: &Case) -> Vec<u8> {
    let mut file = Vec::new();
    for number in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, case.linktype as u32] {
        file.extend(number.to_le_bytes());
    }
    for (at, frame) in case.frames.iter().enumerate() {
        for number in [at as u32, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(number.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}
