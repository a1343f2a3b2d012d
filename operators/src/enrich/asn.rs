//! Who announces an address: autonomous system, country, organisation.

mod file;
mod ranges;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream, Time, WINDOW_START};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Inputs, Node, Operator, Port};
use engine::spec::Located;

use crate::linear::timed;
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
        let input = context.input(0);
        let address = options.address.unwrap_or_else(|| Located::new("src_ip".to_owned(), context.input_span(0)));
        let at = context.column(&input.schema, &address.value, address.span);
        let mut complete = true;
        if let Some(at) = at
            && *input.schema.field(at).data_type() != DataType::Utf8
        {
            let found = input.schema.field(at).data_type();
            context.error(address.span, format!("an address is text; `{}` is {found}", address.value));
            complete = false;
        }
        for (name, _) in &ADDED {
            if input.schema.index_of(name).is_ok() {
                context.error(context.input_span(0), format!("the input has a column `{name}` already"));
                complete = false;
            }
        }
        let file = context.path(&options.file.value);
        if let Err(faults) = Table::read(&file) {
            for fault in faults {
                context.error(options.file.span, fault);
            }
            return None;
        }
        let added = ADDED.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
        let fields = input.schema.fields().iter().cloned().chain(added);
        let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let at = at.filter(|_| complete)?;
        let window = input.schema.index_of(WINDOW_START).ok().filter(|_| input.is_relation());
        Some(Box::new(AsnNode {
            file,
            at,
            is_relation: input.is_relation(),
            window,
            output: input.with_schema(output),
        }))
    }
}

struct AsnNode {
    file: PathBuf,
    /// Index of the address column.
    at: usize,
    is_relation: bool,
    /// Index of the column with the begin of the window, of a relation by window.
    window: Option<usize>,
    output: EdgeType,
}

impl Node for AsnNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.output.clone()]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let (at, schema) = (self.at, self.output.schema.clone());
        let fail = context.failure();
        let table = context.reference(&self.file, Table::of_content).map_err(&fail).ok();
        let (is_relation, window, from) = (self.is_relation, self.window, context.complete_from);
        // A row is taken back as it was given. What counts is when its window began, or the run, and not when it changed.
        let is_whole = is_relation && window.is_none();
        let whole = table.as_ref().filter(|_| is_whole).map(|table| table.at(from).map_err(&fail));
        let whole = whole.and_then(Result::ok);
        timed(context, input, 1, move |time, rows| {
            let Some(table) = &table else { return Ok([None, None]) };
            if is_whole {
                return Ok([whole.as_ref().map(|table| label(rows, table, at, &schema)).transpose()?, None]);
            }
            let parts = window.map_or_else(|| vec![(time, 0..rows.num_rows())], |window| by_window(rows, window));
            let mut labelled = Vec::with_capacity(parts.len());
            for (time, range) in parts {
                let table = table.at(time).map_err(ArrowError::ComputeError)?;
                labelled.push(label(&rows.slice(range.start, range.len()), &table, at, &schema)?);
            }
            let labelled = if labelled.len() == 1 { labelled.remove(0) } else { concat_batches(&schema, &labelled)? };
            Ok([Some(labelled), None])
        })
    }
}

/// The ranges of rows that stand together and are of windows with one begin, in ms.
fn by_window(rows: &RecordBatch, window: usize) -> Vec<(Time, Range<usize>)> {
    let Some(times) = rows.column(window).as_primitive_opt::<TimestampNanosecondType>() else {
        return vec![(0, 0..rows.num_rows())];
    };
    let mut parts: Vec<(Time, Range<usize>)> = Vec::new();
    for (row, nanoseconds) in times.values().iter().enumerate() {
        let begin = Time::try_from(nanoseconds / 1_000_000).unwrap_or(0);
        match parts.last_mut() {
            Some((last, range)) if *last == begin => range.end = row + 1,
            _ => parts.push((begin, row..row + 1)),
        }
    }
    parts
}

/// The rows with what is known of each one's address.
fn label(rows: &RecordBatch, table: &Table, at: usize, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let texts = rows.column(at).as_string::<i32>();
    // A batch has far fewer addresses than rows: each is parsed and looked up once.
    let mut known: HashMap<&str, Option<u32>, ahash::RandomState> = HashMap::default();
    let mut look_up = |text| *known.entry(text).or_insert_with(|| table.get(text.parse::<IpAddr>().ok()?));
    let found: UInt32Array =
        (0..texts.len()).map(|row| if texts.is_null(row) { None } else { look_up(texts.value(row)) }).collect();
    let columns = rows.columns().iter().cloned().chain(table.take(&found)?).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
}
