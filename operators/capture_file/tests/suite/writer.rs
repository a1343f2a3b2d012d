//! Writers of capture files that share no code with the readers.

/// Numbers in one byte order.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub big: bool,
}

impl Order {
    pub fn two(self, number: u16) -> [u8; 2] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub fn four(self, number: u32) -> [u8; 4] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub fn fours(self, numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| self.four(*number)).collect()
    }
}

/// The header of a classic file.
pub fn pcap_header(order: Order, magic: u32, version: (u16, u16), snaplen: u32, linktype: u32) -> Vec<u8> {
    let versions = [order.two(version.0), order.two(version.1)].concat();
    [order.four(magic).to_vec(), versions, order.fours(&[0, 0, snaplen, linktype])].concat()
}

/// A classic file of version 2.4: a packet each second, of which 9 bytes more were on the wire.
pub fn pcap(packets: &[&[u8]]) -> Vec<u8> {
    let order = Order { big: false };
    let mut file = pcap_header(order, 0xa1b2_c3d4, (2, 4), 65_535, 1);
    for (at, packet) in packets.iter().enumerate() {
        let length = packet.len() as u32;
        file.extend(order.fours(&[1_700_000_000 + at as u32, 5, length, length + 9]));
        file.extend(*packet);
    }
    file
}

/// Bytes with zeros up to a multiple of 4.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
    bytes
}

/// A pcapng file in the making.
#[derive(Debug, Clone)]
pub struct Pcapng {
    pub order: Order,
    pub file: Vec<u8>,
}

impl Pcapng {
    /// A file whose first section has this byte order.
    pub fn new(big: bool) -> Self {
        let mut new = Self { order: Order { big }, file: Vec::new() };
        new.section(big);
        new
    }

    pub fn block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let length = self.order.four(12 + padded(body).len() as u32);
        self.file.extend([&self.order.four(kind)[..], &length, &padded(body), &length].concat());
        self
    }

    pub fn section(&mut self, big: bool) -> &mut Self {
        self.order = Order { big };
        let version = [self.order.two(1), self.order.two(0)].concat();
        self.block(0x0a0d_0d0a, &[&self.order.four(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
    }

    /// Options as a block ends with them.
    pub fn options(&self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in options {
            bytes.extend(self.order.two(*code));
            bytes.extend(self.order.two(value.len() as u16));
            bytes.extend(padded(value));
        }
        if !options.is_empty() {
            bytes.extend([0; 4]);
        }
        bytes
    }

    pub fn interface(&mut self, linktype: u16, snaplen: u32, options: &[(u16, &[u8])]) -> &mut Self {
        let head = [&self.order.two(linktype)[..], &[0, 0], &self.order.four(snaplen)].concat();
        let options = self.options(options);
        self.block(1, &[head, options].concat())
    }

    pub fn enhanced(
        &mut self,
        interface: u32,
        time: u64,
        wire_len: u32,
        data: &[u8],
        options: &[(u16, &[u8])],
    ) -> &mut Self {
        let head = self.order.fours(&[interface, (time >> 32) as u32, time as u32, data.len() as u32, wire_len]);
        let options = self.options(options);
        self.block(6, &[head, padded(data), options].concat())
    }

    pub fn obsolete(&mut self, interface: u16, time: u64, wire_len: u32, data: &[u8]) -> &mut Self {
        let head = [self.order.two(interface), self.order.two(7)].concat();
        let words = self.order.fours(&[(time >> 32) as u32, time as u32, data.len() as u32, wire_len]);
        self.block(2, &[head, words, data.to_vec()].concat())
    }

    pub fn simple(&mut self, wire_len: u32, data: &[u8]) -> &mut Self {
        let head = self.order.four(wire_len);
        self.block(3, &[&head[..], data].concat())
    }
}

/// Two packets of an interface `eth0` in pcapng.
pub fn pcapng() -> Vec<u8> {
    let mut file = Pcapng::new(false);
    file.interface(1, 0, &[(2, b"eth0"), (9, &[9])]);
    file.enhanced(0, 1_700_000_000_000_000_001, 60, b"first", &[]).enhanced(
        0,
        1_700_000_001_000_000_002,
        6,
        b"second",
        &[],
    );
    file.file
}

/// A file in the format of xz of bytes that are not compressed, which LZMA2 allows (`check` 0 is none, 1 is CRC32).
pub fn xz(bytes: &[u8], dictionary: u8, check: u8) -> Vec<u8> {
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let mut file = b"\xfd7zXZ\0".to_vec();
    file.extend([0, check]);
    file.extend(crc(&[0, check]));
    // The block: header of 12 bytes with the filter LZMA2, chunks of at most 64 KiB, check.
    let header = [2, 0, 0x21, 1, dictionary, 0, 0, 0];
    let mut block = [&header[..], &crc(&header)].concat();
    for (nth, chunk) in bytes.chunks(1 << 16).enumerate() {
        block.push(if nth == 0 { 1 } else { 2 });
        block.extend((chunk.len() as u16).wrapping_sub(1).to_be_bytes());
        block.extend(chunk);
    }
    block.push(0);
    let unpadded = block.len() + usize::from(check) * 4;
    block = padded(&block);
    if check == 1 {
        block.extend(crc(bytes));
    }
    file.extend(&block);
    let mut index = vec![0, 1];
    for mut number in [unpadded, bytes.len()] {
        while number >= 0x80 {
            index.push(number as u8 | 0x80);
            number >>= 7;
        }
        index.push(number as u8);
    }
    index = padded(&index);
    index.extend(crc(&index));
    let mut footer = ((index.len() as u32) / 4 - 1).to_le_bytes().to_vec();
    footer.extend([0, check]);
    [file, index, crc(&footer).to_vec(), footer, b"YZ".to_vec()].concat()
}
