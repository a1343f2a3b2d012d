//! Delivers one insert: the server takes it, or those of its rows that it refuses are put away as dead letters.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use engine::contract::NodeMetrics;
use engine::contract::printable;
use migrations::server::ServerError;
use migrations::sql::identifier;

use super::dead_letters::{self, DeadLetters};
use super::encode::Layout;
use super::part::Part;
use super::refusal::{is_of_access, is_of_rows};
use super::sender::{FIRST_PAUSE, Shared, Target, check, rest};
use super::splits::Splits;

/// Bytes that are compressed and sent at a time.
const CHUNK: usize = 256 * 1024;

/// How often an insert is split at most. One refused row of 200,000 takes 18 splits; thirty of them, far apart, some 400.
const MOST_SPLITS: usize = 1023;

/// How often while the server has taken no part of it: it may refuse all rows there are.
const MOST_IN_VAIN: usize = 63;

/// Of inserts of a stream's rows, for the views behind the table. A view's query has one row a key of what it is given, so
/// nothing is left for its table to put together before that is written. And it runs on one thread: groups in two levels,
/// which threads would share, are only copied together again. Both cost the server more than the aggregation itself.
/// Of a relation's rows the table keeps the newest, which is worth doing at once.
const FOR_VIEWS: [(&str, &str); 3] =
    [("optimize_on_insert", "0"), ("group_by_two_level_threshold", "0"), ("group_by_two_level_threshold_bytes", "0")];

/// What a table's inserts have in common.
pub(super) struct Courier {
    pub target: Target,
    pub letters: DeadLetters,
    pub splits: Splits,
    pub shared: Arc<Shared>,
    pub metrics: Arc<NodeMetrics>,
}

/// What became of rows that were sent until something did.
enum Outcome {
    Taken,
    Buried,
    /// Their halves are to be sent.
    Split,
}

impl Courier {
    /// Delivers an insert. Whether everything went well at once.
    ///
    /// What the server refuses because of some rows is split in halves, and these again, until what is refused is single
    /// rows or the budget is used up. Every piece is named by the insert and its place there, and that something is split
    /// is durable before the halves are sent: whoever sends the insert again sends the same pieces.
    ///
    /// # Errors
    /// If what was split before is not known.
    pub async fn deliver(&self, part: &Part) -> Result<bool, String> {
        let mut smooth = true;
        let (mut splits, mut taken) = (self.splits.count(&part.token)?, 0);
        let mut open = VecDeque::new();
        open.push_back(0..part.rows());
        while let Some(rows) = open.pop_front() {
            let outcome = if self.splits.has(&part.token, &rows)? {
                Outcome::Split
            } else {
                let may_split = splits < if taken == 0 { MOST_IN_VAIN } else { MOST_SPLITS };
                let piece = if rows.len() == part.rows() { None } else { Some(self.piece(part, &rows)?) };
                let outcome = self.send(part, &rows, piece.as_ref().unwrap_or(part), may_split, &mut smooth).await;
                splits += usize::from(matches!(outcome, Outcome::Split));
                outcome
            };
            match outcome {
                Outcome::Taken => taken += 1,
                Outcome::Buried => {}
                Outcome::Split => {
                    smooth = false;
                    let middle = rows.start + rows.len() / 2;
                    let halves = [rows.start..middle, middle..rows.end];
                    if self.target.layout.is_ordered() {
                        halves.into_iter().rev().for_each(|half| open.push_front(half));
                    } else {
                        // All of a size first, so that the budget is spent evenly.
                        open.extend(halves);
                    }
                }
            }
        }
        Ok(smooth)
    }

    fn piece(&self, part: &Part, rows: &Range<usize>) -> Result<Part, String> {
        part.piece(rows).map_err(|error| format!("rows of {} cannot be encoded: {error}", self.target.name))
    }

    /// Sends rows of an insert until something has become of them.
    async fn send(
        &self,
        part: &Part,
        rows: &Range<usize>,
        piece: &Part,
        may_split: bool,
        smooth: &mut bool,
    ) -> Outcome {
        let mut pause = FIRST_PAUSE;
        let mut trouble = Trouble { courier: self, rows: 0 };
        loop {
            let error = match insert(&self.target, piece).await {
                Ok(()) => {
                    NodeMetrics::add(&self.metrics.bytes, piece.bytes());
                    NodeMetrics::add(&self.metrics.counter("sent_rows"), piece.rows());
                    return Outcome::Taken;
                }
                Err(error) => error,
            };
            *smooth = false;
            let error =
                if is_of_rows(&error) && rows.len() == part.rows() { self.of_table(error).await } else { error };
            if !is_of_rows(&error) {
                let advice =
                    if is_of_access(&error) { " (rows wait in the spool until the server allows it)" } else { "" };
                trouble.say(piece.rows(), error.code, &format!("{}{advice}", error.message));
            } else if may_split && piece.rows() > 1 && !self.letters.path(&piece.token).exists() {
                match self.splits.note(&part.token, rows) {
                    Ok(()) => {
                        self.metrics.counter("splits").fetch_add(1, Relaxed);
                        return Outcome::Split;
                    }
                    Err(message) => trouble.say(piece.rows(), None, &message),
                }
            } else {
                // Rows that were put away as a whole before a crash stay one letter.
                match self.bury(piece, &error) {
                    Ok(()) => return Outcome::Buried,
                    Err(message) => {
                        let message = format!("{message}; rows that the server refuses are held: {}", error.message);
                        trouble.say(piece.rows(), error.code, &message);
                    }
                }
            }
            rest(&mut pause, self.target.max_pause).await;
        }
    }

    /// Of an error about rows the same, unless the table is not as it was at the start any more: a column of another type
    /// refuses any row.
    async fn of_table(&self, error: ServerError) -> ServerError {
        match tokio::time::timeout(self.target.timeout, check(&self.target)).await {
            Ok(Ok(Ok(_))) => error,
            Ok(Ok(Err(message))) => ServerError { code: None, message: format!("{message} ({})", error.message) },
            Ok(Err(error)) => error,
            Err(_) => ServerError { code: None, message: format!("no answer within {:?}", self.target.timeout) },
        }
    }

    /// Puts refused rows away.
    fn bury(&self, piece: &Part, error: &ServerError) -> Result<(), String> {
        let (target, path) = (&self.target, self.letters.path(&piece.token));
        let settings = settings(&piece.token, false);
        let reason =
            dead_letters::reason(&error.message, &target.address, &statement(target, &target.layout), &settings, &path);
        let more = self.letters.put(&piece.token, &piece.to_vec(), &reason)?;
        // All tables of the node together.
        self.metrics.gauge("dead_letter_bytes").fetch_add(more, Relaxed);
        NodeMetrics::add(&self.metrics.counter("dead_letter_rows"), piece.rows());
        tracing::error!(table = target.name, rows = piece.rows(), file = %path.display(), "refused: {}", printable(&error.message));
        Ok(())
    }
}

/// What keeps rows from being taken, for as long as it does.
struct Trouble<'a> {
    courier: &'a Courier,
    /// Rows that are counted as held; 0 before the first failure.
    rows: usize,
}

impl Trouble<'_> {
    fn say(&mut self, rows: usize, code: Option<u32>, message: &str) {
        let Courier { target, shared, metrics, .. } = self.courier;
        if self.rows == 0 {
            self.rows = rows;
            metrics.gauge("retried_rows").fetch_add(rows as i64, Relaxed);
            shared.lock().troubled += 1;
        }
        shared.complain(target, metrics, code, message);
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        if self.rows > 0 {
            self.courier.metrics.gauge("retried_rows").fetch_sub(self.rows as i64, Relaxed);
            self.courier.shared.relieve(&self.courier.target, &self.courier.metrics);
        }
    }
}

/// One attempt. An exception anywhere in the answer, also after a status of 200, and an answer that is cut off are errors.
async fn insert(target: &Target, part: &Part) -> Result<(), ServerError> {
    let mut insert = target.client.insert_formatted_with(statement(target, &target.layout));
    for (name, value) in settings(&part.token, target.async_insert) {
        insert = insert.with_setting(name, value);
    }
    if !target.layout.is_relation() {
        for (name, value) in FOR_VIEWS {
            insert = insert.with_setting(name, value);
        }
    }
    let attempt = async {
        for chunk in part.chunks(CHUNK) {
            insert.send(chunk).await?;
        }
        insert.end().await
    };
    match tokio::time::timeout(target.timeout, attempt).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ServerError { code: None, message: format!("no answer within {:?}", target.timeout) }),
    }
}

/// An insert without rows: whether the user may write these columns of the table, and they can be written so.
pub(super) async fn try_out(target: &Target, layout: &Layout) -> Result<(), ServerError> {
    let body = layout.without_rows().map_err(|error| ServerError { code: None, message: error.to_string() })?;
    let mut insert =
        target.client.insert_formatted_with(statement(target, layout)).with_setting("wait_end_of_query", "1");
    insert.send(body).await?;
    Ok(insert.end().await?)
}

/// The settings of an insert with that name.
fn settings(token: &str, asynchronous: bool) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("insert_deduplication_token", token.to_owned()),
        ("deduplicate_blocks_in_dependent_materialized_views", "1".to_owned()),
        ("input_format_skip_unknown_fields", "0".to_owned()),
        ("input_format_null_as_default", "1".to_owned()),
        ("wait_end_of_query", "1".to_owned()),
        ("async_insert", u8::from(asynchronous).to_string()),
    ];
    if asynchronous {
        settings.push(("wait_for_async_insert", "1".to_owned()));
        settings.push(("async_insert_deduplicate", "1".to_owned()));
        // Takes the place of the one above, which only replicated tables heeded; `check` has seen that the server knows it.
        settings.push(("deduplicate_insert", "enable".to_owned()));
    }
    settings
}

/// The INSERT that a part is the data of.
fn statement(target: &Target, layout: &Layout) -> String {
    let columns: Vec<String> = layout.schema().fields().iter().map(|field| identifier(field.name())).collect();
    let table = format!("{}.{}", identifier(&target.database), identifier(&target.table));
    format!("INSERT INTO {table} ({}) FORMAT ArrowStream", columns.join(", "))
}
