//! From entries to records: a position, a frame and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::Entry;
use crate::adapt::{adapt, event_times};
use crate::format::{Encoder, FRAME, Frame, Kind, MAX_BODY, MAX_ROWS, Mark};
use crate::state::LogState;

/// A record that is not durable yet.
pub(crate) struct Item {
    pub frame: Frame,
    pub bytes: Vec<u8>,
    pub entry: Arc<Entry>,
    /// What it counts for in the queue.
    pub queued: u64,
}

/// Gives entries their positions.
pub(crate) struct Intake {
    shared: Arc<LogState>,
    encoders: Vec<Encoder>,
    mark: Mark,
    /// Position of the next record.
    next: u64,
}

impl Intake {
    pub fn new(shared: Arc<LogState>, next: u64) -> Result<Self, ArrowError> {
        let encoders = shared.ports.list.iter().map(|(_, schema)| Encoder::new(schema)).collect::<Result<_, _>>()?;
        let mark = shared.index.lock().mark;
        Ok(Self { shared, encoders, mark, next })
    }

    /// Adds the records of an entry, nearly always one.
    pub fn admit(&mut self, entry: Entry, queued: u64, records: &mut VecDeque<Item>) {
        let Entry::Batch { port, time, late, rows } = entry else {
            let mut bytes = vec![0; FRAME as usize];
            if let Entry::Note(text) = &entry {
                bytes.extend_from_slice(text);
            }
            return records.push_back(self.record(bytes, entry, queued));
        };
        let count = rows.num_rows();
        match self.encode(port, rows) {
            Some((rows, bytes)) if bytes.len() <= MAX_BODY && count <= MAX_ROWS as usize => {
                records.push_back(self.record(bytes, Entry::Batch { port, time, late, rows }, queued));
            }
            // Too large for one record.
            Some((rows, _)) if count > 1 => {
                let half = count / 2;
                for (part, queued) in
                    [(rows.slice(0, half), queued / 2), (rows.slice(half, count - half), queued - queued / 2)]
                {
                    self.admit(Entry::Batch { port, time, late, rows: part }, queued, records);
                }
            }
            _ => {
                if self.shared.counters.refused_records.fetch_add(1, Relaxed) == 0 {
                    let spool = self.shared.settings.dir.display();
                    tracing::error!(%spool, port, rows = count, "rows that do not fit their port's schema are not stored");
                }
                self.shared.counters.refused_rows.fetch_add(count as u64, Relaxed);
                self.shared.counters.queued_bytes.fetch_sub(queued, Relaxed);
            }
        }
    }

    /// The rows in their port's schema, and their body after room for the frame.
    fn encode(&mut self, port: usize, rows: RecordBatch) -> Option<(RecordBatch, Vec<u8>)> {
        let rows = adapt(rows, &self.shared.ports.list.get(port)?.1)?;
        let mut bytes = vec![0; FRAME as usize];
        self.encoders.get_mut(port)?.encode(&rows, &mut bytes).ok()?;
        Some((rows, bytes))
    }

    /// The next record, from its body after room for the frame.
    fn record(&mut self, mut bytes: Vec<u8>, entry: Entry, queued: u64) -> Item {
        let body = &bytes[FRAME as usize..];
        let (length, crc) = (body.len() as u32, crc32fast::hash(body));
        let bare = Frame {
            ports: self.shared.ports.id,
            body: length,
            body_crc: crc,
            ..Frame::bare(Kind::Watermark, self.next)
        };
        let frame = match &entry {
            Entry::Watermark(time) => Frame { time: *time, ..bare },
            Entry::Note(_) => Frame { kind: Kind::Note, ..bare },
            Entry::Batch { port, time, late, rows } => {
                let (least, greatest) = event_times(rows);
                let (port, rows) = (*port as u16, rows.num_rows() as u32);
                Frame { kind: Kind::Batch, port, time: *time, late: *late, rows, least, greatest, ..bare }
            }
        };
        bytes[..FRAME as usize].copy_from_slice(&frame.encode(&self.mark));
        self.next += 1;
        Item { frame, bytes, entry: Arc::new(entry), queued }
    }
}
