//! Trains an isolation forest on the rows of the last days, again and again, and writes the model to a file.
//!
//! The model is a file, and a file that changes is what `detect.forest` reads: each model takes effect at one tick, is kept
//! with the logs, and labels the same rows in a replay. So training may take its time, and a start does not train again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use engine::batch::{Batch, Edge, EdgeType, Stream, TIME, Time, WINDOW_START};
use engine::contract::exchange::{arrivals, kept};
use engine::contract::{BuildContext, Here, Inputs, Node, Operator, PlanContext, Port, Scalar};
use engine::spec::{Located, humantime_duration};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use twox_hash::XxHash64;

use super::jobs::Jobs;
use super::sample::{Row, Sample};
use crate::detect::forest::{is_number, numbers};
use crate::forest::{Options as Growing, train};

/// See [`Operator::SUMMARY`].
pub struct TrainForest;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct TrainOptions {
    /// Where the model goes, relative to the pipeline's file: the file that `detect.forest` names. It is replaced as a whole.
    /// Earlier models stay beside it, with the time of their last row in their names: to go back to one, copy it over the
    /// model.
    #[schemars(with = "String")]
    model: Located<PathBuf>,
    /// Which rows are the usual ones, as an SQL condition such as `asn_label = 'human' and fingerprint_coherence >= 0.25`.
    /// Unusual ones among them are what the forest would call usual, later. Default: all rows.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    baseline: Option<Located<String>>,
    /// The columns that are looked at: numbers and truth values. Default: all such columns but `seq`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    features: Option<Vec<Located<String>>>,
    /// How often a new model is trained, in event time: at multiples of this. Of files that are read to their end there is one model, at the end. Default 1h.
    #[serde(default = "hour", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    every: Duration,
    /// From how far back rows are. A start reads them again, so that the node before has a log of its own, where this is more
    /// than `spool.max_replay`. Default 7d.
    #[serde(default = "week", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    look_back: Duration,
    /// Fewer rows of the baseline give no model. Default 500.
    #[serde(default = "five_hundred")]
    min_rows: usize,
    /// The most rows that are held, of `look_back`; of more it is a sample, counted in `sampled_out`. A row takes 4 bytes for
    /// each feature and about 100 besides. Default 100000.
    #[serde(default = "hundred_thousand")]
    max_rows: usize,
    /// How many trees. Default 100.
    #[serde(default = "hundred")]
    trees: usize,
    /// From how many rows each tree is grown. Default 256.
    #[serde(default = "two_hundred_fifty_six")]
    max_samples: usize,
    /// How many features each split combines, for an extended forest. Default: each split looks at one feature.
    #[serde(default)]
    extension: Option<usize>,
    /// The share of the baseline that is unusual all the same, at most 0.5: the border between usual and unusual is put there.
    /// 0 puts it at a raw score of -0.5, as scikit-learn's `auto`; rows that are much alike are then all unusual.
    /// Default 0.02.
    #[serde(default = "two_percent")]
    contamination: f64,
    /// Of the random numbers: the same rows and the same seed give the same model. Default 1.
    #[serde(default = "one")]
    seed: u64,
    /// How many earlier models stay. Default 10.
    #[serde(default = "ten")]
    keep: usize,
    /// Whether rows of a relation count that may be taken back later, until they are: those of `feedback`, within its
    /// `look_back`. Rows of open windows are such rows too, unless `baseline` says `final`. Default false.
    #[serde(default)]
    corrections: bool,
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}
fn week() -> Duration {
    Duration::from_secs(7 * 86_400)
}
fn five_hundred() -> usize {
    500
}
fn hundred_thousand() -> usize {
    100_000
}
fn hundred() -> usize {
    100
}
fn two_hundred_fifty_six() -> usize {
    256
}
fn one() -> u64 {
    1
}
fn two_percent() -> f64 {
    0.02
}
fn ten() -> usize {
    10
}

impl Operator for TrainForest {
    type Options = TrainOptions;
    const KIND: &'static str = "train.forest";
    const SUMMARY: &'static str = "Trains an isolation forest on rows of the last days and writes it to a file.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];
    const NEEDS: &'static str = "`window_start` or `time`, and at least one column of numbers; of a relation only rows that stay count, but for `corrections`";
    const GIVES: &'static str = "a file. Counters: `trained` (models), `refused_models` (of which more than 20 % of held-back rows were \
         unusual), `sampled_out`, `not_computed` (rows without a value for `baseline`). Value: `baseline_rows`";

    fn plan(options: TrainOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let schema = context.input(0).schema;
        let time = [WINDOW_START, TIME].iter().find_map(|name| schema.index_of(name).ok());
        if time.is_none() {
            context.error(context.input_span(0), "rows have neither `window_start` nor `time`");
        }
        let features = features(options.features.as_deref(), &schema, context);
        let baseline = match &options.baseline {
            None => None,
            Some(condition) => match context.scalar(condition, &schema)?.truth() {
                Ok(scalar) => Some(scalar),
                Err(fault) => {
                    context.expression_fault(condition, &fault);
                    return None;
                }
            },
        };
        let growing = Growing {
            trees: options.trees,
            max_samples: options.max_samples,
            extension: options.extension,
            contamination: (options.contamination != 0.0).then_some(options.contamination),
            seed: options.seed,
            between: None,
        };
        let positive = [options.every.as_millis(), options.look_back.as_millis(), options.max_rows as u128];
        if positive.contains(&0) || options.min_rows < 2 {
            context.error(
                context.span,
                "`every`, `look_back` and `max_rows` must be greater than 0, `min_rows` at least 2",
            );
            return None;
        }
        // What the forest itself says of its options.
        let tried =
            train(&[0.0, 1.0], &["x".to_owned()], &Growing { max_samples: growing.max_samples, ..growing.clone() });
        if let Err(error @ crate::forest::TrainError::Option { .. }) = tried {
            context.error(context.span, error.to_string());
            return None;
        }
        let client = schema.index_of("src_ip").ok();
        let ms = |duration: Duration| Time::try_from(duration.as_millis()).unwrap_or(Time::MAX);
        Some(Box::new(Trainer {
            path: context.output_path(&options.model.value),
            columns: Columns { time: time?, client, features: features?, baseline },
            every: ms(options.every),
            look_back: ms(options.look_back),
            min_rows: options.min_rows,
            max_rows: options.max_rows,
            growing,
            keep: options.keep,
            corrections: options.corrections,
        }))
    }
}

/// Index and name of each feature.
fn features(
    named: Option<&[Located<String>]>,
    schema: &Schema,
    context: &mut PlanContext<'_>,
) -> Option<Vec<(usize, String)>> {
    let Some(named) = named else {
        let fields = schema.fields().iter().enumerate();
        let numbers = fields.filter(|(_, field)| is_number(field.data_type()) && field.name() != engine::batch::SEQ);
        let features: Vec<(usize, String)> = numbers.map(|(at, field)| (at, field.name().clone())).collect();
        if features.is_empty() {
            context.error(context.input_span(0), "rows have no column of numbers");
            return None;
        }
        return Some(features);
    };
    let mut found = Vec::with_capacity(named.len());
    for name in named {
        let at = context.column(schema, &name.value, name.span)?;
        let data_type: &DataType = schema.field(at).data_type();
        if !is_number(data_type) || found.iter().any(|(other, _)| *other == at) {
            context.error(name.span, format!("`{}` is {data_type}, or named twice: features are numbers", name.value));
            return None;
        }
        found.push((at, name.value.clone()));
    }
    if found.is_empty() {
        context.error(context.span, "`features` names no column");
    }
    Some(found).filter(|found| !found.is_empty())
}

/// The columns that count.
#[derive(Clone)]
struct Columns {
    time: usize,
    /// Rows of one client are not on both sides of the split.
    client: Option<usize>,
    features: Vec<(usize, String)>,
    baseline: Option<Scalar>,
}

struct Trainer {
    path: PathBuf,
    columns: Columns,
    every: Time,
    look_back: Time,
    min_rows: usize,
    max_rows: usize,
    growing: Growing,
    keep: usize,
    corrections: bool,
}

impl Node for Trainer {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn needs_from(&self, time: Time) -> Time {
        time.saturating_sub(self.look_back.saturating_add(self.every))
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let corrections = self.corrections;
        let stays = move |batch: &Batch| corrections || batch.settled && batch.diff > 0;
        let (home, note) = (context.home(), arrivals(context));
        let stream = kept(input.stream, context, stays);
        let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
        let mut input = builder.new_input(stream, Exchange::new(move |_: &Batch| home));
        let (_output, stream) = builder.new_output::<Vec<Batch>>();
        let mut training = Training {
            sample: Sample::new(self.max_rows),
            columns: self.columns.clone(),
            jobs: Jobs {
                path: self.path.clone(),
                names: self.columns.features.iter().map(|(_, name)| name.clone()).collect(),
                min_rows: self.min_rows,
                growing: self.growing.clone(),
                keep: self.keep,
                metrics: context.metrics.clone(),
                is_busy: Arc::default(),
            },
            every: self.every,
            look_back: self.look_back,
            // What an earlier run has trained is in the file.
            done: if self.path.exists() { context.complete_from } else { 0 },
            newest: None,
            has_begun: false,
            is_bounded: context.bounded,
        };
        let is_home = context.is_home();
        let (shared, here) = (Arc::clone(&context.shared), Here::new(&context.id));
        builder.build(move |capabilities| {
            drop(capabilities);
            let mut is_over = false;
            move |frontiers| {
                let _here = here.enter();
                input.for_each_stamp(|_, data| {
                    for batches in data {
                        note(batches);
                        batches.drain(..).for_each(|batch| training.take(&batch.rows, batch.diff < 0));
                    }
                });
                let frontier = frontiers[0].frontier().first().copied();
                if !is_home || is_over {
                    return;
                }
                match frontier {
                    Some(time) => training.look(time),
                    None => {
                        is_over = true;
                        if !shared.is_aborted() {
                            training.finish();
                        }
                    }
                }
            }
        });
        vec![stream]
    }
}

/// The rows so far, and when the next model is due.
struct Training {
    sample: Sample,
    columns: Columns,
    jobs: Jobs,
    every: Time,
    look_back: Time,
    /// Models that were due up to here are made, or are not wanted.
    done: Time,
    /// The time of the newest row.
    newest: Option<Time>,
    /// Any row has come, of the baseline or not.
    has_begun: bool,
    /// All input ends by itself: one model is made then, whatever steps time takes until there.
    is_bounded: bool,
}

impl Training {
    /// Takes rows of the baseline in, or takes them back.
    fn take(&mut self, rows: &RecordBatch, back: bool) {
        self.has_begun |= rows.num_rows() > 0;
        let mask = self.columns.baseline.as_ref().map(|baseline| baseline.mask(rows));
        let mask = match mask.transpose() {
            Ok(mask) => mask,
            // One row without a value must not cost its neighbours.
            Err(_) if rows.num_rows() > 1 => {
                let half = rows.num_rows() / 2;
                self.take(&rows.slice(0, half), back);
                return self.take(&rows.slice(half, rows.num_rows() - half), back);
            }
            Err(_) => {
                self.jobs.metrics.counter("not_computed").fetch_add(1, Relaxed);
                return;
            }
        };
        let columns = self.columns.features.iter().map(|(at, _)| numbers(rows.column(*at)));
        let (Ok(columns), Some(times)) = (
            columns.collect::<Result<Vec<_>, _>>(),
            rows.column(self.columns.time).as_primitive_opt::<TimestampNanosecondType>(),
        ) else {
            return;
        };
        for row in (0..rows.num_rows()).filter(|row| mask.as_ref().is_none_or(|mask| mask.value(*row))) {
            let time = Time::try_from(times.value(row) / 1_000_000).unwrap_or(0);
            let values: Box<[f32]> = columns.iter().map(|column| column[row]).collect();
            let client = self.columns.client.and_then(|at| array_value_to_string(rows.column(at), row).ok());
            let client = XxHash64::oneshot(0, client.unwrap_or_default().as_bytes());
            let hash = hash(self.jobs.growing.seed, client, time, &values);
            if back {
                self.sample.remove(hash, time);
                continue;
            }
            self.newest = self.newest.max(Some(time));
            if self.sample.add(hash, Row { time, client, values }) {
                self.jobs.metrics.counter("sampled_out").fetch_add(1, Relaxed);
            }
        }
        self.jobs.metrics.counter("baseline_rows").store(self.sample.len() as u64, Relaxed);
    }

    /// Trains if a model is due before this time.
    fn look(&mut self, time: Time) {
        let due = time - time % self.every;
        if due <= self.done || !self.has_begun || self.is_bounded || self.jobs.is_busy() {
            return;
        }
        self.done = due;
        self.sample.expire(due.saturating_sub(self.look_back));
        let rows = self.sample.rows_before(due);
        self.jobs.start(rows);
    }

    /// All input has ended: a last model, of all rows.
    fn finish(&mut self) {
        let Some(newest) = self.newest else { return };
        self.jobs.wait();
        self.sample.expire(newest.saturating_sub(self.look_back));
        self.jobs.make(&self.sample.rows_before(Time::MAX));
    }
}

/// A number for a row that depends on nothing else.
fn hash(seed: u64, client: u64, time: Time, values: &[f32]) -> u64 {
    let mut bytes = Vec::with_capacity(16 + 4 * values.len());
    bytes.extend(client.to_le_bytes());
    bytes.extend(time.to_le_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_bits().to_le_bytes()));
    XxHash64::oneshot(seed, &bytes)
}
