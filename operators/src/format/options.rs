//! From a source's options to its format.

use std::sync::Arc;

use engine::batch::{SEQ, TIME};
use engine::plan::PlanContext;
use engine::spec::{Diagnostic, Located};

use super::columns::{Columns, Type};
use super::schema::{Column, Format};

/// A format that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    /// Requests as mod_reqin_log writes them.
    ReqinLog,
    /// Hellos as ja4sentinel writes them.
    Ja4sentinel,
}

/// The format that `format`, or `columns` and `time`, ask for. Faults go to the context.
pub fn choose(
    format: Option<&Located<FormatName>>,
    columns: Option<&Located<Columns>>,
    time: Option<&Located<String>>,
    context: &mut PlanContext<'_>,
) -> Option<Arc<Format>> {
    match (format, columns) {
        (Some(_), Some(columns)) => {
            context.error(columns.span, "`format` says what the columns are; leave out one of the two");
            None
        }
        (Some(format), None) => {
            if let Some(time) = time {
                context.error(time.span, "`time` goes with `columns`; a built-in format knows where its time is");
                return None;
            }
            Some(match format.value {
                FormatName::ReqinLog => Format::reqin_log(),
                FormatName::Ja4sentinel => Format::ja4sentinel(),
            })
        }
        (None, Some(columns)) => declared(columns, time, context),
        (None, None) => {
            let fault = Diagnostic::new(context.span, "the source needs `format`, or `columns` and `time`");
            context.report(fault.help("formats: reqin_log, ja4sentinel"));
            None
        }
    }
}

fn declared(
    columns: &Located<Columns>,
    time: Option<&Located<String>>,
    context: &mut PlanContext<'_>,
) -> Option<Arc<Format>> {
    let (key, span) = time.map_or((TIME, columns.span), |time| (time.value.as_str(), time.span));
    match columns.0.iter().find(|(name, _)| name == key) {
        Some((_, Type::Time)) => {}
        Some(_) => {
            context.error(span, format!("the column `{key}` holds the event time: its type must be `time`"));
            return None;
        }
        None => {
            let fault = Diagnostic::new(span, format!("no column `{key}` to take the event time from"));
            context.report(fault.nearest(key, columns.0.iter().map(|(name, _)| name.as_str())));
            return None;
        }
    }
    let others = columns.0.iter().filter(|(name, _)| name != key);
    if let Some((name, _)) = others.clone().find(|(name, _)| name == TIME || name == SEQ) {
        context.error(columns.span, format!("every stream has its own column `{name}`; another cannot be declared"));
        return None;
    }
    let column = |(name, ty): &(String, Type)| Column {
        name: name.clone(),
        key: name.clone(),
        kind: ty.kind(),
        required: false,
    };
    Some(Arc::new(Format::new(others.map(column).collect(), vec![key.to_owned()])))
}
