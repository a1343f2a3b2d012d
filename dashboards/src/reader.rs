//! Statements over a catalog without a web service, for commands that read stored tables in their own process. What is asked
//! is checked, planned and bounded as `POST /sql` does it.

use std::io;
use std::sync::Arc;

use engine::catalog::Catalog;
use tokio::runtime::{Builder, Runtime};

use crate::Limits;
use crate::output::{Format, Output};
use crate::query::Queries;

/// Answers statements over a catalog, one at a time.
#[derive(Debug)]
pub struct Reader {
    queries: Queries,
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
        let runtime = Builder::new_current_thread().enable_time().build()?;
        Ok(Self { queries: Queries::new(catalog, limits)?, runtime })
    }

    /// The rows of one reading statement. It must not be called on a thread that drives futures.
    ///
    /// # Errors
    /// What is wrong with the statement, with what may help.
    pub fn ask(&self, sql: &str) -> Result<Rows, String> {
        let output = Output { format: Format::Arrow, quoted: false, harmless: false };
        let answer = self.runtime.block_on(self.queries.run(sql.to_owned(), output));
        match answer {
            Ok(encoded) => Ok(Rows { arrow: encoded.body, truncated: encoded.truncated }),
            Err(error) => Err(error.help().map_or_else(|| error.to_string(), |help| format!("{error}; {help}"))),
        }
    }
}
