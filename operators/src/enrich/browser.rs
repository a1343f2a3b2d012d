//! Which browser sends a fingerprint, and whether the User-Agent names the same.

mod family;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use engine::contract::{Inputs, Node, Operator, PlanContext, Port};
use engine::spec::Located;

use super::agent::cut;
use super::csv;
use super::faults::Faults;
use super::inspect::About;
use super::lookup::{self, Distinct, Lookup};
use crate::source::optional_duration;
use family::Claim;

/// The most families, libraries or contexts of one JA4.
const MOST_VALUES: usize = 16;

/// See [`Operator::SUMMARY`].
pub struct Browser;

/// What can be set.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct BrowserOptions {
    /// CSV with `ja4,browser_family,tls_library,context`, relative to the pipeline's file; the last two may be empty. A JA4 may
    /// have several rows, at most 16 different families: then values are joined by `|`. A file with a bad row is refused, and
    /// the first five of them are named. A live run reads it again when it changes, as `enrich.asn` does: see its option `file`.
    #[schemars(with = "String")]
    file: Located<PathBuf>,
    /// A table that is older is a trouble of the node, which `status` shows: see this option of `enrich.asn`. Default: none.
    #[serde(default, deserialize_with = "optional_duration")]
    #[schemars(with = "Option<String>")]
    max_age: Option<Duration>,
    /// The column with the JA4. Default: `ja4`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    ja4: Option<Located<String>>,
    /// The column with the User-Agent. Default: `header_user_agent`.
    ///
    /// The family that it names is the first that fits, case counting: `EdgiOS/`, `Edg/`, `EdgA/` or `Edge/` is Edge,
    /// `SamsungBrowser/` Samsung Internet, `OPiOS/`, `OPT/`, `OPR/`, `OPX/` or `Opera/` Opera, `FxiOS/` Firefox, `CriOS/`
    /// Chrome, SeaMonkey and Pale Moon other, `Firefox/` Firefox, `Chrome/` or `Chromium/` Chrome, `Android` other, `Version/`
    /// with `Safari/` Safari, and all else other. Its first 512 bytes are looked at.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    user_agent: Option<Located<String>>,
}

/// What is added, all nullable.
const ADDED: [(&str, DataType); 5] = [
    ("browser_family", DataType::Utf8),
    ("browser_tls_library", DataType::Utf8),
    ("browser_context", DataType::Utf8),
    ("ua_family", DataType::Utf8),
    ("browser_matches", DataType::Boolean),
];

impl Operator for Browser {
    type Options = BrowserOptions;
    const KIND: &'static str = "enrich.browser";
    const SUMMARY: &'static str = "Names the browser that sends a JA4, and says whether the User-Agent names the same.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[Port { name: "out", summary: "every row, with five columns more" }];
    const NEEDS: &'static str = "`ja4` and `header_user_agent`, or what options name instead, as Utf8";
    const GIVES: &'static str = "the columns of the input; `browser_family`, `browser_tls_library` and `browser_context` of the JA4; \
        `ua_family`, which the User-Agent names: Chrome, Edge, Firefox, Safari, Opera, Samsung Internet or other; `browser_matches` \
        (Boolean): whether one of the JA4's families is that of the User-Agent. Null without either, or if that is other. Edge, \
        Opera and Samsung Internet are built on Chrome and have its TLS, all browsers on iOS have Safari's: they match these \
        too. Chromium and Brave count as Chrome, Tor as Firefox";

    fn plan(options: BrowserOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let ja4 = lookup::text_column(options.ja4, "ja4", "a JA4", context);
        let agent = lookup::text_column(options.user_agent, "header_user_agent", "a User-Agent", context);
        let added = ADDED.map(|(name, data_type)| Field::new(name, data_type, true));
        let columns = ja4.zip(agent).map(|(ja4, agent)| Columns { ja4, agent });
        let sources = vec![(options.file, Browsers::parse as _)];
        let node = lookup::plan(columns.unwrap_or_default(), &added, (sources, options.max_age), context);
        node.filter(|_| columns.is_some())
    }
}

/// What is known of a JA4: different values, joined by `|`.
#[derive(Debug, Default)]
struct Known {
    family: String,
    library: String,
    context: String,
}

/// Browsers by JA4.
#[derive(Debug)]
struct Browsers(HashMap<Box<str>, Known, ahash::RandomState>);

impl Browsers {
    fn parse(content: &[u8]) -> Result<Self, String> {
        Self::read(content).map_err(|faults| faults.text())
    }

    fn read(content: &[u8]) -> Result<Self, Faults> {
        let mut browsers: HashMap<Box<str>, Known, ahash::RandomState> = HashMap::default();
        let columns = ["ja4", "browser_family", "tls_library", "context"];
        csv::read(content, columns, columns.len(), |_, [ja4, family, library, context]| {
            csv::ja4(ja4)?;
            csv::name(family, "the browser's family")?;
            let known = browsers.entry(ja4.into()).or_default();
            add(&mut known.family, family)?;
            add(&mut known.library, library)?;
            add(&mut known.context, context)
        })?;
        Ok(Self(browsers))
    }
}

/// Adds a value to those that are known, if it is another. An empty one is none.
fn add(known: &mut String, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Ok(());
    }
    csv::name(value, "a value")?;
    if value.contains('|') {
        return Err(format!("`{value}` has a `|`, which stands between values; give the JA4 several rows"));
    }
    if known.is_empty() {
        known.push_str(value);
    } else if !known.split('|').any(|other| other == value) {
        if known.split('|').count() == MOST_VALUES {
            return Err(format!("the JA4 has more than {MOST_VALUES} different values of a column"));
        }
        known.push('|');
        known.push_str(value);
    }
    Ok(())
}

/// Indices of the columns that are looked at.
/// What the content of a file is read as.
pub(super) fn inspect(content: &[u8]) -> Result<About, String> {
    let entries = Browsers::parse(content)?.0.len();
    Ok(About { what: "JA4 of browsers".to_owned(), entries, made: None, note: None })
}

#[derive(Clone, Copy, Default)]
struct Columns {
    ja4: usize,
    agent: usize,
}

impl Lookup for Columns {
    type Part = Browsers;

    fn label(&self, rows: &RecordBatch, parts: &[Arc<Browsers>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let [browsers] = parts else { return Err(ArrowError::ComputeError("defect: one file".to_owned())) };
        let ja4 = Distinct::new(rows.column(self.ja4).as_string::<i32>(), |ja4| browsers.0.get(ja4));
        let agents = Distinct::new(rows.column(self.agent).as_string::<i32>(), |agent| {
            (!agent.is_empty()).then(|| Claim::of(cut(agent)))
        });
        let known = |row: usize| ja4.get(row).copied().flatten();
        let claim = |row: usize| agents.get(row).copied().flatten();
        let column = |value: fn(&Known) -> &str| -> ArrayRef {
            let values = (0..rows.num_rows()).map(|row| known(row).map(value).filter(|value| !value.is_empty()));
            Arc::new(values.collect::<StringArray>())
        };
        let named = (0..rows.num_rows()).map(|row| claim(row).map(|claim| claim.family));
        let matches = (0..rows.num_rows()).map(|row| claim(row)?.matches(known(row)?.family.split('|')));
        Ok(vec![
            column(|known| &known.family),
            column(|known| &known.library),
            column(|known| &known.context),
            Arc::new(named.collect::<StringArray>()),
            Arc::new(matches.collect::<BooleanArray>()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";
    const FIREFOX: &str = "t13d1717h2_5b57614c22b0_3cbfd9057e0d";
    const HEADER: &str = "ja4,browser_family,tls_library,context\n";

    /// The columns for rows of a JA4 and a User-Agent, each row as text.
    fn labelled(file: &str, rows: &[(Option<&str>, Option<&str>)]) -> Vec<String> {
        let browsers = Browsers::parse(format!("{HEADER}{file}").as_bytes()).expect("valid");
        let column = |texts: Vec<Option<&str>>| Arc::new(StringArray::from(texts)) as ArrayRef;
        let (ja4, agent) = rows.iter().copied().unzip();
        let batch = RecordBatch::try_from_iter([("a", column(agent)), ("j", column(ja4))]).expect("rows");
        let columns = Columns { ja4: 1, agent: 0 }.label(&batch, &[Arc::new(browsers)]).expect("labels");
        assert_eq!(
            columns.iter().map(|column| column.data_type().clone()).collect::<Vec<_>>(),
            ADDED.map(|(_, ty)| ty)
        );
        let text = |column: usize, row| {
            columns[column].as_string_opt::<i32>().and_then(|texts| texts.iter().nth(row).flatten())
        };
        let matches = |row| columns[4].as_boolean().iter().nth(row).flatten();
        let row = |row| {
            let texts: Vec<&str> = (0..4).map(|column| text(column, row).unwrap_or("-")).collect();
            format!("{} {:?}", texts.join(" "), matches(row))
        };
        (0..rows.len()).map(row).collect()
    }

    #[test]
    fn fingerprints_and_user_agents_are_compared() {
        let file = format!("{CHROME},Chrome,BoringSSL,desktop\n{FIREFOX},Firefox,,\n");
        let (chrome, firefox) = (Some("Chrome/156.0 Safari/537.36"), Some("Firefox/140.0"));
        let rows = [
            (Some(CHROME), chrome),
            (Some(CHROME), firefox),
            (Some(FIREFOX), firefox),
            (Some(CHROME), Some("curl/8")),
            (Some("t13"), chrome),
            (None, chrome),
            (Some(CHROME), None),
            (Some(CHROME), Some("")),
        ];
        let expected = [
            "Chrome BoringSSL desktop Chrome Some(true)",
            "Chrome BoringSSL desktop Firefox Some(false)",
            "Firefox - - Firefox Some(true)",
            "Chrome BoringSSL desktop other None",
            "- - - Chrome None",
            "- - - Chrome None",
            "Chrome BoringSSL desktop - None",
            "Chrome BoringSSL desktop - None",
        ];
        assert_eq!(labelled(&file, &rows), expected);
    }

    #[test]
    fn several_rows_of_a_fingerprint_are_a_list() {
        let file = format!(
            "{CHROME},Chrome,BoringSSL,\n{CHROME},Opera,BoringSSL,\n{CHROME},Firefox,NSS,test\n{CHROME},Chrome,,\n"
        );
        let rows = [Some("Firefox/1"), Some("Version/18 Safari/1"), Some("OPR/1")].map(|agent| (Some(CHROME), agent));
        let known = "Chrome|Opera|Firefox BoringSSL|NSS test";
        let expected = [("Firefox", true), ("Safari", false), ("Opera", true)];
        let expected = expected.map(|(family, matches)| format!("{known} {family} {:?}", Some(matches)));
        assert_eq!(labelled(&file, &rows), expected);
    }

    #[test]
    fn bad_rows_are_named() {
        let shown = |rows: &str| Browsers::parse(format!("{HEADER}{rows}").as_bytes()).expect_err("bad rows");
        let faults = shown(&format!(
            "x,Chrome,,\n{CHROME},,,\n{CHROME},a|b,,\n{CHROME},Chrome\n{CHROME},Chrome,{},\n",
            "x".repeat(129)
        ));
        let expected = [
            "2: `x` is not a JA4, such as t13d1516h2_8daaf6152771_e5627efa2ab1",
            "3: the browser's family is empty",
            "4: `a|b` has a `|`, which stands between values; give the JA4 several rows",
            "5: the row has 2 fields, the header 4",
            "6: a value has 129 bytes; it may have 128",
        ];
        assert_eq!(faults.lines().collect::<Vec<_>>(), expected);
        let many: Vec<String> = (0..17).map(|n| format!("{CHROME},family{n},,")).collect();
        assert_eq!(shown(&many.join("\n")), "18: the JA4 has more than 16 different values of a column");
        assert!(Browsers::parse(b"ja4,browser_family\n").is_err());
    }
}
