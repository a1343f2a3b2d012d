//! Writes the classic format (draft-ietf-opsawg-pcap), little-endian, with times in ns.

use std::io::{self, Write};

use crate::Record;

/// Of a file whose times are in ns.
const MAGIC: u32 = 0xa1b2_3c4d;

/// The version that is in use since 1998.
const VERSION: [u16; 2] = [2, 4];

/// The largest packet that libpcap reads (MAXIMUM_SNAPLEN).
const LARGEST: u32 = 256 << 10;

/// A classic capture file that is written from its beginning to its end, all of one linktype.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut bytes = Vec::new();
/// let mut writer = capture_file::PcapWriter::new(&mut bytes, 1)?;
/// let packet = capture_file::Record { time: 7, linktype: 1, wire_len: 60, interface: 0, interface_name: None, data: &[1, 2] };
/// assert!(writer.write(&packet)?);
/// let mut file = capture_file::CaptureFile::new(&bytes[..])?;
/// assert_eq!(file.next_record()?, Some(packet));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PcapWriter<W: Write> {
    output: W,
    linktype: i32,
}

impl<W: Write> PcapWriter<W> {
    /// Begins a file of packets of this linktype (`LINKTYPE_…`), which a file has in 26 bits.
    ///
    /// # Errors
    /// If its header cannot be written.
    pub fn new(mut output: W, linktype: i32) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC.to_le_bytes());
        header.extend(VERSION.iter().flat_map(|part| part.to_le_bytes()));
        // The zone's offset and the accuracy of times, which nobody fills in.
        header.extend([0; 8]);
        header.extend(LARGEST.to_le_bytes());
        header.extend((linktype as u32 & 0x03ff_ffff).to_le_bytes());
        output.write_all(&header)?;
        Ok(Self { output, linktype })
    }

    /// Adds a packet. False, and nothing is written, if the format cannot hold it: it is of another linktype, longer than
    /// 256 KiB, or its time is before 1970 or after 2106.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, record: &Record<'_>) -> io::Result<bool> {
        let captured = u32::try_from(record.data.len()).ok().filter(|captured| *captured <= LARGEST);
        let seconds = u32::try_from(record.time.div_euclid(1_000_000_000)).ok();
        let (Some(captured), Some(seconds)) = (captured, seconds) else { return Ok(false) };
        if record.linktype != self.linktype {
            return Ok(false);
        }
        let fraction = record.time.rem_euclid(1_000_000_000) as u32;
        let mut header = [0; 16];
        for (at, number) in [seconds, fraction, captured, record.wire_len].into_iter().enumerate() {
            header[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
        }
        self.output.write_all(&header)?;
        self.output.write_all(record.data)?;
        Ok(true)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If what is buffered cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CaptureFile;

    #[test]
    fn what_is_written_is_read_again() {
        let record =
            |time, data| Record { time, linktype: 113, wire_len: 70_000, interface: 0, interface_name: None, data };
        let long = vec![5; LARGEST as usize];
        let packets = [record(0, &[][..]), record(4_294_967_295_999_999_999, &[1, 2, 3]), record(1, &long)];
        let mut writer = PcapWriter::new(Vec::new(), 113).expect("written");
        for packet in &packets {
            assert!(writer.write(packet).expect("written"));
        }
        let too_long = vec![5; LARGEST as usize + 1];
        for refused in [
            record(-1, &[]),
            record(4_294_967_296_000_000_000, &[]),
            record(0, &too_long),
            Record { linktype: 1, ..record(0, &[]) },
        ] {
            assert!(!writer.write(&refused).expect("no fault"), "{} of {}", refused.time, refused.data.len());
        }
        let bytes = writer.finish().expect("written");
        let mut file = CaptureFile::new(&bytes[..]).expect("a capture");
        for packet in packets {
            assert_eq!(file.next_record().expect("readable"), Some(packet));
        }
        assert_eq!(file.next_record().expect("readable"), None);
    }
}
