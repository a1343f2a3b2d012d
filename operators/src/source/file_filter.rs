//! A filter on the packets of files: a program for each linktype that is met.

use std::collections::{BTreeSet, HashMap};

use pcap::{BpfProgram, Capture, Dead, Linktype};

use super::bpf::{Filter, message};

/// Programs that are kept. There are a dozen linktypes that can be decoded.
const MAX_PROGRAMS: usize = 64;

/// LINKTYPE_RAW of files is another number for libpcap (DLT_RAW).
const RAW: [i32; 2] = [101, 12];

/// Bytes up to which a packet is filled up so that it is as long as it was on the wire.
const MAX_FILLED: usize = 256 << 10;

/// What passes a filter.
#[derive(Default)]
pub(crate) struct FileFilter {
    filter: Filter,
    /// `None` passes everything.
    programs: HashMap<i32, Option<Program>>,
    filled: Vec<u8>,
}

struct Program {
    program: BpfProgram,
    /// It asks how long the packet was.
    by_length: bool,
}

impl Program {
    fn new(program: BpfProgram) -> Self {
        // BPF_LD+BPF_W+BPF_LEN and BPF_LDX+BPF_W+BPF_LEN; the code stands first.
        let asks = |code: &str| code.starts_with("128 ") || code.starts_with("129 ");
        let by_length = program.get_instructions().iter().any(|instruction| asks(&instruction.to_string()));
        Self { program, by_length }
    }
}

impl FileFilter {
    /// Of a filter, unless everything passes that.
    pub(crate) fn new(filter: &Filter) -> Option<Self> {
        (!filter.is_empty()).then(|| Self { filter: filter.clone(), ..Self::default() })
    }

    /// Whether a packet passes. One of a linktype that cannot be decoded passes if the filter cannot be compiled for that: it is
    /// counted where it is not decoded.
    ///
    /// # Errors
    /// libpcap's message, if the filter does not suit a linktype that can be.
    pub(crate) fn passes(&mut self, linktype: i32, wire_len: u32, data: &[u8]) -> Result<bool, String> {
        if !self.programs.contains_key(&linktype) {
            let many = self.programs.len() >= MAX_PROGRAMS && !client_hello::is_supported(linktype);
            let program = if many { None } else { compiled(&self.filter, linktype)? };
            if !many {
                self.programs.insert(linktype, program.map(Program::new));
            }
        }
        let Some(Some(Program { program, by_length })) = self.programs.get(&linktype) else { return Ok(true) };
        let length = (wire_len as usize).min(MAX_FILLED);
        if !by_length || length <= data.len() {
            return Ok(program.filter(data));
        }
        // libpcap's wrapper takes a packet to be as long as what was captured of it.
        self.filled.clear();
        self.filled.extend_from_slice(data);
        self.filled.resize(length, 0);
        Ok(program.filter(&self.filled))
    }
}

/// Checks that a filter can be compiled for these linktypes of a file; if there are none yet, for Ethernet.
///
/// # Errors
/// As [`FileFilter::passes`].
pub(crate) fn check(filter: &Filter, linktypes: &BTreeSet<i32>) -> Result<(), String> {
    if linktypes.is_empty() {
        return compiled(filter, Linktype::ETHERNET.0).map(drop);
    }
    linktypes.iter().take(MAX_PROGRAMS).try_for_each(|linktype| compiled(filter, *linktype).map(drop))
}

fn compiled(filter: &Filter, linktype: i32) -> Result<Option<BpfProgram>, String> {
    match program(filter, linktype) {
        Ok(program) => Ok(Some(program)),
        // What is wrong with the filter itself is wrong for Ethernet too.
        Err(_) if !client_hello::is_supported(linktype) => program(filter, Linktype::ETHERNET.0).map(|_| None),
        Err(error) => Err(error),
    }
}

fn program(filter: &Filter, linktype: i32) -> Result<BpfProgram, String> {
    let libpcaps = if linktype == RAW[0] { RAW[1] } else { linktype };
    let dead: Capture<Dead> = Capture::dead(Linktype(libpcaps)).map_err(|error| message(&error))?;
    filter.compile(&dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with a TCP segment from 40000 to `port`.
    fn packet(port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        packet.extend([40_000_u16.to_be_bytes(), port.to_be_bytes()].concat());
        packet.extend([0; 16]);
        packet
    }

    fn ethernet(packet: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &[8, 0], packet].concat()
    }

    #[test]
    fn each_linktype_has_its_program() {
        let mut filter = FileFilter::new(&Filter::new(Some("tcp port 443".into()), vec![])).expect("a filter");
        for port in [443, 80] {
            let (raw, frame) = (packet(port), ethernet(&packet(port)));
            let cooked = [&[0; 14][..], &[8, 0], &raw].concat();
            for (linktype, data) in [(1, &frame), (101, &raw), (12, &raw), (228, &raw), (113, &cooked), (1, &frame)] {
                assert_eq!(filter.passes(linktype, 60, data), Ok(port == 443), "{linktype} {port}");
            }
        }
        assert!(FileFilter::new(&Filter::new(Some(" ".into()), vec![])).is_none());
    }

    #[test]
    fn a_filter_by_length_means_the_length_on_the_wire() {
        let mut filter =
            FileFilter::new(&Filter::new(Some("greater 100 and tcp port 443".into()), vec![])).expect("a filter");
        let (frame, other) = (ethernet(&packet(443)), ethernet(&packet(80)));
        let got = [(&frame, 54), (&frame, 100), (&frame, u32::MAX), (&other, 200)]
            .map(|(data, wire)| filter.passes(1, wire, data));
        assert_eq!(got, [Ok(false), Ok(true), Ok(true), Ok(false)]);
        let mut less = FileFilter::new(&Filter::new(Some("less 100".into()), vec![])).expect("a filter");
        assert_eq!([54, 101].map(|wire| less.passes(1, wire, &frame)), [Ok(true), Ok(false)]);
    }

    #[test]
    fn what_cannot_be_decoded_passes_and_what_is_no_filter_is_an_error() {
        // LINKTYPE_USER0 has no ports.
        let mut filter = FileFilter::new(&Filter::new(None, vec![443])).expect("a filter");
        assert_eq!(filter.passes(147, 4, b"data"), Ok(true));
        for linktype in 20_000..21_000 {
            assert_eq!(filter.passes(linktype, 4, b"data"), Ok(true));
        }
        assert!(filter.programs.len() <= MAX_PROGRAMS);
        assert_eq!(filter.passes(101, 40, &packet(80)), Ok(false));
        let types = |list: &[i32]| list.iter().copied().collect::<BTreeSet<_>>();
        let wrong = Filter::new(Some("tcp prot 443".into()), vec![]);
        for list in [&[][..], &[1], &[147], &[101, 147]] {
            assert!(check(&wrong, &types(list)).is_err_and(|error| error.contains("syntax")), "{list:?}");
        }
        let of_ethernet = Filter::new(Some("vlan 7".into()), vec![]);
        assert_eq!((check(&of_ethernet, &types(&[1])), check(&of_ethernet, &types(&[147]))), (Ok(()), Ok(())));
        assert!(check(&of_ethernet, &types(&[1, 101])).is_err());
    }
}
