//! Who announces an address: autonomous system, country, organisation.

mod file;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use super::lookup::{self, Distinct, Lookup};
use file::Table;

/// See [`Operator::SUMMARY`].
pub struct Asn;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct AsnOptions {
    /// CSV with the header `network,asn,country_code,name,org,domain`, relative to the pipeline's file. The most
    /// specific network that holds an address counts. `asn` may be written `AS64500`; empty fields are null. A file with
    /// a bad row is refused. A live run reads it again when it has changed and stood still for a second, and on SIGHUP: the new
    /// content takes effect at one tick, on all workers, and is kept with the logs, so that a start or a replay labels each
    /// row as it was. Content with a bad row is refused, counted (`reference_refused`) and shown by `status`; what was there
    /// stays in effect. Rows of a window keep what their window began with. Not with several processes.
    #[schemars(with = "String")]
    file: Located<PathBuf>,
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
        let node = lookup::plan(Networks { at: at.unwrap_or(0) }, &added, vec![(options.file, Table::parse)], context);
        node.filter(|_| at.is_some())
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
        let [table] = parts else { return Err(ArrowError::ComputeError("defect: one file".to_owned())) };
        let texts = rows.column(self.at).as_string::<i32>();
        let known = Distinct::new(texts, |text| table.get(text.parse::<IpAddr>().ok()?));
        let found: UInt32Array = (0..texts.len()).map(|row| known.get(row).copied().flatten()).collect();
        table.take(&found)
    }
}
