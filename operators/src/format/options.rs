//! From a source's options to its format.

use std::sync::Arc;

use engine::batch::{SEQ, TIME};
use engine::plan::PlanContext;
use engine::spec::{Diagnostic, Located};

use super::BEGIN_TIME;
use super::columns::{Columns, Declared, Type};
use super::keys::Keys;
use super::path::Path;
use super::schema::{Column, DurationColumn, Extra, Format, Kind, REPAIRED, Role};
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

/// The column that says how long what a line tells of took, such as a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Took {
    /// Its name among `columns`; its type is `integer` or `float`.
    column: String,
    /// What its numbers count.
    unit: Unit,
}

/// Which moment a line's time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeIs {
    /// When what the line tells of began.
    #[default]
    Begin,
    /// When it ended.
    End,
}

/// What a source's options say of its lines.
pub struct Choice<'o> {
    /// A format that is built in.
    pub format: Option<&'o Located<FormatName>>,
    /// Or the columns.
    pub columns: Option<&'o Located<Columns>>,
    /// Which column is the event time.
    pub time: Option<&'o Located<String>>,
    /// Of times that are numbers.
    pub unit: Unit,
    /// How long it took.
    pub duration: Option<&'o Located<Took>>,
    /// Which moment the time is.
    pub time_is: Option<&'o Located<TimeIs>>,
}

/// The format that the options ask for. Faults go to the context.
pub fn choose(choice: &Choice<'_>, context: &mut PlanContext<'_>) -> Option<Arc<Format>> {
    let Choice { format, columns, time, unit, .. } = *choice;
    match (format, columns) {
        (Some(_), Some(columns)) => {
            context.error(columns.span, "`format` says what the columns are; leave out one of the two");
            None
        }
        (Some(format), None) => {
            let (duration, time_is) = (choice.duration, choice.time_is);
            let spans = [
                time.map(|o| ("time", o.span)),
                duration.map(|o| ("duration", o.span)),
                time_is.map(|o| ("time_is", o.span)),
            ];
            if let Some((option, span)) = spans.into_iter().flatten().next() {
                context.error(
                    span,
                    format!("`{option}` goes with `columns`; a built-in format knows where its times are"),
                );
                return None;
            }
            Some(match format.value {
                FormatName::ReqinLog => Format::reqin_log(unit),
                FormatName::Ja4sentinel => Format::ja4sentinel(unit),
            })
        }
        (None, Some(columns)) => declared(columns, choice, context),
        (None, None) => {
            let fault = Diagnostic::new(context.span, "the source needs `format`, or `columns` and `time`");
            context.report(fault.help("formats: reqin_log, ja4sentinel"));
            None
        }
    }
}

fn declared(columns: &Located<Columns>, choice: &Choice<'_>, context: &mut PlanContext<'_>) -> Option<Arc<Format>> {
    let Choice { time, unit, .. } = *choice;
    let (time, span) = time.map_or((TIME, columns.span), |time| (time.value.as_str(), time.span));
    if !columns.0.iter().any(|(name, _)| name == time) {
        let fault = Diagnostic::new(span, format!("no column `{time}` to take the event time from"));
        context.report(fault.nearest(time, columns.0.iter().map(|(name, _)| name.as_str())));
        return None;
    }
    let role = match choice.time_is.map(|time_is| time_is.value).unwrap_or_default() {
        TimeIs::Begin => Role::Begin,
        TimeIs::End => Role::End,
    };
    let (mut others, mut times) = (Vec::new(), Vec::new());
    for (name, declared) in &columns.0 {
        let key = declared.key.clone().unwrap_or_else(|| Path::key(name));
        match check(name, declared, name == time) {
            Err(fault) => {
                context.error(if name == time { span } else { columns.span }, fault);
                return None;
            }
            Ok(()) if name == time => {
                times.push(Extra { key, kind: Kind::Time(declared.unit.unwrap_or(unit)), role });
            }
            Ok(()) => {
                let kind = declared.ty.kind(declared.unit.unwrap_or(unit));
                let absent = declared.absent.clone().unwrap_or_else(|| kind.absent());
                others.push(Column { name: name.clone(), key, kind, absent, required: false });
            }
        }
    }
    let duration = match choice.duration {
        Some(took) => Some(duration_column(took, &others, context)?),
        None => None,
    };
    let format = Format::new(others, times, duration);
    if let (_, Some(excluded)) = Keys::new(format.paths()) {
        let (name, key) = format.columns.get(excluded).map_or((time, &format.extras[0].key), |c| (&c.name, &c.key));
        context.error(columns.span, format!("another column than `{name}` takes `{key}`, or something in it"));
        return None;
    }
    Some(Arc::new(format))
}

/// The column that says how long it took.
fn duration_column(took: &Located<Took>, columns: &[Column], context: &mut PlanContext<'_>) -> Option<DurationColumn> {
    let Took { column: name, unit } = &took.value;
    let Some(column) = columns.iter().position(|column| column.name == *name) else {
        let fault = Diagnostic::new(took.span, format!("no column `{name}` to take the duration from"));
        context.report(fault.nearest(name, columns.iter().map(|column| column.name.as_str())));
        return None;
    };
    if !matches!(columns[column].kind, Kind::I64 | Kind::F64) {
        context
            .error(took.span, format!("the column `{name}` holds the duration: its type must be `integer` or `float`"));
        return None;
    }
    Some(DurationColumn { column, unit: *unit })
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
    if !is_event_time && [TIME, SEQ, BEGIN_TIME, REPAIRED].contains(&name) {
        return Err(format!("every stream of lines has its own column `{name}`; another cannot be declared"));
    }
    Ok(())
}
