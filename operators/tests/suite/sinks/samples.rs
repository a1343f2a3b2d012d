//! Batches and pipelines that the tests share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef, TimestampNanosecondType, UInt64Type};
use engine::batch::{Batch, EdgeClass, EdgeType, stream_schema, time_array};

use crate::replay::{Recording, collected, load, record, run, unique};

/// 2026-11-23 00:00:00 UTC in ns.
pub const DAY_NS: i64 = 1_795_392_000_000_000_000;

/// time, seq, `text` and `number`.
pub fn schema() -> SchemaRef {
    stream_schema([Field::new("text", DataType::Utf8, true), Field::new("number", DataType::Int64, true)])
}

/// Rows of [`schema`]: event time in ms after [`DAY_NS`], seq, text; the number is the seq as a signed number.
pub fn rows(given: &[(i64, u64, Option<&str>)]) -> RecordBatch {
    let times = given.iter().map(|(ms, _, _)| DAY_NS + ms * 1_000_000).collect();
    let columns: Vec<ArrayRef> = vec![
        time_array(times),
        Arc::new(UInt64Array::from_iter_values(given.iter().map(|(_, seq, _)| *seq))),
        Arc::new(given.iter().map(|(_, _, text)| *text).collect::<StringArray>()),
        Arc::new(given.iter().map(|(_, seq, _)| Some(*seq as i64)).collect::<arrow::array::Int64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).expect("valid")
}

/// The type of a relation with [`schema`] and the key `text`.
pub fn relation() -> EdgeType {
    EdgeType { schema: schema(), class: EdgeClass::Relation { key: vec!["text".to_owned()] } }
}

/// What leaves a chain of nodes: the YAML's `NAME` is the recording, `OUT` the collection.
pub fn through(dir: &Path, nodes: &str, ty: EdgeType, batches: Vec<(u64, Batch)>, workers: usize) -> Vec<Batch> {
    let name = unique();
    record(&name, Recording { ty, batches, live: false });
    let nodes = nodes.replace("NAME", &name).replace("OUT", &name);
    let plan = load(&dir.join(format!("{name}.yaml")), &format!("name: t\nnodes:\n{nodes}")).expect("a valid pipeline");
    let shared = run(plan, workers);
    assert_eq!(shared.failure(), None);
    collected(&name)
}

/// The faults of a chain of nodes, as shown.
pub fn faults(dir: &Path, nodes: &str, ty: EdgeType) -> String {
    let name = unique();
    record(&name, Recording { ty, batches: Vec::new(), live: false });
    let nodes = nodes.replace("NAME", &name).replace("OUT", &name);
    match load(&dir.join(format!("{name}.yaml")), &format!("name: t\nnodes:\n{nodes}")) {
        Ok(_) => panic!("the pipeline is accepted: {nodes}"),
        Err(shown) => shown,
    }
}

/// Every row as text with the batch's marks, sorted: what must not depend on the number of workers.
pub fn listed(batches: &[Batch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.rows.num_rows() {
            lines.push(format!("{} {:?} {:?} {:?}", batch.diff, batch.late, batch.settled, cells(&batch.rows, row)));
        }
    }
    lines.sort();
    lines
}

/// A row's values by column name; nulls are left out.
pub fn cells(rows: &RecordBatch, row: usize) -> BTreeMap<String, String> {
    let schema = rows.schema();
    let named = schema.fields().iter().zip(rows.columns()).filter(|(_, column)| column.is_valid(row));
    named.map(|(field, column)| (field.name().clone(), cell(column, row))).collect()
}

fn cell(column: &ArrayRef, row: usize) -> String {
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Timestamp(..) => column.as_primitive::<TimestampNanosecondType>().value(row).to_string(),
        DataType::UInt32 => column.as_primitive::<arrow::datatypes::UInt32Type>().value(row).to_string(),
        other => format!("{other}"),
    }
}
