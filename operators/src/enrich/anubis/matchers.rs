//! Rules made ready: what each asks of a request, by what of the request it asks.
//!
//! A batch has far fewer User-Agents, paths and addresses than rows. So for each different text the set of rules is computed
//! whose question it answers, with those that do not ask: regexes of one text in one [`RegexSet`], networks in
//! [`Ranges`]. The rules of a row are what is in all its sets, and of those the conditions in SQL are asked last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use engine::contract::{Scalar, Session};
use ipnet::IpNet;
use regex::{RegexSet, RegexSetBuilder};

use super::lower::{self, Column, Condition, Part, Row, Scope, condition};
use super::policy::{Rule, Threshold};
use super::sets::{Rules, Sets, by_address};
use crate::enrich::ranges::Ranges;

/// The most memory of the regexes of one text, in bytes.
const MAX_REGEXES: usize = 64 << 20;

/// What an SQL expression gives for some columns of a row.
#[derive(Clone)]
pub(super) struct Computed {
    /// The columns, in the order of those that the expression was compiled for.
    pub columns: Vec<usize>,
    /// The expression.
    pub scalar: Scalar,
}

/// Questions to a text.
pub(super) struct Texts {
    /// Its column.
    pub column: usize,
    /// What the text is, computed from that column alone.
    pub text: Scalar,
    /// The regexes.
    pub regexes: RegexSet,
    /// The rule of each regex.
    pub rules: Vec<usize>,
    /// The rules without a regex for this text.
    pub others: Rules,
}

/// Questions to the address.
pub(super) struct Addresses {
    /// Its column.
    pub column: usize,
    /// The number of the set of each address.
    pub ranges: Ranges,
    /// The sets.
    pub sets: Sets,
}

/// Questions to the country or the autonomous system of the address.
pub(super) struct Origins<T> {
    /// Its column.
    pub column: usize,
    /// The number of the set of each.
    pub of: HashMap<T, u32>,
    /// The sets.
    pub sets: Sets,
}

/// All rules that can be evaluated, by what they ask.
pub(super) struct Matchers {
    /// Those that can be evaluated.
    pub evaluated: Rules,
    /// By texts. A rule may ask one text several times; then there are several of these for it.
    pub texts: Vec<Texts>,
    /// By address.
    pub addresses: Option<Addresses>,
    /// By autonomous system.
    pub asns: Option<Origins<u32>>,
    /// By country, in small letters.
    pub countries: Option<Origins<String>>,
    /// The condition of each rule that has one.
    pub conditions: Vec<Option<Computed>>,
}

/// What cannot be evaluated, by the rule's number, and why.
pub(super) type Unknown = Vec<(usize, String)>;

impl Matchers {
    /// Makes rules ready, and says which cannot be evaluated.
    ///
    /// # Errors
    /// If the regexes are too large together.
    pub fn new(rules: &[Rule], row: &dyn Row, schema: &Schema, session: &Session) -> Result<(Self, Unknown), String> {
        let mut asked = Asked {
            evaluated: Rules::none(rules.len()),
            texts: BTreeMap::new(),
            addresses: None,
            asns: None,
            countries: None,
            asking: Default::default(),
            conditions: Vec::with_capacity(rules.len()),
        };
        let mut unknown = Unknown::new();
        for (number, rule) in rules.iter().enumerate() {
            match asked.rule(number, rule, row, schema, session) {
                Ok(condition) => {
                    asked.evaluated.insert(number);
                    asked.conditions.push(condition);
                }
                Err(why) => {
                    unknown.push((number, why));
                    asked.conditions.push(None);
                }
            }
        }
        Ok((asked.finish(rules.len(), schema, session)?, unknown))
    }
}

/// What is asked so far.
struct Asked {
    evaluated: Rules,
    /// Regexes and their rules, by the SQL of the text and its column.
    texts: BTreeMap<(String, usize), Vec<(String, usize)>>,
    addresses: Option<(usize, Vec<(IpNet, usize)>)>,
    asns: Option<(usize, Vec<(u32, usize)>)>,
    countries: Option<(usize, Vec<(String, usize)>)>,
    /// Rules that ask for the address, its autonomous system, its country: also those that name none.
    asking: [Vec<usize>; 3],
    conditions: Vec<Option<Computed>>,
}

impl Asked {
    /// Notes what a rule asks; nothing of a rule that cannot be evaluated.
    fn rule(
        &mut self,
        number: usize,
        rule: &Rule,
        row: &dyn Row,
        schema: &Schema,
        session: &Session,
    ) -> Result<Option<Computed>, String> {
        if let Some(why) = &rule.unknown {
            return Err(why.clone());
        }
        let mut texts = Vec::new();
        let text = |column: &Column| lower::text(&column.name);
        if let Some(regex) = &rule.user_agent {
            let column = row.header("User-Agent")?;
            texts.push(((text(&column), column.at), regex));
        }
        if let Some(regex) = &rule.path {
            let column = row.part(Part::Path)?;
            texts.push(((lower::path(&column.name), column.at), regex));
        }
        for (name, regex) in &rule.headers {
            if name == "Host" {
                return Err("Anubis never finds the header `Host`".to_owned());
            }
            let column = row.header(name)?;
            texts.push(((text(&column), column.at), regex));
        }
        let address = if rule.addresses.is_empty() { None } else { Some(row.part(Part::Address)?.at) };
        let asn = rule.asns.as_ref().map(|_| row.part(Part::Asn)).transpose()?;
        let country = rule.countries.as_ref().map(|_| row.part(Part::Country)).transpose()?;
        let condition = match &rule.expression {
            Some(expr) => Some(truth(condition(expr, Scope::Request(row))?, schema, session)?),
            None => None,
        };
        for (text, regex) in texts {
            self.texts.entry(text).or_default().push((regex.clone(), number));
        }
        if let Some(column) = address {
            let (_, networks) = self.addresses.get_or_insert((column, Vec::new()));
            networks.extend(rule.addresses.iter().map(|network| (*network, number)));
            self.asking[0].push(number);
        }
        if let Some(column) = asn {
            let (_, numbers) = self.asns.get_or_insert((column.at, Vec::new()));
            numbers.extend(rule.asns.iter().flatten().map(|asn| (*asn, number)));
            self.asking[1].push(number);
        }
        if let Some(column) = country {
            let (_, countries) = self.countries.get_or_insert((column.at, Vec::new()));
            countries.extend(rule.countries.iter().flatten().map(|country| (country.clone(), number)));
            self.asking[2].push(number);
        }
        Ok(condition)
    }

    fn finish(self, rules: usize, schema: &Schema, session: &Session) -> Result<Matchers, String> {
        let without = |asking: &[usize]| {
            let mut others = Rules::all(rules);
            asking.iter().for_each(|rule| others.remove(*rule));
            others
        };
        let mut texts = Vec::new();
        for ((sql, column), mut regexes) in self.texts {
            let of = Schema::new(vec![schema.field(column).clone()]);
            let text = session.scalar(&sql, &of).map_err(|fault| format!("{sql} is refused: {}", fault.message))?;
            while !regexes.is_empty() {
                // The first question of each rule; what it asks further is for the next round.
                let mut later = Vec::new();
                regexes.dedup_by(|next, first| {
                    let again = next.1 == first.1;
                    if again {
                        later.push(next.clone());
                    }
                    again
                });
                let (patterns, numbers): (Vec<_>, Vec<_>) = regexes.into_iter().unzip();
                let built = RegexSetBuilder::new(patterns).size_limit(MAX_REGEXES).build();
                let set = built.map_err(|_| format!("the regexes for {sql} are too large together"))?;
                texts.push(Texts {
                    column,
                    text: text.clone(),
                    regexes: set,
                    others: without(&numbers),
                    rules: numbers,
                });
                regexes = later;
            }
        }
        let [by_network, by_asn, by_country] = self.asking.map(|asking| without(&asking));
        let addresses = self.addresses.map(|(column, networks)| {
            let mut sets = Sets::new(by_network);
            Addresses { column, ranges: by_address(networks, &mut sets), sets }
        });
        Ok(Matchers {
            evaluated: self.evaluated,
            texts,
            addresses,
            asns: self.asns.map(|(column, asked)| Origins::new(column, asked, by_asn)),
            countries: self.countries.map(|(column, asked)| Origins::new(column, asked, by_country)),
            conditions: self.conditions,
        })
    }
}

impl<T: Eq + std::hash::Hash> Origins<T> {
    fn new(column: usize, asked: Vec<(T, usize)>, others: Rules) -> Self {
        let mut rules: HashMap<T, Rules> = HashMap::new();
        for (origin, rule) in asked {
            rules.entry(origin).or_insert_with(|| others.clone()).insert(rule);
        }
        let mut sets = Sets::new(others);
        Self { column, of: rules.into_iter().map(|(origin, rules)| (origin, sets.number(rules))).collect(), sets }
    }
}

/// The thresholds made ready, over a column `weight`.
pub(super) struct Thresholds {
    /// Its schema.
    pub schema: SchemaRef,
    /// The condition of each that can be evaluated, and what follows.
    pub conditions: Vec<(Scalar, &'static str)>,
}

impl Thresholds {
    /// The name of the column with the sum of weights.
    pub const WEIGHT: &'static str = "weight";

    /// Makes thresholds ready, and says which cannot be evaluated.
    pub fn new(thresholds: &[Threshold], session: &Session) -> (Self, Unknown) {
        let field = arrow::datatypes::Field::new(Self::WEIGHT, arrow::datatypes::DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![field]));
        let (mut conditions, mut unknown) = (Vec::new(), Unknown::new());
        for (number, threshold) in thresholds.iter().enumerate() {
            let lowered = condition(&threshold.expression, Scope::Weight(Self::WEIGHT));
            let compiled = lowered.and_then(|condition| compiled(&condition.sql, &schema, session));
            match compiled {
                Ok(scalar) => conditions.push((scalar, threshold.action.name())),
                Err(why) => unknown.push((number, why)),
            }
        }
        (Self { schema, conditions }, unknown)
    }
}

fn truth(condition: Condition, schema: &Schema, session: &Session) -> Result<Computed, String> {
    let columns: Vec<usize> = condition.columns.into_iter().collect();
    let fields: Vec<_> = columns.iter().map(|at| schema.field(*at).clone()).collect();
    Ok(Computed { scalar: compiled(&condition.sql, &Schema::new(fields), session)?, columns })
}

/// A condition as DataFusion compiles it. It refuses none that it is known to be given; if it does, that is said.
fn compiled(sql: &str, schema: &Schema, session: &Session) -> Result<Scalar, String> {
    session
        .scalar(sql, schema)
        .and_then(Scalar::truth)
        .map_err(|fault| format!("its SQL is refused: {}", fault.message))
}
