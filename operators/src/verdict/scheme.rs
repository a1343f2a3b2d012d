//! Schemes as written: in the pipeline or in files of their own.

use arrow::datatypes::Schema;
use engine::contract::{PlanContext, Scalar};
use engine::spec::{Diagnostic, Located, nearest};

use crate::entries::{Given, Template, condition, read, template};

/// What the entries of a scheme give, as the project's own schemes do; a scheme may have others.
pub(super) const VERDICTS: [&str; 9] =
    [NORMAL, "LOW", "MEDIUM", "HIGH", "CRITICAL", "KNOWN_BOT", "ANUBIS_DENY", "LEGITIMATE_BROWSER", "VERIFIED_BOT"];

/// What a row is for which no entry holds.
pub(super) const NORMAL: &str = "NORMAL";

/// An entry.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryOptions {
    /// What the row is then.
    verdict: Located<String>,
    /// An SQL condition over the input's columns; null counts as false. The last entry of a scheme may be without one: it
    /// holds for all rows that are left. Default: always.
    when: Option<Located<String>>,
    /// Why, for people, as in a rule: `{column}` is the row's value, `{column:%}` a share as a whole percentage,
    /// `{column:.2}` a number with two decimals, `{{` and `}}` are braces. Default: none.
    reason: Option<Located<String>>,
}

/// An entry that can be applied.
#[derive(Clone)]
pub(super) struct Entry {
    pub verdict: String,
    /// `None` holds always; the last entry of a scheme has it, and no other.
    pub when: Option<Scalar>,
    pub reason: Option<Template>,
}

/// Checks the entries; every fault is reported where it stands.
pub(super) fn check(
    given: Located<Given<EntryOptions>>,
    schema: &Schema,
    context: &mut PlanContext<'_>,
) -> Option<Vec<Entry>> {
    let (written, mut complete) = read(given, "entries of a scheme", context)?;
    let mut entries = Vec::with_capacity(written.len() + 1);
    let last = written.len().saturating_sub(1);
    for (at, EntryOptions { verdict, when, reason }) in written.into_iter().enumerate() {
        check_name(&verdict, &mut complete, context);
        if when.is_none() && at < last {
            let message = "only the last entry can be without `when`: those behind it would never count";
            context.error(verdict.span, message);
            complete = false;
        }
        let when = when.map(|when| condition(&when, schema, context));
        let reason = reason.map(|reason| template(&reason, schema, context));
        // What has been written and could not be read is reported.
        complete &= when.as_ref().is_none_or(Option::is_some) && reason.as_ref().is_none_or(Option::is_some);
        entries.push(Entry { verdict: verdict.value, when: when.flatten(), reason: reason.flatten() });
    }
    if entries.last().is_none_or(|entry| entry.when.is_some()) {
        entries.push(Entry { verdict: NORMAL.to_owned(), when: None, reason: None });
    }
    complete.then_some(entries)
}

/// Refuses a verdict that cannot be shown, and warns of one that was probably meant to be another.
fn check_name(verdict: &Located<String>, complete: &mut bool, context: &mut PlanContext<'_>) {
    let name = verdict.value.as_str();
    if name.trim().is_empty() || name.contains(char::is_control) {
        context.error(verdict.span, "a verdict is text in one line");
        *complete = false;
    } else if !VERDICTS.contains(&name)
        && let Some(near) = nearest(name, VERDICTS)
    {
        let message = format!("`{name}` is a verdict of this scheme's own, unlike `{near}`");
        context.warn(Diagnostic::new(verdict.span, message).help(format!("did you mean `{near}`?")));
    }
}
