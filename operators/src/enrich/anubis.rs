//! What Anubis' rules say of a request.
//!
//! [Anubis](https://github.com/TecharoHQ/anubis) is a web firewall whose policies are lists of rules in YAML. Here they are
//! read as they are, and a request is labelled with what Anubis would have done. A policy's own expressions become the same SQL
//! that filters and rules are; there is no second evaluator.
//!
//! The policy is read when the pipeline is loaded, as the rules of `detect.rules` are: a change of one of its files is a change of the
//! pipeline.
//!
//! A rule is known by its id, its place in the resolved order. All of its matchers must hold, and the id is what keeps
//! them together: the four dictionaries in ClickHouse, by User-Agent, address, network and country, are asked one by
//! one, and there a rule with two matchers is told by their equal ids. Their order among each other (User-Agent and
//! address that agree, User-Agent, address, network, country) is none of Anubis' and none of this operator.

mod batch;
mod cel;
mod columns;
mod go_regex;
mod judge;
mod lower;
mod matchers;
mod policy;
mod sets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::{BuildContext, Inputs, Node, Operator, PlanContext, Port};
use engine::spec::{Diagnostic, Located};

use crate::linear::{PORTS, evaluate_rows, linear, rejected_schema};
use columns::Columns;
use judge::{Judge, Named};
use matchers::{Matchers, Thresholds, Unknown};
use policy::Policy;

/// See [`Operator::SUMMARY`].
pub struct Anubis;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct AnubisOptions {
    /// The policy, relative to the pipeline's file: Anubis' `botPolicies.yaml` or a file of that form, with `bots` and `thresholds`.
    /// Rules are asked in their order. All matchers of a rule must hold: `user_agent_regex`, `path_regex`, `headers_regex`,
    /// `remote_addresses`, `asns`, `geoip` and `expression`. ALLOW, DENY and CHALLENGE decide at once; WEIGH adds
    /// `weight.adjust` (5 if there is no `weight`), and the next rules are asked. If none decides, but one has weighed, the first
    /// threshold counts whose expression holds for the sum; without thresholds a sum above 0 is a CHALLENGE, and if none
    /// holds, ALLOW. A rule that cannot be evaluated, because its header has no column or it asks a name server, never decides
    /// and never weighs: `validate` and the log of a run name each with the reason. Regexes are Go's. Of a path `%41` and the like
    /// are decoded. An expression that is an error in Anubis, such as a header that is looked up and was not sent, does not hold. At
    /// most 4,096 rules and 100,000 networks. `${NAME}` is filled in as in the pipeline's file.
    #[schemars(with = "String")]
    policy: Located<PathBuf>,
    /// The folder that `(data)` stands for in an import, such as `(data)/bots/ai-catchall.yaml`; relative to the pipeline's file. Other
    /// imports are relative to the policy's file. `*`, `?` and `[a-z]` in an import stand for other names. At most 16 imports
    /// within each other and 1,000 files. Default: the folder of the policy's file.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    data: Option<Located<PathBuf>>,
    /// The column with the method. A row in which method and path are null is no request and gets nulls. Default: `method`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    method: Option<Located<String>>,
    /// The column with the path. Default: `path`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    path: Option<Located<String>>,
    /// The column with the query, without the question mark. Default: `query`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    query: Option<Located<String>>,
    /// The column with the host. Default: `host`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    host: Option<Located<String>>,
    /// The column with the client's address. Default: `src_ip`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    address: Option<Located<String>>,
    /// The column with the number of the address's autonomous system, UInt32. Default: `src_asn`, which `enrich.asn` adds.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    asn: Option<Located<String>>,
    /// The column with the address's country, two letters. Default: `src_country_code`, which `enrich.asn` adds.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    country: Option<Located<String>>,
    /// Columns of headers, by header: `{ X-Http-Version: version }`. A null is a header that was not sent. Default for each header:
    /// `header_` and its name in small letters with `_` for `-`, such as `header_user_agent`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    headers: BTreeMap<String, Located<String>>,
}

/// What is added, all nullable.
const ADDED: [(&str, DataType); 5] = [
    ("anubis_bot_name", DataType::Utf8),
    ("anubis_bot_action", DataType::Utf8),
    ("anubis_bot_category", DataType::Utf8),
    ("anubis_rule_id", DataType::UInt32),
    ("anubis_weight", DataType::Int32),
];

impl Operator for Anubis {
    type Options = AnubisOptions;
    const KIND: &'static str = "enrich.anubis";
    const SUMMARY: &'static str = "Adds what the rules of a policy of Anubis, the web firewall, say of a request.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = PORTS;
    const NEEDS: &'static str = "the columns that the rules ask for; rules without theirs are named and never decide";
    const GIVES: &'static str = "the columns of the input; of the rule that decides `anubis_bot_name`, `anubis_bot_category` \
        (the folder of its file, or `root`) and `anubis_rule_id` (UInt32, its place in the order, from 1), null if none does; \
        `anubis_bot_action` (ALLOW, DENY, CHALLENGE; of the rule, else of the threshold; null if no rule has decided or weighed); \
        `anubis_weight` (Int32, the sum of what rules have weighed, up to the one that decides); `rejected` has the input's and `reason`";

    fn plan(options: AnubisOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        AnubisNode::plan(options, context).map(|node| Box::new(node) as Box<dyn Node>)
    }
}

/// The policy made ready. What cannot be evaluated is a warning.
fn judge(
    policy: Policy,
    columns: &Columns,
    written: &Located<PathBuf>,
    schema: &Schema,
    context: &mut PlanContext<'_>,
) -> Option<Judge> {
    let (matchers, unknown) = match Matchers::new(&policy.rules, columns, schema, context.session()) {
        Ok(ready) => ready,
        Err(why) => {
            context.error(written.span, why);
            return None;
        }
    };
    let (thresholds, unknown_thresholds) = Thresholds::new(&policy.thresholds, context.session());
    let rules: Vec<&Located<String>> = policy.rules.iter().map(|rule| &rule.name).collect();
    warn("rule", &rules, &unknown, written, context);
    let names: Vec<&Located<String>> = policy.thresholds.iter().map(|threshold| &threshold.name).collect();
    warn("threshold", &names, &unknown_thresholds, written, context);
    let rules = policy.rules.into_iter();
    let rules =
        rules.map(|rule| Named { name: rule.name.value, category: rule.category, action: rule.action }).collect();
    Some(Judge { matchers, rules, thresholds, of_every_request: columns.of_every_request() })
}

/// Counts and names what cannot be evaluated, and says why at the place of each.
fn warn(
    what: &str,
    names: &[&Located<String>],
    unknown: &Unknown,
    written: &Located<PathBuf>,
    context: &mut PlanContext<'_>,
) {
    if unknown.is_empty() {
        return;
    }
    let listed: Vec<String> = unknown.iter().map(|(number, _)| format!("`{}`", names[*number].value)).collect();
    let message = format!(
        "{} of {} {what}s cannot be evaluated here and never decide: {}",
        unknown.len(),
        names.len(),
        listed.join(", ")
    );
    context.warn(Diagnostic::new(written.span, message));
    for (number, why) in unknown {
        let name = names[*number];
        let message = format!("{what} {} `{}` is not evaluated: {why}", number + 1, name.value);
        context.warn(Diagnostic::new(name.span, message));
    }
}

struct AnubisNode {
    judge: Arc<Judge>,
    input: EdgeType,
    output: SchemaRef,
    rejected: SchemaRef,
}

impl AnubisNode {
    fn plan(options: AnubisOptions, context: &mut PlanContext<'_>) -> Option<Self> {
        let input = context.input(0);
        let mut complete = true;
        for (name, _) in ADDED.iter().filter(|(name, _)| input.schema.index_of(name).is_ok()) {
            context.error(context.input_span(0), format!("the input has a column `{name}` already"));
            complete = false;
        }
        let AnubisOptions { method, path, query, host, address, asn, country, .. } = options;
        let named = [method, path, query, host, address, asn, country];
        let columns = Columns::new(named, options.headers, context);
        let policy = policy::read(&options.policy, options.data.as_ref(), context)?;
        let judge = judge(policy, &columns, &options.policy, &input.schema, context)?;
        let added = ADDED.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
        let fields = input.schema.fields().iter().cloned().chain(added);
        let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rejected = rejected_schema(&input.schema);
        complete.then(|| Self { judge: Arc::new(judge), input, output, rejected })
    }
}

impl Node for AnubisNode {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.input.with_schema(self.output.clone()), self.input.with_schema(self.rejected.clone())]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let (judge, output, rejected) = (Arc::clone(&self.judge), self.output.clone(), self.rejected.clone());
        linear(context, input, PORTS.len(), move |rows| {
            evaluate_rows(rows, &rejected, |rows| labelled(rows, &judge, &output))
        })
    }
}

fn labelled(rows: &RecordBatch, judge: &Judge, output: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns = rows.columns().iter().cloned().chain(judge.columns(rows)?).collect();
    Ok(RecordBatch::try_new(Arc::clone(output), columns)?)
}

#[cfg(test)]
mod tests;
