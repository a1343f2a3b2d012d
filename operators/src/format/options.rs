//! From a source's options to its format.

use std::sync::Arc;

use engine::batch::{SEQ, TIME};
use engine::contract::PlanContext;
use engine::spec::{Bytes, Diagnostic, Located};

use super::BEGIN_TIME;
use super::columns::{Columns, Declared, Type};
use super::haproxy::Captures;
use super::json::keys::Keys;
use super::nginx::NginxEscape;
use super::path::Path;
use super::schema::{Column, DurationColumn, Extra, Format, Kind, REPAIRED, Role};
use super::strings::Strings;
use super::syslog;
use super::text::Zone;
use super::time::Unit;
use super::{
    MAX_LINE, MAX_REJECTED, apache, aws_alb, caddy, cloudflare, envoy_json, envoy_text, haproxy, ja4sentinel,
    reqin_log, strings, traefik, w3c,
};

/// A format that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatName {
    /// Requests as mod_reqin_log writes them.
    ReqinLog,
    /// Hellos as ja4sentinel writes them.
    Ja4sentinel,
    /// Caddy's JSON access log.
    Caddy,
    /// Envoy's access log with `json_format`.
    EnvoyJson,
    /// Traefik's access log with `format: json`.
    Traefik,
    /// Cloudflare's Logpush, data set `http_requests`.
    Cloudflare,
    /// The common log format.
    Common,
    /// The combined log format of Apache and nginx.
    Combined,
    /// Apache's log by its `LogFormat`.
    Apache,
    /// nginx's log by its `log_format`.
    Nginx,
    /// HAProxy's `option httplog`.
    HaproxyHttp,
    /// HAProxy's `option httpslog`.
    HaproxyHttps,
    /// HAProxy's log by its `log-format`.
    Haproxy,
    /// Envoy's access log as text.
    EnvoyText,
    /// The log of IIS.
    Iis,
    /// W3C's extended log format.
    W3c,
    /// The access log of AWS Application Load Balancers.
    AwsAlb,
}

/// What is told of a format that is built in.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// As options name it.
    pub name: &'static str,
    /// What its lines are.
    pub summary: &'static str,
    /// What times that are numbers count, if the pipeline does not say.
    pub unit: Unit,
    /// The format, with times that are numbers in this unit.
    pub format: fn(Unit) -> Arc<Format>,
}

impl FormatName {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ReqinLog,
        Self::Ja4sentinel,
        Self::Caddy,
        Self::EnvoyJson,
        Self::Traefik,
        Self::Cloudflare,
        Self::Common,
        Self::Combined,
        Self::Apache,
        Self::Nginx,
        Self::HaproxyHttp,
        Self::HaproxyHttps,
        Self::Haproxy,
        Self::EnvoyText,
        Self::Iis,
        Self::W3c,
        Self::AwsAlb,
    ];

    /// What is told of it.
    pub fn built_in(self) -> BuiltIn {
        match self {
            Self::ReqinLog => reqin_log::FORMAT,
            Self::Ja4sentinel => ja4sentinel::FORMAT,
            Self::Caddy => caddy::FORMAT,
            Self::EnvoyJson => envoy_json::FORMAT,
            Self::Traefik => traefik::FORMAT,
            Self::Cloudflare => cloudflare::FORMAT,
            Self::Common => apache::COMMON_FORMAT,
            Self::Combined => apache::COMBINED_FORMAT,
            Self::Apache => strings::APACHE,
            Self::Nginx => strings::NGINX,
            Self::HaproxyHttp => haproxy::HTTP_FORMAT,
            Self::HaproxyHttps => haproxy::HTTPS_FORMAT,
            Self::Haproxy => strings::HAPROXY,
            Self::EnvoyText => envoy_text::FORMAT,
            Self::Iis => w3c::IIS_FORMAT,
            Self::W3c => strings::W3C,
            Self::AwsAlb => aws_alb::FORMAT,
        }
    }
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

/// The options of every source of lines that say what its lines are.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct LineOptions {
    /// What the lines are; NUL bytes, a byte order mark or a syslog header before an object are passed over. Each row but those
    /// of `ja4sentinel` has the column `repaired`: whether its line had bytes that are no UTF-8 or escapes that are no JSON, such as
    /// Apache's `\xHH`, and was taken with them replaced; such rows are counted. Default: none, then `columns` is needed.
    format: Option<Located<FormatName>>,
    /// The server's own format string, as it stands in its configuration: Apache's `LogFormat` (`format: apache`), nginx's
    /// `log_format` in one piece (`nginx`), HAProxy's `log-format` (`haproxy`), Envoy's `text_format` (`envoy_text`). The columns are
    /// those of what the string has (`list formats`), so that a header that is not logged is not taken for one that was not
    /// sent. Default: none; that of Envoy.
    log_format: Option<Located<String>>,
    /// How nginx escapes, as `escape=` of its `log_format` says: `default`, `json` or `none`. Default `default`.
    escape: Option<Located<NginxEscape>>,
    /// The zone of times that are written without one, such as HAProxy's `%tr`: `UTC`, an offset such as `+01:00`, or `local`,
    /// that of this machine. Default UTC.
    zone: Option<Located<Zone>>,
    /// The headers that HAProxy captures, in the order of its configuration: `{ request: [Host, User-Agent], response: [Server] }`.
    /// Default: none.
    captures: Option<Located<Captures>>,
    /// The fields of a log in W3C's extended format that become columns, as `#Fields:` has them (`format: w3c`, `iis`). Their order
    /// counts only where a file has no such line. Default of `iis`: what it writes if nothing else is said.
    fields: Option<Located<String>>,
    /// For lines of another program: the columns to take, each with the type of the JSON value under the same key
    /// (`text`, `integer`, `float`, `boolean`, `time`, `ip`), or a mapping with `type` and, if needed: `key`, where the
    /// value stands, such as `request.headers.User-Agent[0]`, or a list of the steps if a key has dots itself
    /// (`["http.method"]`); `unit` of a time that is a number; `absent`, texts that stand for no value (not for `text`
    /// by default: `-` and empty; for `ip` also `unix:` and `unknown`). Text keeps the digits of a number. Where nginx
    /// lists values of several upstreams (`0.004, 0.120`) a number is the last. Other keys are ignored, and of equal keys
    /// the last counts. A value that a client writes is best taken as text: one that is not of the column's type rejects
    /// its line. Default: none.
    columns: Option<Located<Columns>>,
    /// Which of `columns` is the event time; it becomes the column `time`. Default `time`.
    time: Option<Located<String>>,
    /// What a time that is a number counts since 1970: `s` (nginx's `$msec`), `ms`, `us` or `ns`, with decimals or
    /// without, also as `1.796e9`. A number of another unit is rejected, not guessed. Times may also be dates with their zone: RFC 3339,
    /// with a comma before the fraction, or as Apache writes `%t`. Default: the format's (`list formats`), `ns` with `columns`.
    time_unit: Option<Unit>,
    /// Which of `columns` says how long what a line tells of took, and its unit: `{ column: took, unit: ms }`. The event time is
    /// then the end, when the line was written, so that a slow request is not late; rows have the column `begin_time`
    /// besides, with which `correlate` compares. Default: none.
    duration: Option<Located<Took>>,
    /// Whether `time` is the `begin` or the `end` of what a line tells of. Default begin.
    time_is: Option<Located<TimeIs>>,
    /// Whether rows have columns for the header of the syslog message that a line is: `syslog_facility`, `syslog_severity`,
    /// `syslog_hostname` and `syslog_app`, null where there is none. The header is passed over in any case. Default false.
    #[serde(default)]
    syslog_columns: bool,
    /// The longest line in bytes, such as `64KiB`; a longer one is rejected. Default 1MiB.
    max_line: Option<Bytes>,
    /// The most rejected lines that leave through `rejected` in a second, of each file: of event time for recorded files, else of
    /// the wall clock. Those beyond are left out, and counted as `rejected_left_out`; `rejected` counts all. Default 1000.
    max_rejected: Option<u32>,
}

impl LineOptions {
    /// The longest line in bytes.
    pub fn max_line(&self) -> usize {
        self.max_line.map_or(MAX_LINE, Bytes::in_memory)
    }

    /// The most rejected lines that leave in a second.
    pub fn max_rejected(&self) -> u32 {
        self.max_rejected.unwrap_or(MAX_REJECTED)
    }

    /// The options of formats of text.
    fn strings(&self) -> Strings<'_> {
        Strings {
            log_format: self.log_format.as_ref(),
            escape: self.escape.as_ref(),
            zone: self.zone.as_ref(),
            captures: self.captures.as_ref(),
            fields: self.fields.as_ref(),
        }
    }

    /// The format that the options ask for. Faults go to the context.
    pub fn choose(&self, context: &mut PlanContext<'_>) -> Option<Arc<Format>> {
        let format = self.chosen(context)?;
        if !self.syslog_columns {
            return Some(format);
        }
        if let Some(name) = syslog::COLUMNS.iter().find(|name| format.schema.index_of(name).is_ok()) {
            context
                .error(context.span, format!("`syslog_columns` gives the column `{name}`, and the format has one too"));
            return None;
        }
        Some(Arc::new(Format::clone(&format).with_syslog_columns()))
    }

    /// The format without the columns of syslog.
    fn chosen(&self, context: &mut PlanContext<'_>) -> Option<Arc<Format>> {
        match (&self.format, &self.columns) {
            (Some(_), Some(columns)) => {
                context.error(columns.span, "`format` says what the columns are; leave out one of the two");
                None
            }
            (Some(format), None) => {
                let spans = [
                    self.time.as_ref().map(|o| ("time", o.span)),
                    self.duration.as_ref().map(|o| ("duration", o.span)),
                    self.time_is.as_ref().map(|o| ("time_is", o.span)),
                ];
                if let Some((option, span)) = spans.into_iter().flatten().next() {
                    context.error(
                        span,
                        format!("`{option}` goes with `columns`; a built-in format knows where its times are"),
                    );
                    return None;
                }
                if let Some(described) = self.strings().choose(format, context)? {
                    return Some(described);
                }
                let built_in = format.value.built_in();
                Some((built_in.format)(self.time_unit.unwrap_or(built_in.unit)))
            }
            (None, Some(columns)) => self.declared(columns, context),
            (None, None) => {
                let fault = Diagnostic::new(context.span, "the source needs `format`, or `columns` and `time`");
                let names: Vec<&str> = FormatName::ALL.iter().map(|name| name.built_in().name).collect();
                context.report(fault.help(format!("formats: {}", names.join(", "))));
                None
            }
        }
    }

    /// The format of declared columns.
    fn declared(&self, columns: &Located<Columns>, context: &mut PlanContext<'_>) -> Option<Arc<Format>> {
        let unit = self.time_unit.unwrap_or_default();
        let (time, span) = self.time.as_ref().map_or((TIME, columns.span), |time| (time.value.as_str(), time.span));
        if !columns.0.iter().any(|(name, _)| name == time) {
            let fault = Diagnostic::new(span, format!("no column `{time}` to take the event time from"));
            context.report(fault.nearest(time, columns.0.iter().map(|(name, _)| name.as_str())));
            return None;
        }
        let role = match self.time_is.as_ref().map(|time_is| time_is.value).unwrap_or_default() {
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
        let duration = match &self.duration {
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
