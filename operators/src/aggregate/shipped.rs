//! The features that come with the engine, for the reference: what each says, and what it adds to a group.

use std::fmt::Write;
use std::path::Path;

use arrow::datatypes::{DataType, Field, Schema};
use engine::batch::stream_schema;
use engine::contract::ExprFault;
use engine::spec::{Sources, Tree, options};

use super::Feature;
use super::compile::Compiler;
use super::functions::session;
use crate::format::{Format, Unit, hello_schema};

/// A file of features and its text. A later one may use those before it.
const FILES: [(&str, &str); 7] = [
    ("standard.yaml", include_str!("../../../pipelines/features/standard.yaml")),
    ("model.yaml", include_str!("../../../pipelines/features/model.yaml")),
    ("sequence.yaml", include_str!("../../../pipelines/features/sequence.yaml")),
    ("labels.yaml", include_str!("../../../pipelines/features/labels.yaml")),
    ("consistency.yaml", include_str!("../../../pipelines/features/consistency.yaml")),
    ("behaviour.yaml", include_str!("../../../pipelines/features/behaviour.yaml")),
    ("peer_keys.yaml", include_str!("../../../pipelines/features/peer_keys.yaml")),
];

/// What `correlate` and the `enrich` kinds add to the columns of requests and hellos.
const ADDED: [(&str, DataType); 28] = [
    ("correlated", DataType::UInt8),
    ("orphan_side", DataType::Utf8),
    ("keepalives", DataType::UInt16),
    ("a_timestamp", DataType::UInt64),
    ("b_timestamp", DataType::UInt64),
    ("src_asn", DataType::UInt32),
    ("src_country_code", DataType::Utf8),
    ("src_as_name", DataType::Utf8),
    ("src_org", DataType::Utf8),
    ("src_domain", DataType::Utf8),
    ("asn_label", DataType::Utf8),
    ("bot_ip", DataType::Utf8),
    ("bot_ja4", DataType::Utf8),
    ("bot_agent", DataType::Utf8),
    ("bot_tags", DataType::Utf8),
    ("bot_crawler", DataType::Utf8),
    ("bot_verified", DataType::Boolean),
    ("bot_name", DataType::Utf8),
    ("browser_family", DataType::Utf8),
    ("browser_tls_library", DataType::Utf8),
    ("browser_context", DataType::Utf8),
    ("ua_family", DataType::Utf8),
    ("browser_matches", DataType::Boolean),
    ("anubis_bot_name", DataType::Utf8),
    ("anubis_bot_category", DataType::Utf8),
    ("anubis_rule_id", DataType::UInt32),
    ("anubis_bot_action", DataType::Utf8),
    ("anubis_weight", DataType::Int32),
];

/// What groups are by.
const BY: [&str; 3] = ["host", "src_ip", "ja4"];

/// What a feature says and adds.
struct Shipped {
    name: String,
    about: String,
    cost: Cost,
}

/// What a group keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Of fixed size.
    pub(super) bytes: usize,
    /// How many sets of values there are besides.
    pub(super) sets: usize,
}

/// The features of all files as Markdown.
pub(super) fn markdown() -> String {
    let mut out = String::from(
        "The files in `pipelines/features` have these. The last column says how many bytes a feature adds to a group if those above \
         it are there, and `+` for each set of values that it adds; 0: it is made of what others keep. They are of columns \
         that `correlate` gives, and in labels.yaml and consistency.yaml of those that the `enrich` kinds add.\n",
    );
    let (session, schema) = (session(), columns());
    let by: Vec<usize> = BY.iter().filter_map(|name| schema.index_of(name).ok()).collect();
    let mut compiler = Compiler::new(&session, &schema, &by);
    let mut before = compiler.cost();
    for (file, text) in FILES {
        let features = read(file, text, &mut compiler).unwrap_or_default();
        let own: usize = features.iter().map(|feature| feature.cost.bytes).sum();
        // Writing to a text cannot fail.
        let _ = write!(
            out,
            "\n### {file}\n\n{} features. Of each group {own} bytes; sets of values: {}.\n\n| feature | what it says | bytes |\n|---|---|---|\n",
            features.len(),
            compiler.cost().sets - before.sets
        );
        before = compiler.cost();
        for Shipped { name, about, cost } in features {
            let _ = writeln!(
                out,
                "| `{name}` | {} | {}{} |",
                about.replace('|', "\\|"),
                cost.bytes,
                " +".repeat(cost.sets)
            );
        }
    }
    out
}

/// A file's features, compiled behind those before them.
fn read(file: &str, text: &str, compiler: &mut Compiler<'_>) -> Result<Vec<Shipped>, ExprFault> {
    let mut problems = Vec::new();
    let tree = Tree::parse(Path::new(file), text.to_owned(), &mut Sources::default(), &|_| None).ok();
    let features = tree.and_then(|tree| options::read::<Vec<Feature>>(&tree, &mut problems));
    let mut shipped = Vec::new();
    for feature in features.ok_or_else(|| ExprFault::new("not a list of features"))? {
        let before = compiler.cost();
        compiler.feature(&feature.name.value, &feature.expr.value)?;
        let after = compiler.cost();
        shipped.push(Shipped {
            name: feature.name.value,
            about: feature.about.unwrap_or_default(),
            cost: Cost { bytes: after.bytes - before.bytes, sets: after.sets - before.sets },
        });
    }
    Ok(shipped)
}

/// The columns of labelled requests.
fn columns() -> Schema {
    let mut fields: Vec<Field> = Vec::new();
    let formats = [Format::reqin_log(Unit::default()).schema.clone(), hello_schema()];
    let known = formats.iter().flat_map(|schema| schema.fields().iter().map(|f| f.as_ref().clone()));
    for field in known.chain(ADDED.iter().map(|(name, ty)| Field::new(*name, ty.clone(), true))) {
        let is_there = fields.iter().any(|other| other.name() == field.name());
        if !is_there && field.name() != engine::batch::TIME && field.name() != engine::batch::SEQ {
            fields.push(field);
        }
    }
    stream_schema(fields).as_ref().clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_compiles_behind_those_before_it() {
        let (session, schema) = (session(), columns());
        let mut compiler = Compiler::new(&session, &schema, &[]);
        for (file, text) in FILES {
            let features = read(file, text, &mut compiler).unwrap_or_else(|fault| panic!("{file}: {fault:?}"));
            assert!(features.iter().all(|feature| !feature.about.is_empty()), "{file}");
        }
        let shown = markdown();
        for part in ["### sequence.yaml", "| `path_transition_entropy` |", "| `hits` |"] {
            assert!(shown.contains(part), "{part}");
        }
    }
}
