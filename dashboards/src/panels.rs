//! Named queries: what the pages ask, one file each in `queries/`, with typed parameters.
//!
//! A file is a statement. Its first lines are comments: what it shows, then a line for each parameter, `-- name: type default`, of
//! type `time` (RFC 3339, or ms since the epoch), `integer`, `seconds` or `text`. A parameter without a default may be left out and
//! is null then. Values are bound, never put into the text.

use std::collections::BTreeMap;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use rust_embed::RustEmbed;

use crate::error::Error;
use crate::query::Parameter;

#[derive(RustEmbed)]
#[folder = "queries/"]
struct Files;

/// The named queries by page and name, `overview/totals`.
#[derive(Debug)]
pub(crate) struct Panels(BTreeMap<String, Panel>);

#[derive(Debug)]
pub(crate) struct Panel {
    sql: String,
    parameters: Vec<Declared>,
}

#[derive(Debug)]
struct Declared {
    name: String,
    ty: Type,
    default: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Time,
    Integer,
    Seconds,
    Text,
}

impl Panels {
    /// Those that are part of the program.
    pub(crate) fn embedded() -> Self {
        let file = |path: std::borrow::Cow<'static, str>| {
            let name = path.strip_suffix(".sql")?.to_owned();
            let text = String::from_utf8(Files::get(&path)?.data.into_owned()).ok()?;
            Some((name, Panel::read(text)))
        };
        Self(Files::iter().filter_map(file).collect())
    }

    pub(crate) fn find(&self, page: &str, name: &str) -> Option<&Panel> {
        self.0.get(&format!("{page}/{name}"))
    }
}

impl Panel {
    fn read(sql: String) -> Self {
        let declared = |line: &str| {
            let (name, rest) = line.strip_prefix("-- ")?.split_once(": ")?;
            let mut words = rest.split_whitespace();
            let ty = match words.next()? {
                "time" => Type::Time,
                "integer" => Type::Integer,
                "seconds" => Type::Seconds,
                "text" => Type::Text,
                _ => return None,
            };
            Some(Declared { name: name.to_owned(), ty, default: words.next().map(str::to_owned) })
        };
        let parameters = sql.lines().take_while(|line| line.starts_with("--")).filter_map(declared).collect();
        Self { sql, parameters }
    }

    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// The values of the parameters, of those that were given.
    pub(crate) fn bind(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Parameter>, Error> {
        if let Some(unknown) = given.keys().find(|name| !self.parameters.iter().any(|p| p.name == **name)) {
            let names: Vec<&str> = self.parameters.iter().map(|p| p.name.as_str()).collect();
            return Err(Error::Query {
                message: format!("there is no parameter `{unknown}`"),
                help: Some(format!("there are: {}", names.join(", "))),
            });
        }
        let value = |declared: &Declared| {
            let text = given.get(&declared.name).filter(|text| !text.is_empty()).or(declared.default.as_ref());
            let value = declared.ty.read(text.map(String::as_str)).ok_or_else(|| {
                let wanted = declared.ty.wanted();
                Error::query(format!("the parameter `{}` should be {wanted}", declared.name))
            })?;
            Ok((declared.name.clone(), value))
        };
        self.parameters.iter().map(value).collect()
    }
}

impl Type {
    fn read(self, text: Option<&str>) -> Option<Parameter> {
        let whole = |text: &str| text.parse::<i64>().ok();
        let time = |text: &str| whole(text).or_else(|| Some(string_to_timestamp_nanos(text).ok()? / 1_000_000));
        Some(match (self, text) {
            (Self::Time, text) => Parameter::Time(text.map(|text| time(text).ok_or(())).transpose().ok()?),
            (Self::Integer, text) => Parameter::Integer(text.map(|text| whole(text).ok_or(())).transpose().ok()?),
            (Self::Seconds, text) => {
                Parameter::Seconds(whole(text?).filter(|seconds| (1..=366 * 86_400).contains(seconds))?)
            }
            (Self::Text, text) => Parameter::Text(text.map(str::to_owned)),
        })
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Time => "a time, such as 2026-03-01T00:00:00Z",
            Self::Integer => "a whole number",
            Self::Seconds => "a number of seconds from 1 to a year's",
            Self::Text => "text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_their_parameters_and_values_are_read_by_type() {
        let panels = Panels::embedded();
        let panel = panels.find("overview", "requests").expect("embedded");
        let bind = |given: &[(&str, &str)]| {
            let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            panel.bind(&given).map(|values| values.into_values().collect::<Vec<_>>())
        };
        assert_eq!(bind(&[]).ok(), Some(vec![Parameter::Time(None), Parameter::Seconds(60)]));
        let values = bind(&[("from", "2026-03-01T00:00:00Z"), ("step", "5")]).ok();
        assert_eq!(values, Some(vec![Parameter::Time(Some(1_772_323_200_000)), Parameter::Seconds(5)]));
        for wrong in [("step", "0"), ("step", "1 OR 1"), ("from", "x"), ("sql", "select 1")] {
            assert!(bind(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(panels.find("overview", "../overview/requests").is_none());
    }

    #[test]
    fn every_parameter_of_a_file_is_declared() {
        for (name, panel) in &Panels::embedded().0 {
            let used: Vec<&str> = panel
                .sql
                .split('$')
                .skip(1)
                .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
                .collect();
            for parameter in &panel.parameters {
                assert!(used.contains(&parameter.name.as_str()), "{name}: {} is not used", parameter.name);
            }
            assert!(used.iter().all(|used| panel.parameters.iter().any(|p| p.name == *used)), "{name}: {used:?}");
        }
    }
}
