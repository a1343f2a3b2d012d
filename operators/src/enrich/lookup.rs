//! What look-ups in reference files have in common: the input's columns and what is known of each row, by the versions of
//! the files that were in effect.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;
use engine::batch::{Edge, EdgeType, Stream, Time, WINDOW_START};
use engine::contract::{BuildContext, Node, Parse, PlanContext, read_content};
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
}

/// A file and what reads its content.
pub(crate) struct Source<P> {
    pub path: PathBuf,
    pub parse: Parse<P>,
}

/// The node of a look-up. What is wrong, also with what the files have now, goes to the context.
pub(crate) fn plan<L: Lookup>(
    lookup: L,
    added: &[Field],
    sources: Vec<(Located<PathBuf>, Parse<L::Part>)>,
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
        let faults = match read_content(&path) {
            Ok(content) => parse(&content).err().map(|why| why.lines().map(|why| format!(":{why}")).collect()),
            Err(error) => Some(vec![format!(" cannot be read: {error}")]),
        };
        for fault in faults.into_iter().flatten() {
            context.error(written.span, format!("{}{fault}", path.display()));
            complete = false;
        }
        files.push(Source { path, parse });
    }
    let fields = input.schema.fields().iter().cloned().chain(added.iter().cloned().map(Arc::new));
    let output: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let window = input.schema.index_of(WINDOW_START).ok().filter(|_| input.is_relation());
    complete.then(|| {
        let is_relation = input.is_relation();
        Box::new(LookupNode { lookup, files, is_relation, window, output: input.with_schema(output) }) as Box<dyn Node>
    })
}

/// The index of a column of text, which is `default` unless another is named. What is wrong goes to the context.
pub(crate) fn text_column(
    named: Option<Located<String>>,
    default: &str,
    what: &str,
    context: &mut PlanContext<'_>,
) -> Option<usize> {
    let input = context.input(0);
    let named = named.unwrap_or_else(|| Located::new(default.to_owned(), context.input_span(0)));
    let at = context.column(&input.schema, &named.value, named.span)?;
    let found = input.schema.field(at).data_type();
    if *found != DataType::Utf8 {
        context.error(named.span, format!("{what} is text; `{}` is {found}", named.value));
        return None;
    }
    Some(at)
}

struct LookupNode<L: Lookup> {
    lookup: L,
    files: Vec<Source<L::Part>>,
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
        let (lookup, schema) = (self.lookup.clone(), self.output.schema.clone());
        let fail = context.failure();
        let references = self.files.iter().map(|source| context.reference(&source.path, source.parse));
        let references = references.collect::<Result<Vec<_>, _>>().map_err(&fail).ok();
        let at = move |time: Time| match &references {
            Some(references) => references.iter().map(|reference| reference.at(time)).collect::<Result<Vec<_>, _>>(),
            None => Err("its files cannot be read".to_owned()),
        };
        let (is_relation, window, from) = (self.is_relation, self.window, context.complete_from);
        // A row is taken back as it was given. What counts is when its window began, or the run, and not when it changed.
        let is_whole = is_relation && window.is_none();
        let whole = if is_whole { at(from).map_err(&fail).ok() } else { None };
        timed(context, input, 1, move |time, rows| {
            let label = |rows: &RecordBatch, parts: &[Arc<L::Part>]| {
                let columns = rows.columns().iter().cloned().chain(lookup.label(rows, parts)?).collect();
                RecordBatch::try_new(Arc::clone(&schema), columns)
            };
            if is_whole {
                return Ok([whole.as_ref().map(|parts| label(rows, parts)).transpose()?, None]);
            }
            let ranges = window.map_or_else(|| vec![(time, 0..rows.num_rows())], |window| by_window(rows, window));
            let mut labelled = Vec::with_capacity(ranges.len());
            for (time, range) in ranges {
                let parts = at(time).map_err(ArrowError::ComputeError)?;
                labelled.push(label(&rows.slice(range.start, range.len()), &parts)?);
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
