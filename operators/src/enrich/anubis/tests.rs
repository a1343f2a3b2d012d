//! Policies loaded as a pipeline loads them, and what they say of requests.

mod expressions;
mod naive;
mod policies;
mod public;
mod requests;

use std::cell::RefCell;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array, new_null_array};
use arrow::datatypes::{Int32Type, UInt32Type};
use engine::contract::{Kind, Registry};
use engine::plan::Plan;

use super::*;

thread_local! {
    static PLANNED: RefCell<Option<(Arc<Judge>, SchemaRef)>> = const { RefCell::new(None) };
}

/// `enrich.anubis`, of which the test keeps what it has planned.
struct Kept;

impl Operator for Kept {
    type Options = AnubisOptions;
    const KIND: &'static str = "test.anubis";
    const SUMMARY: &'static str = "Keeps what was planned.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = PORTS;

    fn plan(options: AnubisOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let node = AnubisNode::plan(options, context)?;
        PLANNED.with_borrow_mut(|planned| *planned = Some((Arc::clone(&node.judge), node.input.schema.clone())));
        Some(Box::new(node))
    }
}

/// A policy made ready for requests as mod_reqin_log writes them, with the autonomous system of their address, and with
/// further columns.
struct Loaded {
    judge: Arc<Judge>,
    schema: SchemaRef,
    warnings: Vec<String>,
}

/// Loads a pipeline in `folder`, where the policy is. `columns` are further ones, of text.
fn load_in(folder: &Path, policy: &str, options: &str, columns: &[&str]) -> Result<Loaded, String> {
    std::fs::write(folder.join("requests.jsonl"), "").expect("written");
    let texts = columns.iter().map(|name| format!("{{ name: {name}, expr: cast(null as varchar) }}"));
    let asn = "{ name: src_asn, expr: \"arrow_cast(null, 'UInt32')\" }, { name: src_country_code, expr: cast(null as varchar) }";
    let columns: Vec<String> = std::iter::once(asn.to_owned()).chain(texts).collect();
    let yaml = format!(
        "name: test\nnodes:\n\
         - {{ id: requests, kind: source.file, path: requests.jsonl, format: reqin_log }}\n\
         - {{ id: wide, kind: derive, from: requests, columns: [{}] }}\n\
         - {{ id: labelled, kind: test.anubis, from: wide, policy: \"{policy}\"{options} }}\n\
         - {{ id: out, kind: sink.jsonl, from: labelled, path: out.jsonl }}\n",
        columns.join(", ")
    );
    let pipeline = folder.join("pipeline.yaml");
    std::fs::write(&pipeline, yaml).expect("written");
    let mut kinds: Vec<Kind> = crate::registry().kinds().to_vec();
    kinds.push(Kind::of::<Kept>());
    let plan =
        Plan::load(&pipeline, &Registry::new(kinds)).map_err(|(problems, sources)| sources.render(&problems, false))?;
    let (judge, schema) = PLANNED.with_borrow_mut(Option::take).expect("planned");
    let folder = format!("{}/", folder.display());
    Ok(Loaded { judge, schema, warnings: plan.warnings.iter().map(|warning| warning.replace(&folder, "")).collect() })
}

/// [`load_in`] of a folder with these files, of which the first is the policy.
fn load(files: &[(&str, &str)], options: &str, columns: &[&str]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    load_in(folder.path(), files[0].0, options, columns)
        .map_err(|faults| faults.replace(&format!("{}/", folder.path().display()), ""))
}

/// A request: columns with their values; all others are null.
type Request<'a> = &'a [(&'a str, &'a str)];

/// Name, action, category, id and weight; `-` for null.
type Labels = [String; 5];

impl Loaded {
    /// The requests as rows.
    fn rows(&self, requests: &[Request<'_>]) -> RecordBatch {
        let value = |request: Request<'_>, column: &str| {
            request.iter().find(|(name, _)| *name == column).map(|(_, value)| (*value).to_owned())
        };
        let known = |name: &str| self.schema.index_of(name).is_ok();
        assert!(
            requests.iter().flat_map(|request| request.iter()).all(|(name, _)| known(name)),
            "columns of the input"
        );
        let column = |field: &Field| -> ArrayRef {
            let values = requests.iter().map(|request| value(request, field.name()));
            match field.data_type() {
                DataType::Utf8 => Arc::new(values.collect::<StringArray>()),
                DataType::UInt32 => {
                    let numbers = values.map(|value| value.map(|value| value.parse::<u32>().expect("a number")));
                    Arc::new(numbers.collect::<UInt32Array>())
                }
                other => new_null_array(other, requests.len()),
            }
        };
        let columns = self.schema.fields().iter().map(|field| column(field)).collect();
        let fields: Vec<Field> =
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("valid")
    }

    /// What the policy says of each request.
    fn labels(&self, requests: &[Request<'_>]) -> Vec<Labels> {
        let columns = self.judge.columns(&self.rows(requests)).expect("computed");
        let text = |nth: usize, row: usize| {
            let texts = columns[nth].as_string::<i32>();
            if texts.is_valid(row) { texts.value(row).to_owned() } else { "-".to_owned() }
        };
        let ids = columns[3].as_primitive::<UInt32Type>();
        let weights = columns[4].as_primitive::<Int32Type>();
        (0..requests.len())
            .map(|row| {
                let id = if ids.is_valid(row) { ids.value(row).to_string() } else { "-".to_owned() };
                let weight = if weights.is_valid(row) { weights.value(row).to_string() } else { "-".to_owned() };
                [text(0, row), text(1, row), text(2, row), id, weight]
            })
            .collect()
    }

    /// What the policy says of one request, with blanks between.
    fn label(&self, request: Request<'_>) -> String {
        self.labels(&[request])[0].join(" ")
    }
}
