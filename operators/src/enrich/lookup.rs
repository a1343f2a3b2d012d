//! What look-ups in reference files have in common: the input's columns and what is known of each row, by the versions of
//! the files that were in effect.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream, Time, WINDOW_START};
use engine::contract::{BuildContext, Node, Parse, PlanContext, Reading, read_content};
use engine::spec::Located;

use crate::linear::timed;

/// A look-up of rows in the content of one or several files.
pub(crate) trait Lookup: Clone + Send + Sync + 'static {
    /// What a file's content becomes.
    type Part: Send + Sync + 'static;

    /// The columns that are added, of as many rows, in the order of the fields. `parts` are in the order of the files.
    ///
    /// # Errors
    /// If columns cannot be made: a defect.
    fn label(&self, rows: &RecordBatch, parts: &[Arc<Self::Part>]) -> Result<Vec<ArrayRef>, ArrowError>;

    /// From when a file's data is, if its content says so.
    fn made(_part: &Self::Part) -> Option<SystemTime> {
        None
    }
}

/// A file and what reads its content.
struct Source<P> {
    path: PathBuf,
    reading: Reading<P>,
}

/// Files as they are written, and what reads each.
type Sources<P> = Vec<(Located<PathBuf>, Parse<P>)>;

/// The files of a node.
struct Files<P> {
    sources: Sources<P>,
    max_age: Option<Duration>,
    may_be_absent: bool,
}

/// The node of a look-up. What is wrong, also with what the files have now, goes to the context. Data older than the maximum is
/// a trouble of the running node.
pub(crate) fn plan<L: Lookup>(
    lookup: L,
    added: &[Field],
    (sources, max_age): (Sources<L::Part>, Option<Duration>),
    context: &mut PlanContext<'_>,
) -> Option<Box<dyn Node>> {
    plan_with(lookup, added, Files { sources, max_age, may_be_absent: false }, context)
}

/// The same with one file that need not be there yet: until it is, what is added is null.
pub(crate) fn plan_optional<L: Lookup>(
    lookup: L,
    added: &[Field],
    source: (Located<PathBuf>, Parse<L::Part>),
    context: &mut PlanContext<'_>,
) -> Option<Box<dyn Node>> {
    plan_with(lookup, added, Files { sources: vec![source], max_age: None, may_be_absent: true }, context)
}

fn plan_with<L: Lookup>(
    lookup: L,
    added: &[Field],
    Files { sources, max_age, may_be_absent }: Files<L::Part>,
    context: &mut PlanContext<'_>,
) -> Option<Box<dyn Node>> {
    let input = context.input(0);
    let mut complete = true;
    for field in added.iter().filter(|field| input.schema.index_of(field.name()).is_ok()) {
        context.error(context.input_span(0), format!("the input has a column `{}` already", field.name()));
        complete = false;
    }
    let mut files = Vec::with_capacity(sources.len());
    for (written, parse) in sources {
        let path = context.path(&written.value);
        let mut reading = Reading { made: L::made, max_age, may_be_absent, ..Reading::new(parse) };
        let faults = match read_content(&path).map(|content| parse(&content)) {
            Ok(Ok(value)) => {
                reading.planned = L::made(&value);
                None
            }
            Ok(Err(why)) => Some(why.lines().map(|why| format!(":{why}")).collect()),
            Err(error) if may_be_absent && error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(vec![format!(" cannot be read: {error}")]),
        };
        for fault in faults.into_iter().flatten() {
            context.error(written.span, format!("{}{fault}", path.display()));
            complete = false;
        }
        files.push(Source { path, reading });
    }
    let fields = input.schema.fields().iter().cloned().chain(added.iter().cloned().map(Arc::new));
    let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let window = input.schema.index_of(WINDOW_START).ok().filter(|_| input.is_relation());
    complete.then(|| {
        let is_relation = input.is_relation();
        let added = added.iter().map(|field| field.data_type().clone()).collect();
        let output = input.with_schema(output);
        Box::new(LookupNode { lookup, files, may_be_absent, added, is_relation, window, output }) as Box<dyn Node>
    })
}

/// The index of a column of text, which is `default` unless another is named. What is wrong goes to the context.
pub(crate) fn text_column(
    named: Option<Located<String>>,
    default: &str,
    what: &str,
    context: &mut PlanContext<'_>,
) -> Option<usize> {
    let (at, named) = column(named, default, context)?;
    let found = context.input(0).schema.field(at).data_type().clone();
    if found != DataType::Utf8 {
        context.error(named.span, format!("{what} is text; `{}` is {found}", named.value));
        return None;
    }
    Some(at)
}

/// The index of a column, which is `default` unless another is named, and how it is named.
pub(crate) fn column(
    named: Option<Located<String>>,
    default: &str,
    context: &mut PlanContext<'_>,
) -> Option<(usize, Located<String>)> {
    let named = named.unwrap_or_else(|| Located::new(default.to_owned(), context.input_span(0)));
    let at = context.column(&context.input(0).schema, &named.value, named.span)?;
    Some((at, named))
}

/// What is known of the texts of a column, each looked up once: a batch has far fewer of them than rows.
pub(crate) struct Distinct<T> {
    /// What was found.
    found: Vec<T>,
    /// Which of them each row has.
    of_row: Vec<Option<u32>>,
}

impl<T> Distinct<T> {
    /// Looks up each text. A null is none.
    pub fn new<'a>(texts: &'a StringArray, mut look_up: impl FnMut(&'a str) -> T) -> Self {
        let mut known: HashMap<&str, u32, ahash::RandomState> = HashMap::default();
        let mut found = Vec::new();
        let mut of_text = |text: &'a str| {
            *known.entry(text).or_insert_with(|| {
                found.push(look_up(text));
                found.len() as u32 - 1
            })
        };
        let of_row = texts.iter().map(|text| text.map(&mut of_text)).collect();
        Self { found, of_row }
    }

    /// What is known of a row's text; `None` if it has none.
    pub fn get(&self, row: usize) -> Option<&T> {
        self.of_row.get(row).copied().flatten().and_then(|at| self.found.get(at as usize))
    }
}

struct LookupNode<L: Lookup> {
    lookup: L,
    files: Vec<Source<L::Part>>,
    may_be_absent: bool,
    /// The types of what is added.
    added: Vec<DataType>,
    is_relation: bool,
    /// Index of the column with the begin of the window, of a relation by window.
    window: Option<usize>,
    output: EdgeType,
}

impl<L: Lookup> Node for LookupNode<L> {
    fn outputs(&self) -> Vec<EdgeType> {
        vec![self.output.clone()]
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let (lookup, added, schema) = (self.lookup.clone(), self.added.clone(), self.output.schema.clone());
        let fail = context.failure();
        let may_be_absent = self.may_be_absent;
        let references = self.files.iter().map(|source| context.reference(&source.path, source.reading));
        let references = references.collect::<Result<Vec<_>, _>>().map_err(&fail).ok();
        // None before there is a file.
        let at = move |time: Time| -> Result<Option<Vec<Arc<L::Part>>>, String> {
            let references = references.as_ref().ok_or("its files cannot be read")?;
            let found = references.iter().map(|reference| match may_be_absent {
                true => reference.find(time),
                false => reference.at(time).map(Some),
            });
            found.collect()
        };
        let (is_relation, window, from) = (self.is_relation, self.window, context.complete_from);
        // A row is taken back as it was given. What counts is when its window began, or the run, and not when it changed.
        let is_whole = is_relation && window.is_none();
        let whole = if is_whole { at(from).map_err(&fail).ok() } else { None };
        timed(context, input, 1, move |time, rows| {
            let label = |rows: &RecordBatch, parts: Option<&Vec<Arc<L::Part>>>| {
                let labels = match parts {
                    Some(parts) => lookup.label(rows, parts)?,
                    None => added.iter().map(|ty| new_null_array(ty, rows.num_rows())).collect(),
                };
                RecordBatch::try_new(Arc::clone(&schema), rows.columns().iter().cloned().chain(labels).collect())
            };
            if is_whole {
                return Ok([whole.as_ref().map(|parts| label(rows, parts.as_ref())).transpose()?, None]);
            }
            let ranges = window.map_or_else(|| vec![(time, 0..rows.num_rows())], |window| by_window(rows, window));
            let mut labelled = Vec::with_capacity(ranges.len());
            for (time, range) in ranges {
                let parts = at(time).map_err(ArrowError::ComputeError)?;
                labelled.push(label(&rows.slice(range.start, range.len()), parts.as_ref())?);
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
