//! Who announces an address: autonomous system, country, organisation.

mod file;
mod ranges;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream};
use engine::plan::PlanContext;
use engine::registry::{Inputs, Node, Operator, Port};
use engine::render::BuildContext;
use engine::spec::Located;

use crate::linear::linear;
use file::Table;

/// See [`Operator::SUMMARY`].
pub struct Asn;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct AsnOptions {
    /// CSV with the header `network,asn,country_code,name,org,domain`, relative to the pipeline's file. The most
    /// specific network that holds an address counts. `asn` may be written `AS64500`; empty fields are null. Read once
    /// at the start; a file with a bad row is refused.
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
        let table = match Table::read(&context.path(&options.file.value)) {
            Ok(table) => Arc::new(table),
            Err(faults) => {
                for fault in faults {
                    context.error(options.file.span, fault);
                }
                return None;
            }
        };
        let added = ADDED.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
        let fields = input.schema.fields().iter().cloned().chain(added);
        let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let at = at.filter(|_| complete)?;
        Some(Box::new(AsnNode { table, at, output: input.with_schema(output) }))
    }
}

struct AsnNode {
    table: Arc<Table>,
    /// Index of the address column.
    at: usize,
    output: EdgeType,
}

impl Node for AsnNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.output.clone()]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let (table, at, schema) = (Arc::clone(&self.table), self.at, self.output.schema.clone());
        linear(context, input, 1, move |rows| Ok([Some(label(rows, &table, at, &schema)?), None]))
    }
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
