//! How an answer is written: its format, of `Accept`, and what the address says of it.
//!
//! | parameter | values |
//! |---|---|
//! | `integers` | `number` (the default); `string`: in JSON, whole numbers of 64 bits are texts. JavaScript's numbers are exact up to 2⁵³ only |
//! | `csv` | `plain` (the default): the data as it is; `spreadsheet`: cells that a spreadsheet would run as formulas begin with `'` |

use crate::encode::Format;
use crate::error::Error;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Whether whole numbers of 64 bits are texts in JSON.
    pub(crate) quoted: bool,
    /// Whether cells of a CSV are made harmless for spreadsheets.
    pub(crate) harmless: bool,
}

impl Output {
    /// Of an `Accept` header and the part of the address behind `?`.
    pub(crate) fn asked(accept: Option<&str>, parameters: Option<&str>) -> Result<Self, Error> {
        let mut output = Self { format: Format::accepted(accept)?, quoted: false, harmless: false };
        for parameter in parameters.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("integers", "number") => output.quoted = false,
                ("integers", "string") => output.quoted = true,
                ("csv", "plain") => output.harmless = false,
                ("csv", "spreadsheet") => output.harmless = true,
                (name @ ("integers" | "csv"), _) => {
                    let values = if name == "csv" { "`plain` or `spreadsheet`" } else { "`number` or `string`" };
                    return Err(Error::query(format!("the parameter `{name}` is {values}")));
                }
                _ => {
                    return Err(Error::Query {
                        message: "the address has a parameter that does not exist".to_owned(),
                        help: Some("there are `integers` (`number`, `string`) and `csv` (`plain`, `spreadsheet`); the statement is the body".to_owned()),
                    });
                }
            }
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_or_refused() {
        let asked = |parameters| Output::asked(None, parameters).map(|o| (o.quoted, o.harmless)).ok();
        assert_eq!(asked(None), Some((false, false)));
        assert_eq!(asked(Some("")), Some((false, false)));
        assert_eq!(asked(Some("integers=string&csv=spreadsheet")), Some((true, true)));
        assert_eq!(asked(Some("integers=number&csv=plain")), Some((false, false)));
        for wrong in ["integers", "integers=bigint", "csv=excel", "query=select+1"] {
            assert_eq!(asked(Some(wrong)), None, "{wrong}");
        }
    }
}
