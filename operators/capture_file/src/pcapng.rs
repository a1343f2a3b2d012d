//! pcapng (draft-ietf-opsawg-pcapng): sections of blocks.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Range;

use crate::error::Error;
use crate::input::Input;
use crate::interface::Interface;
use crate::{Found, MAX_BLOCK, MAX_INTERFACES, MAX_PACKET};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, of before the enhanced one.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Type and length before a block's body, the length again behind it.
const HEAD: usize = 8;
const TAIL: usize = 4;

/// What stands before the data of an enhanced packet, and of an obsolete one.
const PACKET_HEAD: usize = 20;

/// A section, and what of the ones before it counts.
pub(crate) struct Pcapng {
    pub linktypes: BTreeSet<i32>,
    big: bool,
    /// Of this section.
    interfaces: Vec<Interface>,
    /// Bytes of their names.
    names: usize,
    /// Of the packet before, in ns.
    time: i64,
}

impl Pcapng {
    /// Reads the first section's header.
    pub fn new<R: Read>(input: &mut Input<R>) -> Result<Self, Error> {
        let mut file = Self { linktypes: BTreeSet::new(), big: false, interfaces: Vec::new(), names: 0, time: 0 };
        match file.block(input)? {
            Some(_) => Ok(file),
            None => Err(Error::empty()),
        }
    }

    pub fn next<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, Error> {
        loop {
            match self.block(input)? {
                None => return Ok(None),
                Some(Some(found)) => return Ok(Some(found)),
                Some(None) => {}
            }
        }
    }

    /// The name of an interface of this section.
    pub fn name(&self, interface: u32) -> Option<&str> {
        self.interfaces.get(interface as usize)?.name.as_deref()
    }

    pub fn held(&self) -> usize {
        self.interfaces.capacity() * size_of::<Interface>() + self.names
    }

    /// Reads a block; an inner `None` if it is no packet, an outer one at the end.
    fn block<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Option<Found>>, Error> {
        let place = input.place();
        if !input.fill(HEAD + TAIL)? {
            return match input.waiting() {
                0 => Ok(None),
                there => Err(Error::truncated(place, "a block", there, HEAD + TAIL)),
            };
        }
        // The type of a section header reads the same both ways; then comes, behind the length, which way it is.
        if u32::from_le_bytes(input.four(0)) == SECTION_HEADER {
            self.big = match input.four(HEAD) {
                order if u32::from_le_bytes(order) == ORDER_MAGIC => false,
                order if u32::from_be_bytes(order) == ORDER_MAGIC => true,
                _ => return Err(Error::corrupt(place, "a section header without its byte order")),
            };
        }
        let (kind, said) = (self.number(input.four(0)), self.number(input.four(4)));
        let length = said as usize;
        if length < HEAD + TAIL || !length.is_multiple_of(4) || length > MAX_BLOCK {
            let what = format!("a block of {length} bytes: {} at most, a multiple of 4, at least 12", MAX_BLOCK);
            return Err(Error::corrupt(place, what));
        }
        if !input.fill(length)? {
            let what = if matches!(kind, PACKET | SIMPLE_PACKET | ENHANCED_PACKET) { "a packet" } else { "a block" };
            return Err(Error::truncated(place, what, input.waiting(), length));
        }
        let again = self.number(input.four(length - TAIL));
        if again != said {
            return Err(Error::corrupt(place, format_args!("a block of {said} bytes, behind it {again}")));
        }
        let body = input.take(length).start + HEAD;
        let found = self.body(kind, input.bytes(body..body + length - HEAD - TAIL));
        match found {
            Ok(found) => Ok(Some(found.map(|mut found| {
                found.data = body + found.data.start..body + found.data.end;
                found
            }))),
            Err(what) => Err(Error::corrupt(place, what)),
        }
    }

    /// What a block says. A packet's data is at this place of the body. The error is what is wrong with it.
    fn body(&mut self, kind: u32, body: &[u8]) -> Result<Option<Found>, String> {
        match kind {
            SECTION_HEADER => self.section(body).map(|()| None),
            INTERFACE_DESCRIPTION => self.interface(body).map(|()| None),
            ENHANCED_PACKET | PACKET => self.packet(kind, body).map(Some),
            SIMPLE_PACKET => self.simple_packet(body).map(Some),
            _ => Ok(None),
        }
    }

    fn section(&mut self, body: &[u8]) -> Result<(), String> {
        // The length of the section, which may be unknown, is behind the version.
        let (true, Some([major, minor])) = (body.len() >= 16, self.halves(body, 4)) else {
            return Err(format!("a section header of {} bytes", body.len() + HEAD + TAIL));
        };
        // Version 1.2 is the same as 1.0.
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(format!("version {major}.{minor} of the format"));
        }
        self.interfaces.clear();
        self.names = 0;
        Ok(())
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), String> {
        let (Some([linktype, _]), Some(snaplen)) = (self.halves(body, 0), self.at(body, 4)) else {
            return Err(format!("an interface description of {} bytes", body.len()));
        };
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(format!("more than {MAX_INTERFACES} interfaces of a section"));
        }
        let interface = Interface::new(linktype, snaplen, &body[8..], self.big)?;
        self.linktypes.insert(interface.linktype);
        self.names += interface.name.as_ref().map_or(0, |name| name.len());
        self.interfaces.push(interface);
        Ok(())
    }

    fn packet(&mut self, kind: u32, body: &[u8]) -> Result<Found, String> {
        let words = [0, 4, 8, 12, 16].map(|at| self.at(body, at));
        let [Some(id), Some(high), Some(low), Some(captured), Some(wire_len)] = words else {
            return Err(format!("a packet of {} bytes", body.len()));
        };
        let id = match (kind, self.halves(body, 0)) {
            // Behind it there are packets that were dropped.
            (PACKET, Some([id, _])) => id.into(),
            _ => id,
        };
        let interface = self
            .interfaces
            .get(id as usize)
            .ok_or_else(|| format!("a packet of interface {id}, which is not described"))?;
        let data = data(body, PACKET_HEAD, captured)?;
        self.time = interface.time(u64::from(high) << 32 | u64::from(low));
        Ok(Found { time: self.time, linktype: interface.linktype, wire_len, interface: id, data })
    }

    /// A packet of the first interface, of which only the length on the wire is said.
    fn simple_packet(&mut self, body: &[u8]) -> Result<Found, String> {
        let wire_len = self.at(body, 0).ok_or("a simple packet without its length")?;
        let interface = self.interfaces.first().ok_or("a simple packet before any interface is described")?;
        let captured = match interface.snaplen {
            0 => wire_len,
            snaplen => wire_len.min(snaplen),
        };
        let data = data(body, 4, captured)?;
        Ok(Found { time: self.time, linktype: interface.linktype, wire_len, interface: 0, data })
    }

    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn at(&self, body: &[u8], at: usize) -> Option<u32> {
        Some(self.number(*body.get(at..)?.first_chunk()?))
    }

    /// Two numbers of 16 bits.
    fn halves(&self, body: &[u8], at: usize) -> Option<[u16; 2]> {
        let &[a, b, c, d] = body.get(at..)?.first_chunk()?;
        Some([[a, b], [c, d]].map(|half| if self.big { u16::from_be_bytes(half) } else { u16::from_le_bytes(half) }))
    }
}

/// The place of so many captured bytes behind what stands before them.
fn data(body: &[u8], from: usize, captured: u32) -> Result<Range<usize>, String> {
    let (captured, there) = (captured as usize, body.len().saturating_sub(from));
    if captured > MAX_PACKET {
        return Err(format!("a packet of {captured} bytes, of which there can be {MAX_PACKET}"));
    }
    if captured > there {
        return Err(format!("a packet of {captured} bytes in a block with {there}"));
    }
    Ok(from..from + captured)
}
