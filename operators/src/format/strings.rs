//! From a source's options to a format of text: those that a format string, or the names of fields, describe.

use std::fmt::Write;
use std::sync::Arc;

use engine::contract::PlanContext;
use engine::spec::{Located, Span};

use super::haproxy::Captures;
use super::nginx::NginxEscape;
use super::options::{BuiltIn, FormatName};
use super::schema::Format;
use super::text::{Known, Wrong, Zone};
use super::time::Unit;
use super::w3c::W3cUnit;
use super::{apache, envoy_text, haproxy, nginx, w3c};

/// The options of formats of text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strings<'o> {
    pub log_format: Option<&'o Located<String>>,
    pub escape: Option<&'o Located<NginxEscape>>,
    pub zone: Option<&'o Located<Zone>>,
    pub captures: Option<&'o Located<Captures>>,
    pub fields: Option<&'o Located<String>>,
}

/// What a format string describes, where one is needed: its columns depend on it.
pub(super) const APACHE: BuiltIn = BuiltIn {
    name: "apache",
    summary: "the access log of Apache, by the `LogFormat` in `log_format`",
    unit: Unit::S,
    format: apache::COMBINED_FORMAT.format,
};
pub(super) const NGINX: BuiltIn = BuiltIn {
    name: "nginx",
    summary: "the access log of nginx, by the `log_format` in `log_format`, whose `escape=` is in `escape`",
    unit: Unit::S,
    format: apache::COMBINED_FORMAT.format,
};
pub(super) const HAPROXY: BuiltIn = BuiltIn {
    name: "haproxy",
    summary: "the log of HAProxy, by the `log-format` in `log_format`; times are in `zone`, captured headers are named by `captures`",
    unit: Unit::S,
    format: haproxy::HTTP_FORMAT.format,
};
pub(super) const W3C: BuiltIn = BuiltIn {
    name: "w3c",
    summary: "W3C's extended log format, with columns for `fields`; `#Fields:` in a file says where the values stand",
    unit: Unit::S,
    format: w3c::IIS_FORMAT.format,
};

/// Names of these options that a format takes: those that it needs, and those that it may have.
fn taken(name: FormatName) -> (&'static [&'static str], &'static [&'static str]) {
    match name {
        FormatName::Apache => (&["log_format"], &["zone"]),
        FormatName::Nginx => (&["log_format"], &["escape"]),
        FormatName::Haproxy => (&["log_format"], &["zone", "captures"]),
        FormatName::HaproxyHttp | FormatName::HaproxyHttps => (&[], &["zone", "captures"]),
        FormatName::EnvoyText => (&[], &["log_format", "zone"]),
        FormatName::W3c => (&["fields"], &[]),
        FormatName::Iis => (&[], &["fields"]),
        _ => (&[], &[]),
    }
}

impl Strings<'_> {
    /// The format that the options describe; `None` if something is wrong, which goes to the context. The inner `None` is a
    /// format that no string describes.
    pub(super) fn choose(
        &self,
        format: &Located<FormatName>,
        context: &mut PlanContext<'_>,
    ) -> Option<Option<Arc<Format>>> {
        let name = format.value.built_in().name;
        let (needed, optional) = taken(format.value);
        let given: [(&str, Option<Span>); 5] = [
            ("log_format", self.log_format.map(|option| option.span)),
            ("escape", self.escape.map(|option| option.span)),
            ("zone", self.zone.map(|option| option.span)),
            ("captures", self.captures.map(|option| option.span)),
            ("fields", self.fields.map(|option| option.span)),
        ];
        let mut is_right = true;
        for (option, span) in given {
            let is_known = needed.contains(&option) || optional.contains(&option);
            if let Some(span) = span.filter(|_| !is_known) {
                context.error(span, format!("`{option}` does not go with `format: {name}`"));
                is_right = false;
            }
            if span.is_none() && needed.contains(&option) {
                context.error(format.span, format!("`format: {name}` needs `{option}`, as the server has it"));
                is_right = false;
            }
        }
        if !is_right {
            return None;
        }
        let (text, built) = match self.build(format.value) {
            None => return Some(None),
            Some(built) => built,
        };
        match built {
            Ok(format) => Some(Some(format)),
            Err(wrong) => {
                let span = self.log_format.or(self.fields).map_or(format.span, |option| option.span);
                context.error(span, wrong.said(&text));
                None
            }
        }
    }

    /// The string, and what it describes.
    fn build(&self, name: FormatName) -> Option<(String, Result<Arc<Format>, Wrong>)> {
        let zone = self.zone.map(|zone| zone.value).unwrap_or_default();
        let captures = self.captures.map(|captures| captures.value.clone()).unwrap_or_default();
        let text = |default: &str| self.log_format.map_or_else(|| default.to_owned(), |text| text.value.clone());
        let fields = |default: &str| self.fields.map_or_else(|| default.to_owned(), |fields| fields.value.clone());
        let (text, whose): (String, Build) = match name {
            FormatName::Apache => (text(""), |text, settings| Format::apache(text, settings.zone)),
            FormatName::Nginx => (text(""), |text, settings| Format::nginx(text, settings.escape)),
            FormatName::Haproxy => (text(""), haproxy_by),
            FormatName::HaproxyHttp => (haproxy::HTTP.to_owned(), haproxy_by),
            FormatName::HaproxyHttps => (haproxy::HTTPS.to_owned(), haproxy_by),
            FormatName::EnvoyText => {
                (text(envoy_text::DEFAULT), |text, settings| Format::envoy_text(text, settings.zone))
            }
            FormatName::W3c => (fields(""), |text, _| Format::w3c(text, W3cUnit::W3c)),
            FormatName::Iis => (fields(w3c::IIS), |text, _| Format::w3c(text, W3cUnit::Iis)),
            _ => return None,
        };
        let settings = Settings { zone, captures, escape: self.escape.map(|escape| escape.value).unwrap_or_default() };
        let built = whose(&text, &settings);
        Some((text, built))
    }
}

/// Makes a format of its string.
type Build = fn(&str, &Settings) -> Result<Arc<Format>, Wrong>;

/// What is said beside a format string.
struct Settings {
    zone: Zone,
    captures: Captures,
    escape: NginxEscape,
}

fn haproxy_by(text: &str, settings: &Settings) -> Result<Arc<Format>, Wrong> {
    Format::haproxy(text, &settings.captures, settings.zone)
}

/// What the names of a format's strings become, as a table for readers; `None` if no string describes the format.
pub(crate) fn names_of(name: FormatName) -> Option<String> {
    let (known, others): (Vec<Known>, &[[&str; 2]]) = match name {
        FormatName::Apache => (apache::DIRECTIVES.iter().chain(&apache::SSL).copied().collect(), apache::OTHERS),
        FormatName::Nginx => (nginx::VARIABLES.to_vec(), nginx::OTHERS),
        FormatName::Haproxy => (haproxy::VARIABLES.to_vec(), haproxy::OTHERS),
        FormatName::EnvoyText => (envoy_text::COMMANDS.to_vec(), envoy_text::OTHERS),
        FormatName::W3c => (w3c::FIELDS.to_vec(), w3c::OTHERS),
        _ => return None,
    };
    let mut out = String::from("| in the string | column |\n|---|---|\n");
    for [names, columns] in others {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "| `{}` | {columns} |", names.replace(", ", "`, `"));
    }
    let mut columns: Vec<&str> = Vec::new();
    for known in known.iter().filter(|known| !known.column.is_empty()) {
        if !columns.contains(&known.column) {
            columns.push(known.column);
        }
    }
    for column in columns {
        let mut names: Vec<&Known> = known.iter().filter(|known| known.column == column).collect();
        names.sort_by_key(|known| std::cmp::Reverse(known.rank));
        let names: Vec<String> = names.iter().map(|known| format!("`{}`", known.name)).collect();
        let _ = writeln!(out, "| {} | `{column}` |", names.join(", else "));
    }
    Some(out)
}
