//! Who announces an address: autonomous system, country, organisation.

mod file;
mod mmdb;
mod records;
mod spans;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::is_not_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use super::inspect::About;
use super::lookup::{self, Distinct, Lookup};
use crate::source::optional_duration;
use crate::source::paths::Paths;
pub use file::Table;

/// See [`Operator::SUMMARY`].
pub struct Asn;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct AsnOptions {
    /// What is known of networks, relative to the pipeline's file: one file, or a list of which the first counts that has a value
    /// for a column, such as one with systems and one with countries. What a file is shows its content: CSV with the header
    /// `network,asn,country_code,name,org,domain`; CSV without a header whose rows are the first and the last address of a range,
    /// the system's number and its organisation (npm's `@ip-location-db/asn`); or a MaxMind DB, of systems or of countries. The
    /// most specific network that holds an address counts; of ranges that overlap, the one that begins last. `asn` may be written
    /// `AS64500`; empty fields are null. A file with a bad row is refused with its line, a damaged database with the byte. A live
    /// run reads a file again when it has changed and stood still for a second, and on SIGHUP: the new content takes effect at
    /// one tick, on all workers, and is kept with the logs, so that a start or a replay labels each row as it was. Content with a
    /// bad row is refused, counted (`reference_refused`) and shown by `status`; what was there stays in effect. Rows of a window
    /// keep what their window began with. Not with several processes.
    #[schemars(with = "Paths")]
    file: Located<Paths>,
    /// Data older than this is a trouble of the node, which `status` shows. The data is from when the file says, as a MaxMind DB
    /// does, or else from when it was changed. Default: none.
    #[serde(default, deserialize_with = "optional_duration")]
    #[schemars(with = "Option<String>")]
    max_age: Option<Duration>,
    /// The column with the address to look up. Default: `src_ip`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    address: Option<Located<String>>,
}

/// What is added, all nullable: an address that no network holds, or that is not an address, has nulls.
const ADDED: [(&str, DataType); 5] = [
    ("src_asn", DataType::UInt32),
    ("src_country_code", DataType::Utf8),
    ("src_as_name", DataType::Utf8),
    ("src_org", DataType::Utf8),
    ("src_domain", DataType::Utf8),
];

impl Operator for Asn {
    type Options = AsnOptions;
    const KIND: &'static str = "enrich.asn";
    const SUMMARY: &'static str = "Adds the autonomous system, country and organisation of an address.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "every row, with five columns more" }];
    const NEEDS: &'static str = "`src_ip`, or what `address` names, as Utf8";
    const GIVES: &'static str =
        "the columns of the input, `src_asn` (UInt32), `src_country_code`, `src_as_name`, `src_org` and `src_domain`";

    fn plan(options: AsnOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let at = lookup::text_column(options.address, "src_ip", "an address", context);
        let added = ADDED.map(|(name, data_type)| Field::new(name, data_type, true));
        let files = Paths::list(options.file);
        let mut complete = at.is_some();
        if files.is_empty() {
            context.error(context.span, "`file` names no file");
            complete = false;
        }
        for (nth, file) in files.iter().enumerate() {
            if files[..nth].iter().any(|other| other.value == file.value) {
                context.error(file.span, "this file is named twice");
                complete = false;
            }
        }
        let sources = files.into_iter().map(|file| (file, Table::parse as _)).collect();
        let node = lookup::plan(Networks { at: at.unwrap_or(0) }, &added, (sources, options.max_age), context);
        node.filter(|_| complete)
    }
}

#[derive(Clone)]
struct Networks {
    /// Index of the address column.
    at: usize,
}

impl Lookup for Networks {
    type Part = Table;

    fn label(&self, rows: &RecordBatch, parts: &[Arc<Table>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let texts = rows.column(self.at).as_string::<i32>();
        let mut labels: Option<Vec<ArrayRef>> = None;
        for table in parts {
            let known = Distinct::new(texts, |text| table.get(text.parse::<IpAddr>().ok()?));
            let found: UInt32Array = (0..texts.len()).map(|row| known.get(row).copied().flatten()).collect();
            let columns = table.take(&found)?;
            labels = Some(match labels {
                None => columns,
                Some(before) => before.iter().zip(&columns).map(|(a, b)| first(a, b)).collect::<Result<_, _>>()?,
            });
        }
        labels.ok_or_else(|| ArrowError::ComputeError("defect: no file".to_owned()))
    }

    fn made(table: &Table) -> Option<SystemTime> {
        table.made()
    }
}

/// What the content of a file is read as.
pub(super) fn inspect(content: &[u8]) -> Result<About, String> {
    let table = Table::parse(content)?;
    Ok(table.about().clone())
}

/// The values of one column, and of another where it has none.
fn first(values: &ArrayRef, others: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if values.null_count() == 0 {
        return Ok(Arc::clone(values));
    }
    zip(&is_not_null(values)?, values, others)
}
