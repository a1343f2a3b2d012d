//! `aggregate`: features of groups of rows in windows of event time.
//!
//! The window is tumbling and aligned to the Unix epoch. Features are SQL over aggregates; `program` compiles them,
//! `window` computes them. The node has two operators: `arrivals` sets late rows aside and drops columns that no
//! feature needs, before rows are exchanged by group; `aggregate` holds the groups.

mod accumulate;
mod arrivals;
mod calls;
mod compile;
mod digits;
mod distinct;
mod functions;
mod groups;
mod hash;
mod latest;
mod lookup;
mod pending;
mod program;
mod run;
mod shipped;
mod transitions;
mod window;

use std::sync::Arc;
use std::time::Duration;

use engine::batch::{Edge, EdgeClass, EdgeType, SEQ, Stream, TIME, Time, time_type};
use engine::contract::BuildContext;
use engine::contract::PlanContext;
use engine::contract::{Facts, Inputs, Node, Operator, Port};
use engine::spec::{Bytes, Located, humantime_duration};

use crate::cut::{MAX_KEY, MIN_KEY};
use crate::entries::{Given, read};
pub(crate) use functions::markdown;
use program::Program;

/// Features of groups in windows.
pub struct Aggregate {
    program: Arc<Program>,
    input: EdgeType,
    by: Vec<String>,
    /// Length of a window in ns.
    window: i64,
    max_groups: usize,
    max_key: usize,
    distinct_limit: usize,
}

/// Options of `aggregate`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The columns whose values make a group.
    by: Vec<Located<String>>,
    /// Length of the window, a whole number of milliseconds. Windows follow each other without gap or overlap, and
    /// start at multiples of their length since 1970-01-01 UTC. Default 1h.
    #[serde(default = "hour", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    window: Duration,
    /// The features: a list, or a YAML file that is such a list, relative to the pipeline's file; items of the list in the
    /// pipeline may be such files too: `[features/standard.yaml, features/sequence.yaml]`. An expression is SQL over aggregates
    /// of the input's columns, of `gap_ms` (time since the group's previous row in ms, null for the first), `prev_gap_ms` (the
    /// gap before that), `nth` (number of the row in its group, from 1), and of what `prev` and `since_ms` tell of earlier rows.
    /// Outside of aggregates it can use the group's columns, `window_start`, and the features above it. The section
    /// [features](#features) says which functions there are, and what they cost.
    features: Located<Given<Feature>>,
    /// The most groups of a window, all workers together; each worker has its share. When a worker has no room left,
    /// the groups that started first are ended early, 1/64 of the bound at once: they leave as final rows, and the
    /// counter `evicted` counts them. A row of such a group that comes later starts it anew. A group whose key has more
    /// than 1 KiB counts as one more for each KiB. Default 1000000.
    #[serde(default = "million")]
    max_groups: usize,
    /// The longest text of a column in `by`, at least 64 bytes. A longer one is cut: its beginning stays, and behind `#` a hash of
    /// all of it, so that groups stay apart. The counter `cut_keys` says how often. Default 1KiB.
    max_key: Option<Located<Bytes>>,
    /// Up to how many values of a group `count(distinct …)`, `entropy`, `mode_share` and `transition_entropy` are exact. Beyond it
    /// a count is estimated (HyperLogLog, standard error 1.6 %), and for the others all further values count as one. The counter
    /// `distinct_estimated` says how often this happened. Default 4096.
    #[serde(default = "exact")]
    distinct_limit: usize,
}

/// A feature.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Feature {
    /// The column's name.
    name: Located<String>,
    /// SQL over aggregates.
    expr: Located<String>,
    /// What it says, for people.
    #[serde(default)]
    about: Option<String>,
}

/// What a feature is, for `list`.
pub(crate) fn feature_schema() -> schemars::Schema {
    schemars::schema_for!(Feature)
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn million() -> usize {
    1_000_000
}

fn exact() -> usize {
    4096
}

impl Operator for Aggregate {
    type Options = Options;
    const KIND: &'static str = "aggregate";
    const SUMMARY: &'static str =
        "Features of groups of rows in tumbling windows: live, and final when the window ends.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[
        Port { name: "out", summary: "One row for each group and window, replaced while the window is open." },
        Port { name: "final", summary: "The last row of each group and window, as an event at the window's end." },
        Port { name: "late", summary: "Rows older than the watermark; no feature has them." },
    ];
    const NEEDS: &'static str = "a stream with the columns of `by` and those in the features";
    const GIVES: &'static str = "`window_start`, the columns of `by`, a column for each feature, and `final` (Boolean): a relation of one row for each group and \
         window; the port `final` has `time` and `seq` before them; `late` has the input's columns";

    fn plan(options: Options, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let input = context.stream_input(0)?;
        let (features, complete) = read(options.features, "features", context)?;
        if !complete {
            return None;
        }
        let mut by = Vec::new();
        for name in &options.by {
            let index = context.column(&input.schema, &name.value, name.span)?;
            if by.contains(&index) {
                context.error(name.span, format!("`{}` is there already", name.value));
                return None;
            }
            by.push(index);
        }
        let window = i64::try_from(options.window.as_nanos()).ok().filter(|ns| *ns > 0 && *ns % 1_000_000 == 0);
        let bounds = [("max_groups", options.max_groups), ("distinct_limit", options.distinct_limit)];
        let zero = bounds.iter().find(|(_, bound)| *bound == 0);
        match (window, zero) {
            _ if by.is_empty() => context.error(context.span, "`by` names no column"),
            (None, _) => context.error(context.span, "`window` is not a whole number of milliseconds, at least one"),
            (_, Some((name, _))) => context.error(context.span, format!("`{name}` is at least 1")),
            _ => {}
        }
        let (false, Some(window), None) = (by.is_empty(), window, zero) else { return None };
        let max_key = max_key(options.max_key.as_ref(), context)?;
        let has_order = [(TIME, time_type()), (SEQ, arrow::datatypes::DataType::UInt64)];
        if has_order.iter().any(|(name, ty)| input.schema.field_with_name(name).is_ok_and(|f| f.data_type() != ty)) {
            context.error(context.input_span(0), "the input's `time` or `seq` is not that of a stream");
            return None;
        }
        let written: Vec<(&str, &str)> =
            features.iter().map(|f| (f.name.value.as_str(), f.expr.value.as_str())).collect();
        match Program::compile(&functions::session(), &input.schema, &by, &written) {
            Ok(program) => Some(Box::new(Self {
                program: Arc::new(program),
                by: options.by.into_iter().map(|name| name.value).collect(),
                input,
                window,
                max_groups: options.max_groups,
                max_key,
                distinct_limit: options.distinct_limit,
            })),
            Err(faults) => {
                for (index, mut fault) in faults {
                    let later = fault.part.as_ref().filter(|_| fault.message.starts_with("no column"));
                    if let Some(name) =
                        later.filter(|name| written[index + 1..].iter().any(|(n, _)| n.eq_ignore_ascii_case(name)))
                    {
                        fault.help = Some(format!("the feature `{name}` stands further down: put it before this one"));
                    } else if fault.part.as_deref() == Some(written[index].0) && fault.message.starts_with("no column")
                    {
                        fault.help = Some("a feature cannot use itself".to_owned());
                    }
                    context.expression_fault(&features[index].expr, &fault);
                }
                None
            }
        }
    }
}

/// The most bytes of a key's text.
fn max_key(given: Option<&Located<Bytes>>, context: &mut PlanContext<'_>) -> Option<usize> {
    let Some(given) = given else { return Some(MAX_KEY) };
    let bytes = given.value.in_memory();
    if bytes < MIN_KEY {
        context.error(given.span, format!("`max_key` is at least {MIN_KEY} bytes"));
        return None;
    }
    Some(bytes)
}

impl Node for Aggregate {
    fn outputs(&self) -> Vec<EdgeType> {
        let key = std::iter::once(program::WINDOW_START.to_owned()).chain(self.by.iter().cloned()).collect();
        vec![
            EdgeType { schema: self.program.relation.clone(), class: EdgeClass::Relation { key } },
            EdgeType::stream(self.program.stream.clone()),
            self.input.clone(),
        ]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let (rows, late) = arrivals::arrivals(input.stream, context, &self.program, self.max_key);
        let settings = window::Settings {
            program: self.program.clone(),
            window: self.window,
            max_groups: (self.max_groups / context.peers).max(1),
            distinct_limit: self.distinct_limit,
            live: context.connected.first() == Some(&true),
            finals: context.connected.get(1) == Some(&true),
            tick: context.recorded.first().is_some_and(|recorded| *recorded).then_some(context.tick),
            complete_from: context.complete_from,
        };
        let [out, last] = run::run(rows, context, settings);
        vec![out, last, late]
    }

    fn facts(&self) -> Facts {
        Facts { has_windows: true, ..Facts::default() }
    }

    /// A window's last row leaves at the window's end, so what leaves there needs the whole window.
    fn needs_from(&self, time: Time) -> Time {
        let window = u64::try_from(self.window / 1_000_000).unwrap_or(1).max(1);
        let last = time.saturating_sub(1);
        last - last % window
    }
}
