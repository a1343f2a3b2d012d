//! Bytes of a segment: a header, written twice, then framed records.
//!
//! All integers are little endian. The header holds what the frames do not repeat: each port's schema, and the log's
//! mark. The mark is random and the same for all segments of a log. Every frame begins with it, so a reader finds the
//! next frame after damage; because it is random, what a client sends cannot pass for a frame.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use arrow::ipc::{MetadataVersion, root_as_message};

/// The longest body of a record in bytes. A longer length in a file is damage.
pub(crate) const MAX_BODY: usize = 256 << 20;
/// The most rows of a record. More in a file is damage: columns that are added to them are allocated.
pub(crate) const MAX_ROWS: u32 = 1 << 24;
/// Length of a frame's header in bytes.
pub(crate) const FRAME: u64 = 64;
/// The header's two copies begin at multiples of this, so that one bad sector does not hit both.
pub(crate) const SECTOR: u64 = 4096;

const MAGIC: [u8; 8] = *b"JA4SPOOL";
const VERSION: u32 = 1;
/// Magic, version, length, CRC.
const PREFIX: usize = 20;
const MAX_HEADER: usize = 16 << 20;
/// No log gets this far; a position beyond it is damage.
const MAX_POSITION: u64 = 1 << 62;

/// The random bytes that every frame of a log begins with.
pub(crate) type Mark = [u8; 8];

/// A log's output ports: their names and schemas.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub list: Vec<(String, SchemaRef)>,
    /// Checksum of names and schemas: each frame says by it what it was written with.
    pub id: u32,
    bytes: Vec<u8>,
}

impl Ports {
    /// Says what is wrong if a schema has a type that the spool does not store.
    pub fn new(list: &[(String, SchemaRef)]) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let count = u16::try_from(list.len()).map_err(|_| "too many ports".to_owned())?;
        bytes.extend(count.to_le_bytes());
        for (name, schema) in list {
            if let Some(field) = schema.fields().iter().find(|field| !is_stored(field.data_type())) {
                return Err(format!("port `{name}`: column `{}` has type {}", field.name(), field.data_type()));
            }
            let options = IpcWriteOptions::default();
            let schema = IpcDataGenerator::default()
                .schema_to_bytes_with_dictionary_tracker(schema, &mut DictionaryTracker::new(true), &options)
                .ipc_message;
            for part in [name.as_bytes(), &schema] {
                let length = u32::try_from(part.len()).map_err(|_| "a schema is too large".to_owned())?;
                bytes.extend(length.to_le_bytes());
                bytes.extend(part);
            }
        }
        Ok(Self { list: list.to_vec(), id: crc32fast::hash(&bytes), bytes })
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let count = u16::from_le_bytes(take(&mut rest)?);
        let mut list = Vec::new();
        for _ in 0..count {
            let name = std::str::from_utf8(part(&mut rest)?).ok()?.to_owned();
            // Flatbuffers are read in place and must be aligned.
            let schema = part(&mut rest)?.to_vec();
            let schema = guarded(|| try_schema_from_flatbuffer_bytes(&schema)).ok()?;
            schema.fields().iter().all(|field| is_stored(field.data_type())).then_some(())?;
            list.push((name, Arc::new(schema)));
        }
        rest.is_empty().then(|| Self { list, id: crc32fast::hash(bytes), bytes: bytes.to_vec() })
    }
}

/// Whether the spool stores columns of this type. Types whose encoding refers to other messages are left out.
fn is_stored(ty: &DataType) -> bool {
    match ty {
        DataType::Dictionary(..) | DataType::Union(..) | DataType::RunEndEncoded(..) => false,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => is_stored(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_stored(field.data_type())),
        _ => true,
    }
}

/// What stands at the start of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub mark: Mark,
    /// Position of the first record.
    pub first: u64,
    /// Positions from here up to `first` hold nothing: when the log was opened, its end could not be read.
    pub skipped_from: u64,
    /// The last watermark before the first record.
    pub watermark: u64,
    pub ports: Arc<Ports>,
}

impl Header {
    /// Both copies, padded to whole sectors.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(32 + self.ports.bytes.len());
        payload.extend(self.mark);
        payload.extend(self.first.to_le_bytes());
        payload.extend(self.skipped_from.to_le_bytes());
        payload.extend(self.watermark.to_le_bytes());
        payload.extend(&self.ports.bytes);
        let mut block = Vec::with_capacity(PREFIX + payload.len());
        block.extend(MAGIC);
        block.extend(VERSION.to_le_bytes());
        block.extend((payload.len() as u32).to_le_bytes());
        block.extend(crc32fast::hash(&payload).to_le_bytes());
        block.extend(payload);
        block.resize(block.len().next_multiple_of(SECTOR as usize), 0);
        block.repeat(2)
    }

    /// The copy at the start of `bytes`, and its padded length.
    pub fn decode(bytes: &[u8]) -> Option<(Self, u64)> {
        let length = Self::length(bytes)?;
        let payload = bytes.get(PREFIX..PREFIX + length)?;
        let crc = u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?);
        (crc32fast::hash(payload) == crc).then_some(())?;
        let mut rest = payload;
        let mark = take(&mut rest)?;
        let first = u64::from_le_bytes(take(&mut rest)?);
        let skipped_from = u64::from_le_bytes(take(&mut rest)?);
        let watermark = u64::from_le_bytes(take(&mut rest)?);
        let ports = Arc::new(Ports::decode(rest)?);
        let padded = (PREFIX + length).next_multiple_of(SECTOR as usize) as u64;
        Some((Self { mark, first, skipped_from, watermark, ports }, padded))
    }

    /// Length of the payload, if a header of this version may begin here.
    pub fn length(bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        (take(&mut rest)? == MAGIC).then_some(())?;
        (u32::from_le_bytes(take(&mut rest)?) == VERSION).then_some(())?;
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        (length <= MAX_HEADER).then_some(length)
    }

    /// Bytes to read for a header with this payload.
    pub fn extent(payload: usize) -> usize {
        PREFIX + payload
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rows of a port.
    Batch = 1,
    /// Time has advanced to the frame's time.
    Watermark = 2,
    /// The segment is complete. Takes no position: its own is that of the next segment's first record.
    Seal = 3,
    /// Positions from the frame's up to its time hold nothing: a repair left out what was damaged.
    Gap = 4,
    /// Words of the one who writes.
    Note = 5,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: Kind,
    pub late: bool,
    pub port: u16,
    /// [`Ports::id`] of the schemas that it was written with.
    pub ports: u32,
    pub position: u64,
    /// Time of the message, or the watermark, in ms.
    pub time: u64,
    pub rows: u32,
    pub body: u32,
    /// Least event time in ns; `i64::MAX` if no row has one.
    pub least: i64,
    /// Greatest event time in ns; `i64::MIN` if no row has one.
    pub greatest: i64,
    pub body_crc: u32,
}

impl Frame {
    pub fn encode(&self, mark: &Mark) -> [u8; FRAME as usize] {
        let mut bytes = [0; FRAME as usize];
        bytes[0..8].copy_from_slice(mark);
        bytes[8] = self.kind as u8;
        bytes[9] = u8::from(self.late);
        bytes[10..12].copy_from_slice(&self.port.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.ports.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.time.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.rows.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.least.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.greatest.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if this is no whole header of a frame of this log.
    pub fn decode(bytes: &[u8], mark: &Mark) -> Option<Self> {
        let bytes: &[u8; FRAME as usize] = bytes.get(..FRAME as usize)?.try_into().ok()?;
        let mut rest = bytes.as_slice();
        (take::<8>(&mut rest)? == *mark).then_some(())?;
        (crc32fast::hash(&bytes[..60]).to_le_bytes() == bytes[60..]).then_some(())?;
        let [kind, flags] = take(&mut rest)?;
        let frame = Self {
            kind: match kind {
                1 => Kind::Batch,
                2 => Kind::Watermark,
                3 => Kind::Seal,
                4 => Kind::Gap,
                5 => Kind::Note,
                _ => return None,
            },
            late: flags & 1 == 1,
            port: u16::from_le_bytes(take(&mut rest)?),
            ports: u32::from_le_bytes(take(&mut rest)?),
            position: u64::from_le_bytes(take(&mut rest)?),
            time: u64::from_le_bytes(take(&mut rest)?),
            rows: u32::from_le_bytes(take(&mut rest)?),
            body: u32::from_le_bytes(take(&mut rest)?),
            least: i64::from_le_bytes(take(&mut rest)?),
            greatest: i64::from_le_bytes(take(&mut rest)?),
            body_crc: u32::from_le_bytes(take(&mut rest)?),
        };
        let sound = frame.position < MAX_POSITION && frame.body as usize <= MAX_BODY && frame.rows <= MAX_ROWS;
        let sound = sound && (frame.kind != Kind::Gap || (frame.position..MAX_POSITION).contains(&frame.time));
        sound.then_some(frame)
    }

    /// A frame with nothing but a kind and a position.
    pub fn bare(kind: Kind, position: u64) -> Self {
        Self {
            kind,
            late: false,
            port: 0,
            ports: 0,
            position,
            time: 0,
            rows: 0,
            body: 0,
            least: i64::MAX,
            greatest: i64::MIN,
            body_crc: 0,
        }
    }

    /// Whether it is an entry of the log, not a note about it.
    pub fn is_entry(&self) -> bool {
        matches!(self.kind, Kind::Batch | Kind::Watermark | Kind::Note)
    }

    /// Least position that the next frame can have.
    pub fn end(&self) -> u64 {
        match self.kind {
            Kind::Batch | Kind::Watermark | Kind::Note => self.position + 1,
            Kind::Seal => self.position,
            Kind::Gap => self.time,
        }
    }

    /// Length of the whole record in bytes.
    pub fn bytes(&self) -> u64 {
        FRAME + u64::from(self.body)
    }

    /// The greatest event time in ns that a row may have. Without event times it is the message's time.
    pub fn newest(&self) -> i64 {
        match self.kind {
            Kind::Batch if self.greatest == i64::MIN && self.rows > 0 => ms_to_ns(self.time),
            _ => self.greatest,
        }
    }
}

/// Milliseconds as nanoseconds, at most `i64::MAX`.
pub(crate) fn ms_to_ns(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

/// Encodes the bodies of one port: Arrow IPC messages without the schema.
pub(crate) struct Encoder(StreamEncoder);

impl Encoder {
    pub fn new(schema: &Schema) -> Result<Self, ArrowError> {
        // 8, not 64: a record of a few rows and many columns would be mostly padding.
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        let mut encoder = StreamEncoder::try_new_with_options(schema, options)?;
        // The first message is preceded by the schema, which stands in the segment's header already.
        encoder.encode(&RecordBatch::new_empty(Arc::new(schema.clone())))?;
        Ok(Self(encoder))
    }

    /// Appends the body of `rows` to `out`.
    pub fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let buffers = self.0.encode(rows)?;
        out.reserve(buffers.iter().map(Buffer::len).sum());
        buffers.iter().for_each(|buffer| out.extend_from_slice(buffer));
        Ok(())
    }
}

/// The rows in a body. A checksum says only that the bytes are those that were written: nothing else is relied on.
pub(crate) fn decode_rows(body: &Buffer, frame: &Frame, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let bad = || "not an Arrow message".to_owned();
    let mut rest = body.as_slice();
    if take(&mut rest) != Some([0xff; 4]) {
        return Err(bad());
    }
    let length = u32::from_le_bytes(take(&mut rest).ok_or_else(bad)?) as usize;
    let message = root_as_message(rest.get(..length).ok_or_else(bad)?).map_err(|error| error.to_string())?;
    let batch = message.header_as_record_batch().ok_or_else(bad)?;
    let data = body.slice(8 + length);
    // The decoder slices without looking.
    let fits = |from: i64, length: i64| {
        usize::try_from(from)
            .is_ok_and(|from| usize::try_from(length).is_ok_and(|n| data.len() >= from && data.len() - from >= n))
    };
    if batch.compression().is_some()
        || batch.length() != i64::from(frame.rows)
        || batch.buffers().is_none_or(|buffers| buffers.iter().any(|buffer| !fits(buffer.offset(), buffer.length())))
        || batch.nodes().is_none_or(|nodes| nodes.iter().any(|node| node.length() < 0 || node.null_count() < 0))
    {
        return Err(bad());
    }
    guarded(|| read_record_batch(&data, batch, schema.clone(), &Default::default(), None, &message.version()))
        .map_err(|error| error.to_string())
}

/// Arrow's decoders panic on some malformed input; here that is one more kind of damage.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(ArrowError::IpcError("malformed Arrow message".to_owned())))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// A length and that many bytes.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}
