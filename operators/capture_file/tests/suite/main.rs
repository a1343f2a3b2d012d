//! Files made by writers of their own, read back.

mod classic;
mod compressed;
mod hostile;
mod pcapng;
mod property;
mod seeds;
mod writer;

use std::io::Read;

use capture_file::{CaptureFile, Error, Kind};

/// A record that keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    time: i64,
    linktype: i32,
    wire_len: u32,
    interface: u32,
    name: Option<String>,
    data: Vec<u8>,
}

/// All packets, and why there are no more.
fn all(input: impl Read) -> (Vec<Packet>, Option<Error>) {
    let mut packets = Vec::new();
    let mut file = match CaptureFile::new(input) {
        Ok(file) => file,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match file.next_record() {
            Ok(Some(record)) => packets.push(Packet {
                time: record.time,
                linktype: record.linktype,
                wire_len: record.wire_len,
                interface: record.interface,
                name: record.interface_name.map(str::to_owned),
                data: record.data.to_vec(),
            }),
            Ok(None) => return (packets, None),
            Err(error) => {
                assert!(file.next_record().is_ok_and(|record| record.is_none()), "an error is the end");
                return (packets, Some(error));
            }
        }
    }
}

/// All packets of a file that is whole.
fn whole(input: impl Read) -> Vec<Packet> {
    let (packets, error) = all(input);
    assert_eq!(error, None);
    packets
}

/// Why a file has no more packets, and how many came before.
fn fault(input: &[u8]) -> (usize, Kind, String) {
    let (packets, error) = all(input);
    let error = error.expect("an error");
    (packets.len(), error.kind(), error.to_string())
}

/// Hands out few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.1.min(into.len());
        self.0.read(&mut into[..bytes])
    }
}
