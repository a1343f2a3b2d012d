//! Immutable Arrow batches in sealed memory files, which several processes read without a copy.
//!
//! [`Sealed::write`] puts batches into a memory file (`memfd_create(2)`) as an Arrow IPC stream and seals it: from then on nobody
//! can write to it, shorten it or lengthen it, also whoever holds its descriptor. Another process gets the descriptor over a
//! Unix socket ([`crate::send`], [`crate::receive`]) and opens it by [`Sealed::open`], which refuses a file that is not sealed so. Both map the
//! file, and the arrays of the batches point into the mapping: the rows are in memory once, however many read them.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// After these nobody can change a file, and to read a mapping of it can never fail.
const SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// The next [`Sealed::id`].
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Batches of one schema in a sealed memory file. The memory is given back when the last process has dropped it, and every array
/// that points into it.
#[derive(Debug)]
pub struct Sealed {
    id: u64,
    file: OwnedFd,
    bytes: usize,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Sealed {
    /// Copies batches of this schema into a memory file and seals it.
    ///
    /// # Errors
    /// If the system has no memory or no descriptor left, or a batch is not of the schema.
    pub fn write<'a>(schema: &SchemaRef, batches: impl IntoIterator<Item = &'a RecordBatch>) -> io::Result<Self> {
        let file = File::from(memory_file()?);
        let mut writer =
            StreamWriter::try_new(BufWriter::with_capacity(1 << 20, &file), schema).map_err(io::Error::other)?;
        for batch in batches {
            if batch.schema_ref() != schema {
                return Err(io::Error::new(ErrorKind::InvalidInput, "rows of another schema"));
            }
            writer.write(batch).map_err(io::Error::other)?;
        }
        let written = writer.into_inner().map_err(io::Error::other)?;
        written.into_inner().map_err(|error| error.into_error())?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Self::open(file.into(), NEXT.fetch_add(1, Relaxed))
    }

    /// Maps a file that [`Sealed::write`] has made, here or in another process. `id` is what [`Sealed::id`] says.
    ///
    /// # Errors
    /// If the file is not sealed, or does not hold an Arrow IPC stream.
    pub fn open(file: OwnedFd, id: u64) -> io::Result<Self> {
        let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SEALS) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the memory file is not sealed"));
        }
        let mapping = map(file.as_fd())?;
        let bytes = mapping.len();
        let mut rest = Buffer::from(Bytes::from_owner(mapping));
        let mut decoder = StreamDecoder::new().with_require_alignment(true);
        let mut batches = Vec::new();
        while !rest.is_empty() {
            batches.extend(decoder.decode(&mut rest).map_err(io::Error::other)?);
        }
        let schema =
            decoder.schema().ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the memory file has no schema"))?;
        decoder.finish().map_err(io::Error::other)?;
        Ok(Self { id, file, bytes, schema, batches })
    }

    /// A number that no other value in the process that wrote the batches has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of the memory file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batches, as they were written. Their arrays point into the mapping.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The rows of all batches.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A memory file that is not sealed yet. Some systems want it said that it is no program (`vm.memfd_noexec`), others do not know
/// the flag.
fn memory_file() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create("rows", flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL)) {
        Err(Errno::EINVAL) => Ok(memfd_create("rows", flags)?),
        made => Ok(made?),
    }
}

/// The file's content. The caller has made sure that it carries [`SEALS`].
#[expect(
    unsafe_code,
    reason = "a mapping is a slice only as long as nobody changes the file, which the type system cannot know"
)]
fn map(sealed: BorrowedFd<'_>) -> io::Result<Mmap> {
    // SAFETY: The file is sealed against writing, shrinking and further seals (fcntl(2), "File Sealing"): its bytes never change
    // and no page of the mapping can go away, whatever another process does with the descriptor. The mapping is read-only. (It is
    // private, which shares the pages all the same: Linux before 6.7 refuses a shared mapping of such a file.)
    unsafe { MmapOptions::new().map_copy_read_only(&sealed) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, BooleanArray, DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};

    use super::*;
    use crate::{receive, send};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("text", DataType::Utf8, true),
            Field::new("flag", DataType::Boolean, true),
            Field::new_dictionary("word", DataType::Int32, DataType::Utf8, true),
        ]))
    }

    fn rows(from: i64, to: i64) -> RecordBatch {
        let texts: Vec<Option<String>> = (from..to).map(|n| (n % 3 != 0).then(|| format!("text {n}"))).collect();
        let words: DictionaryArray<Int32Type> = (from..to).map(|n| if n % 2 == 0 { "even" } else { "odd" }).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(from..to)),
            Arc::new(StringArray::from_iter(texts)),
            Arc::new(BooleanArray::from_iter((from..to).map(|n| (n % 5 != 0).then_some(n % 7 == 0)))),
            Arc::new(words),
        ];
        RecordBatch::try_new(schema(), columns).expect("of the schema")
    }

    #[test]
    fn what_comes_back_is_what_was_written_and_lies_in_the_mapping() {
        // Slices too: an offset into another array's memory is not carried over.
        let written = [rows(0, 1000), rows(1000, 5000).slice(17, 900), rows(0, 0)];
        let sealed = Sealed::write(&schema(), &written).expect("memory");
        let came: Vec<&RecordBatch> = sealed.batches().iter().collect();
        assert_eq!(came, written.iter().collect::<Vec<_>>());
        assert_eq!(sealed.rows(), 1900);
        let values = came[1].column(0).as_primitive::<Int64Type>().values();
        assert!((values.as_ptr() as usize).is_multiple_of(64), "aligned, so that nothing is copied");
    }

    #[test]
    fn a_sealed_file_cannot_be_changed_and_another_is_refused() {
        let sealed = Sealed::write(&schema(), &[rows(0, 100)]).expect("memory");
        let mut file = File::from(sealed.as_fd().try_clone_to_owned().expect("a descriptor"));
        assert!(file.write(b"x").is_err(), "written to");
        assert!(file.set_len(0).is_err() && file.set_len(1 << 20).is_err(), "another length");
        let open = memfd_create("open", MFdFlags::MFD_ALLOW_SEALING).expect("a file");
        File::from(open.try_clone().expect("a descriptor")).write_all(b"rows").expect("written");
        assert!(Sealed::open(open, 1).is_err(), "not sealed");
    }

    #[test]
    fn descriptors_and_bytes_pass_a_socket_together() {
        let (here, there) = UnixStream::pair().expect("sockets");
        let sealed: Vec<Sealed> =
            (0..3).map(|n| Sealed::write(&schema(), &[rows(n, n + 10)]).expect("memory")).collect();
        let descriptors: Vec<BorrowedFd<'_>> = sealed.iter().map(AsFd::as_fd).collect();
        send(&here, b"three", &descriptors).expect("sent");
        let mut bytes = [0; 5];
        let came = receive(&there, &mut bytes).expect("received");
        assert_eq!((&bytes, came.len()), (b"three", 3));
        for (file, sealed) in came.into_iter().zip(&sealed) {
            assert_eq!(Sealed::open(file, 9).expect("sealed").batches(), sealed.batches());
        }
        drop(here);
        assert!(receive(&there, &mut bytes).is_err(), "the other end is closed");
    }
}
