//! Whether the clients of an autonomous system are people or bots.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, UInt32Type};
use arrow::error::ArrowError;
use engine::contract::{Inputs, Node, Operator, PlanContext, Port};
use engine::spec::Located;

use super::csv::{self, Known};
use super::faults::Faults;
use super::inspect::About;
use super::lookup::{self, Lookup};
use crate::source::optional_duration;

/// See [`Operator::SUMMARY`].
pub struct Reputation;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct ReputationOptions {
    /// CSV with `src_asn,label`, relative to the pipeline's file. `src_asn` may be written `AS64500`; `label` is `human`, `bot`
    /// or `unknown`. A file with a bad row is refused, and the first five of them are named. A live run reads it again when it
    /// changes, as `enrich.asn` does: see its option `file`.
    #[schemars(with = "String")]
    file: Located<PathBuf>,
    /// A list that is older is a trouble of the node, which `status` shows: see this option of `enrich.asn`. Default: none.
    #[serde(default, deserialize_with = "optional_duration")]
    #[schemars(with = "Option<String>")]
    max_age: Option<Duration>,
    /// The column with the number of the autonomous system. Default: `src_asn`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    asn: Option<Located<String>>,
}

impl Operator for Reputation {
    type Options = ReputationOptions;
    const KIND: &'static str = "enrich.reputation";
    const SUMMARY: &'static str = "Says whether an autonomous system is of people or of bots.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "every row, with one column more" }];
    const NEEDS: &'static str = "`src_asn`, or what `asn` names, as UInt32: `enrich.asn` gives it";
    const GIVES: &'static str = "the columns of the input, and `asn_label`: `human`, `bot`, `unknown`, or null for a system that the file does not have";

    fn plan(options: ReputationOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let at = number_column(options.asn, context);
        let added = [Field::new("asn_label", DataType::Utf8, true)];
        let sources = vec![(options.file, Labels::parse as _)];
        let node = lookup::plan(Systems { at: at.unwrap_or(0) }, &added, (sources, options.max_age), context);
        node.filter(|_| at.is_some())
    }
}

/// The index of the column with the number of the system.
fn number_column(named: Option<Located<String>>, context: &mut PlanContext<'_>) -> Option<usize> {
    let (at, named) = lookup::column(named, "src_asn", context)?;
    let found = context.input(0).schema.field(at).data_type().clone();
    if found != DataType::UInt32 {
        context
            .error(named.span, format!("the number of an autonomous system is UInt32; `{}` is {found}", named.value));
        return None;
    }
    Some(at)
}

/// What a system's clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Human,
    Bot,
    Unknown,
}

impl Label {
    fn parse(text: &str) -> Result<Self, String> {
        let labels = [Self::Human, Self::Bot, Self::Unknown];
        let found = labels.into_iter().find(|label| label.name() == text);
        found.ok_or_else(|| format!("`{text}` is no label: it is human, bot or unknown"))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Bot => "bot",
            Self::Unknown => "unknown",
        }
    }
}

/// The labels of systems.
#[derive(Debug)]
struct Labels(HashMap<u32, Label, ahash::RandomState>);

impl Labels {
    fn parse(content: &[u8]) -> Result<Self, String> {
        Self::read(content).map_err(|faults| faults.text())
    }

    fn read(content: &[u8]) -> Result<Self, Faults> {
        let mut known = Known::default();
        csv::read(content, ["src_asn", "label"], 2, |line, [number, label]| {
            let asn = csv::as_number(number)?.ok_or_else(|| "the number of the system is empty".to_owned())?;
            known.add(asn, number, line, Label::parse(label)?)
        })?;
        Ok(Self(known.into_pairs().collect()))
    }
}

/// What the content of a file is read as.
pub(super) fn inspect(content: &[u8]) -> Result<About, String> {
    let entries = Labels::parse(content)?.0.len();
    Ok(About { what: "labels of systems".to_owned(), entries, made: None, note: None })
}

#[derive(Clone)]
struct Systems {
    /// Index of the column with the number.
    at: usize,
}

impl Lookup for Systems {
    type Part = Labels;

    fn label(&self, rows: &RecordBatch, parts: &[Arc<Labels>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let [labels] = parts else { return Err(ArrowError::ComputeError("defect: one file".to_owned())) };
        let numbers = rows.column(self.at).as_primitive::<UInt32Type>();
        let label = |number: Option<u32>| number.and_then(|number| labels.0.get(&number)).map(|label| label.name());
        Ok(vec![Arc::new(numbers.iter().map(label).collect::<StringArray>())])
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::UInt32Array;

    use super::*;

    #[test]
    fn systems_that_are_not_listed_have_no_label() {
        let content = b"src_asn,label\n64500,human\nAS64501,bot\n64502,unknown\n64501,bot\n";
        let labels = Labels::parse(content).expect("valid");
        let numbers = UInt32Array::from(vec![Some(64500), Some(64501), Some(64502), Some(64503), Some(0), None]);
        let rows = RecordBatch::try_from_iter([("src_asn", Arc::new(numbers) as ArrayRef)]).expect("rows");
        let columns = Systems { at: 0 }.label(&rows, &[Arc::new(labels)]).expect("labels");
        let found: Vec<_> = columns[0].as_string::<i32>().iter().collect();
        assert_eq!(found, [Some("human"), Some("bot"), Some("unknown"), None, None, None]);
    }

    #[test]
    fn bad_rows_are_named() {
        let shown = Labels::parse(b"src_asn,label\n1,bot\n1,human\n,bot\nx,bot\n2,Bot\n3\n").expect_err("bad rows");
        let expected = [
            "3: `1` is given otherwise in line 2",
            "4: the number of the system is empty",
            "5: `x` is not an AS number",
            "6: `Bot` is no label: it is human, bot or unknown",
            "7: the row has 1 fields, the header 2",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
        assert_eq!(
            Labels::parse(b"asn,label\n").expect_err("header"),
            "1: the header has no column `src_asn`; it must be src_asn,label"
        );
    }
}
