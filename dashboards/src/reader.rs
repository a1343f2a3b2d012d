//! Statements over a catalog without a web service, for commands that read stored tables in their own process. What is asked
//! is checked, planned and bounded as `POST /sql` does it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use engine::catalog::Catalog;
use tokio::runtime::{Builder, Runtime};

use crate::Limits;
use crate::error::Error;
use crate::given::Given;
use crate::output::{Format, Output};
use crate::query::{Executor, STACK_BYTES, Statement};

/// Answers statements over a catalog, one at a time.
#[derive(Debug)]
pub struct Reader {
    catalog: Arc<Catalog>,
    limits: Limits,
    executor: Arc<Executor>,
    runtime: Runtime,
}

/// The rows of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// As an Arrow IPC stream.
    pub arrow: Vec<u8>,
    /// The statement has more rows than these.
    pub truncated: bool,
}

impl Reader {
    /// A reader of these tables.
    ///
    /// # Errors
    /// If the threads that run queries cannot be started.
    pub fn new(catalog: Arc<Catalog>, limits: Limits) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("sql")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        let executor = Arc::new(Executor::new(limits.clone())?);
        Ok(Self { catalog, limits, executor, runtime })
    }

    /// The rows of one reading statement. It must not be called on a thread that drives futures.
    ///
    /// # Errors
    /// What is wrong with the statement, with what may help.
    pub fn ask(&self, sql: &str) -> Result<Rows, String> {
        let output = Output { format: Format::Arrow, quoted: false, harmless: false };
        let statement = Statement { sql: sql.to_owned(), parameters: BTreeMap::new(), output };
        let tables: Vec<Arc<Given>> = self.catalog.tables().iter().map(|table| Arc::new(Given::now(table))).collect();
        let (executor, timeout) = (Arc::clone(&self.executor), self.limits.timeout);
        let task = self.runtime.spawn(async move {
            let answer = tokio::time::timeout(timeout, executor.run(statement, &tables)).await;
            answer.unwrap_or(Err(Error::Timeout(timeout)))
        });
        let answer = self.runtime.block_on(task).unwrap_or_else(|error| Err(Error::Failed(error.to_string())));
        match answer {
            Err(Error::Failed(cause)) => Err(cause),
            Ok(encoded) => Ok(Rows { arrow: encoded.body, truncated: encoded.truncated }),
            Err(error) => Err(error.help().map_or_else(|| error.to_string(), |help| format!("{error}; {help}"))),
        }
    }
}
