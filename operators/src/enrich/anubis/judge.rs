//! What becomes of the requests of a batch.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Builder, Int64Array, RecordBatch, StringBuilder, UInt32Builder};
use datafusion::error::DataFusionError;

use super::batch::{Conditions, Found, Rows};
use super::matchers::{Matchers, Thresholds};
use super::policy::Action;

/// What follows if no threshold holds.
const DEFAULT: &str = Action::Allow.name();

/// What is written of a rule that has decided.
pub(super) struct Named {
    /// Its name.
    pub name: String,
    /// The folder of its file.
    pub category: String,
    /// What follows.
    pub action: Action,
}

/// A policy made ready for an input.
pub(super) struct Judge {
    /// What rules ask.
    pub matchers: Matchers,
    /// Each rule.
    pub rules: Vec<Named>,
    /// What follows from the weight.
    pub thresholds: Thresholds,
    /// Columns of which one is not null in a request; none if every row is one.
    pub of_every_request: Vec<usize>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Default)]
struct Verdict {
    /// The rule that decides.
    rule: Option<u32>,
    /// The sum of what rules before it weigh.
    weight: i32,
    /// A rule has weighed.
    weighed: bool,
}

impl Judge {
    /// The columns that are added: name, action, category, id and weight.
    ///
    /// # Errors
    /// If an expression cannot be computed.
    pub fn columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError> {
        let verdicts = self.verdicts(rows)?;
        let by_weight = self.by_weight(&verdicts)?;
        let (mut names, mut actions, mut categories) =
            (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
        let (mut ids, mut weights) = (UInt32Builder::new(), Int32Builder::new());
        for verdict in &verdicts {
            let rule = verdict.and_then(|verdict| verdict.rule);
            let decided = rule.map(|rule| &self.rules[rule as usize]);
            let weighed = verdict.filter(|verdict| verdict.weighed && verdict.rule.is_none());
            let action = decided.map(|rule| rule.action.name());
            names.append_option(decided.map(|rule| &rule.name));
            actions.append_option(action.or_else(|| Some(by_weight[&weighed?.weight])));
            categories.append_option(decided.map(|rule| &rule.category));
            ids.append_option(rule.map(|rule| rule + 1));
            weights.append_option(verdict.map(|verdict| verdict.weight));
        }
        Ok(vec![
            Arc::new(names.finish()),
            Arc::new(actions.finish()),
            Arc::new(categories.finish()),
            Arc::new(ids.finish()),
            Arc::new(weights.finish()),
        ])
    }

    /// Of each row; `None` if it is no request.
    fn verdicts(&self, rows: &RecordBatch) -> Result<Vec<Option<Verdict>>, DataFusionError> {
        let matchers = &self.matchers;
        let mut batch = Rows::new(rows);
        let mut found = Vec::new();
        for asked in &matchers.texts {
            found.push(batch.texts(asked)?);
        }
        if let Some(asked) = &matchers.addresses {
            let set = |text: &str| asked.ranges.get(text.parse::<IpAddr>().ok()?);
            found.push(batch.known(asked.column, asked.sets.all(), set)?);
        }
        if let Some(asked) = &matchers.countries {
            let set = |text: &str| asked.of.get(&text.to_ascii_lowercase()).copied();
            found.push(batch.known(asked.column, asked.sets.all(), set)?);
        }
        if let Some(asked) = &matchers.asns {
            found.push(batch.numbers(asked)?);
        }
        let mut conditions = Conditions::new(batch, &matchers.conditions);
        (0..rows.num_rows())
            .map(|row| {
                if !self.is_request(rows, row) {
                    return Ok(None);
                }
                self.verdict(row, &found, &mut conditions).map(Some)
            })
            .collect()
    }

    fn is_request(&self, rows: &RecordBatch, row: usize) -> bool {
        self.of_every_request.is_empty()
            || self.of_every_request.iter().any(|column| rows.column(*column).is_valid(row))
    }

    /// Asks the rules in their order, as far as they have not been answered.
    fn verdict(
        &self,
        row: usize,
        found: &[Found<'_>],
        conditions: &mut Conditions<'_>,
    ) -> Result<Verdict, DataFusionError> {
        let mut verdict = Verdict::default();
        for nth in 0..self.matchers.evaluated.words() {
            let mut word =
                found.iter().fold(self.matchers.evaluated.word(nth), |word, found| word & found.word(row, nth));
            while word != 0 {
                let rule = nth * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                if !conditions.holds(rule, row)? {
                    continue;
                }
                match self.rules[rule].action {
                    Action::Weigh(adjust) => {
                        verdict.weight = verdict.weight.saturating_add(adjust);
                        verdict.weighed = true;
                    }
                    _ => return Ok(Verdict { rule: Some(rule as u32), ..verdict }),
                }
            }
        }
        Ok(verdict)
    }

    /// What follows from each weight that no rule has decided upon.
    fn by_weight(&self, verdicts: &[Option<Verdict>]) -> Result<HashMap<i32, &'static str>, DataFusionError> {
        let weighed = verdicts.iter().flatten().filter(|verdict| verdict.weighed && verdict.rule.is_none());
        let mut actions: HashMap<i32, &'static str> = weighed.map(|verdict| (verdict.weight, DEFAULT)).collect();
        if actions.is_empty() {
            return Ok(actions);
        }
        let weights: Vec<i32> = actions.keys().copied().collect();
        let column: ArrayRef = Arc::new(weights.iter().map(|weight| Some(i64::from(*weight))).collect::<Int64Array>());
        let rows = RecordBatch::try_new(Arc::clone(&self.thresholds.schema), vec![column])?;
        // The first that holds counts: it is the last that is written.
        for (condition, action) in self.thresholds.conditions.iter().rev() {
            let mask = condition.mask(&rows)?;
            for (weight, _) in weights.iter().zip(&mask).filter(|(_, holds)| *holds == Some(true)) {
                actions.insert(*weight, action);
            }
        }
        Ok(actions)
    }
}
