//! A query process: it takes one query at a time from its standard input, which is a socket, and answers there.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use engine::catalog::{History, Segment, Stored};
use serde_json::Value;
use system::Sealed;
use tokio::runtime::{Builder, Runtime};

use super::confine::confine;
use super::wire::{self, Ask, Begin, Order, Refused, Reply, SegmentNow, StoredNow, TableNow};
use crate::error::Error;
use crate::given::Given;
use crate::query::{Encoded, Executor, STACK_BYTES};

/// Characters of what is said of an error.
const MAX_TEXT: usize = 4096;

/// Opens the place that a table's older rows are read from, of what [`History::describe`] said.
/// The schema is that of the table.
pub type OpenHistory = fn(&Value, &SchemaRef) -> Result<Arc<dyn History>, String>;

/// The whole life of a query process. Its standard input is the socket of the run that has started it; it ends when that is closed.
pub fn query_process(open_history: OpenHistory) -> ExitCode {
    match serve(open_history) {
        Ok(()) => ExitCode::SUCCESS,
        // The run sees that the socket is closed.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(open_history: OpenHistory) -> io::Result<()> {
    system::close_inherited()?;
    system::ignore_ends();
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (order, _) = wire::receive(&socket)?;
    let Order::Begin(begin) = order else { return Err(io::ErrorKind::InvalidData.into()) };
    let missing = confine(&begin).map_err(io::Error::other)?;
    let mut process = Process::new(begin, open_history)?;
    wire::send(&socket, &Reply::Ready(missing), &[])?;
    loop {
        let (order, descriptors) = match wire::receive(&socket) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            received => received?,
        };
        match order {
            Order::Begin(_) => return Err(io::ErrorKind::InvalidData.into()),
            Order::Take(ids) => {
                for (id, file) in ids.into_iter().zip(descriptors) {
                    process.rows.insert(id, Sealed::open(file, id)?);
                }
            }
            Order::Forget(ids) => ids.iter().for_each(|id| drop(process.rows.remove(id))),
            Order::Ask(ask) => match process.answer(*ask) {
                Ok(answer) => {
                    let bytes = answer.body.len();
                    wire::send(&socket, &Reply::Rows { rows: answer.rows, truncated: answer.truncated, bytes }, &[])?;
                    wire::send_all(&socket, &answer.body)?;
                }
                Err(reply) => wire::send(&socket, &reply, &[])?,
            },
        }
    }
}

struct Process {
    executor: Arc<Executor>,
    runtime: Runtime,
    open_history: OpenHistory,
    /// Rows in memory, by the number of their file.
    rows: HashMap<u64, Sealed>,
}

impl Process {
    fn new(begin: Begin, open_history: OpenHistory) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(2)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        let executor = Arc::new(Executor::new(begin.limits)?);
        Ok(Self { executor, runtime, open_history, rows: HashMap::new() })
    }

    fn answer(&self, ask: Ask) -> Result<Encoded, Reply> {
        let tables = ask.tables.into_iter().map(|table| self.given(table).map(Arc::new)).collect::<Result<Vec<_>, _>>();
        let tables = tables.map_err(|cause| refused(&Error::Internal, Some(cause)))?;
        let executor = Arc::clone(&self.executor);
        let task = self.runtime.spawn(async move { executor.run(ask.statement, &tables).await });
        match self.runtime.block_on(task) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::Gone)) => Err(Reply::Gone),
            Ok(Err(Error::Failed(cause))) => Err(refused(&Error::Internal, Some(cause))),
            Ok(Err(error)) => Err(refused(&error, None)),
            Err(error) => {
                let cause = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| said(panic.as_ref()));
                Err(refused(&Error::Internal, Some(cause)))
            }
        }
    }

    fn given(&self, table: TableNow) -> Result<Given, String> {
        let known = |id: u64| self.rows.get(&id).ok_or_else(|| format!("rows of {} are missing", table.name));
        let batch = |(id, at): &(u64, usize)| {
            known(*id)?.batches().get(*at).cloned().ok_or_else(|| format!("rows of {} are missing", table.name))
        };
        let segment = |segment: SegmentNow| {
            let mut there = Segment::new(segment.path, segment.rows, segment.bytes);
            there.unread = segment.unread;
            there
        };
        let schema = Arc::clone(known(table.schema)?.schema());
        let stored = |stored: StoredNow| {
            let place = (self.open_history)(&stored.place, &schema)?;
            Ok::<_, String>(Stored { place, before: stored.before, gap: stored.gap })
        };
        Ok(Given {
            hot: table.hot.iter().map(batch).collect::<Result<_, _>>()?,
            segments: table.segments.into_iter().map(segment).collect(),
            stored: table.stored.map(stored).transpose()?,
            schema,
            name: table.name,
            hot_rows: table.hot_rows,
            is_read: table.is_read,
        })
    }
}

fn refused(error: &Error, cause: Option<String>) -> Reply {
    let cut = |text: String| text.chars().take(MAX_TEXT).collect();
    Reply::Refused(Refused {
        status: error.status().as_u16(),
        message: cut(error.to_string()),
        help: error.help().map(cut),
        cause: cause.map(cut),
    })
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
