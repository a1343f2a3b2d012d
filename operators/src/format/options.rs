//! From a source's options to its format.

use std::sync::Arc;

use engine::batch::{SEQ, TIME};
use engine::plan::PlanContext;
use engine::spec::{Diagnostic, Located};

use super::columns::{Columns, Declared, Type};
use super::keys::Keys;
use super::path::Path;
use super::schema::{Column, Format, REPAIRED};
use super::time::Unit;

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
    unit: Unit,
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
                FormatName::ReqinLog => Format::reqin_log(unit),
                FormatName::Ja4sentinel => Format::ja4sentinel(unit),
            })
        }
        (None, Some(columns)) => declared(columns, time, unit, context),
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
    unit: Unit,
    context: &mut PlanContext<'_>,
) -> Option<Arc<Format>> {
    let (time, span) = time.map_or((TIME, columns.span), |time| (time.value.as_str(), time.span));
    if !columns.0.iter().any(|(name, _)| name == time) {
        let fault = Diagnostic::new(span, format!("no column `{time}` to take the event time from"));
        context.report(fault.nearest(time, columns.0.iter().map(|(name, _)| name.as_str())));
        return None;
    }
    let (mut others, mut times) = (Vec::new(), Vec::new());
    for (name, declared) in &columns.0 {
        let key = declared.key.clone().unwrap_or_else(|| Path::key(name));
        match check(name, declared, name == time) {
            Err(fault) => {
                context.error(if name == time { span } else { columns.span }, fault);
                return None;
            }
            Ok(()) if name == time => times.push((key, declared.unit.unwrap_or(unit))),
            Ok(()) => {
                let kind = declared.ty.kind(declared.unit.unwrap_or(unit));
                let absent = declared.absent.clone().unwrap_or_else(|| kind.absent());
                others.push(Column { name: name.clone(), key, kind, absent, required: false });
            }
        }
    }
    let format = Format::new(others, times);
    if let (_, Some(excluded)) = Keys::new(format.paths()) {
        let (name, key) = format.columns.get(excluded).map_or((time, &format.times[0].0), |c| (&c.name, &c.key));
        context.error(columns.span, format!("another column than `{name}` takes `{key}`, or something in it"));
        return None;
    }
    Some(Arc::new(format))
}

/// What is wrong with a column.
fn check(name: &str, declared: &Declared, is_event_time: bool) -> Result<(), String> {
    match declared.ty {
        Type::Time => {}
        _ if is_event_time => {
            return Err(format!("the column `{name}` holds the event time: its type must be `time`"));
        }
        _ if declared.unit.is_some() => return Err(format!("`unit` is for times, which the column `{name}` is not")),
        _ => {}
    }
    if !is_event_time && [TIME, SEQ, REPAIRED].contains(&name) {
        return Err(format!("every stream of lines has its own column `{name}`; another cannot be declared"));
    }
    Ok(())
}
