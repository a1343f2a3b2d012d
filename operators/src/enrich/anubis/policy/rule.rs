//! A rule or a threshold of a policy.

use std::net::IpAddr;

use engine::contract::ExprFault;
use engine::spec::{Diagnostic, Located, Span, Tree, Value};
use ipnet::{IpNet, Ipv4Net};

use super::imports::Reader;
use super::{Action, Rule, Threshold};
use crate::enrich::anubis::cel::{self, Expr};
use crate::enrich::anubis::go_regex;
use crate::enrich::anubis::lower::canonical;

const ACTIONS: [&str; 5] = ["ALLOW", "DENY", "CHALLENGE", "WEIGH", "DEBUG_BENCHMARK"];
/// Keys of a rule that are read, or that say what a challenge is like.
const KEYS: [&str; 11] = [
    "name",
    "action",
    "user_agent_regex",
    "path_regex",
    "headers_regex",
    "remote_addresses",
    "asns",
    "geoip",
    "expression",
    "weight",
    "challenge",
];
/// Keys of a rule whose addresses Anubis asks a server for.
const FETCHED: [&str; 2] = ["remote_addresses_url", "dynamic_remote_addresses"];
/// What a rule of kind WEIGH adds that does not say how much.
const DEFAULT_WEIGHT: i32 = 5;

/// The rule that an item is. `None` if it is none; why not is reported.
pub(super) fn read(item: &Tree, category: String, reader: &mut Reader<'_, '_>) -> Option<Rule> {
    let mut fields = Fields::of(item, reader)?;
    let name = fields.name();
    let (user_agent, path) = (fields.regex("user_agent_regex"), fields.regex("path_regex"));
    if let (Some(_), Some(at)) = (&user_agent, fields.get("path_regex")) {
        fields.reader.error(at.span, "a rule has `user_agent_regex` or `path_regex`, not both");
    }
    let rule = Rule {
        action: fields.action()?,
        category,
        user_agent,
        path,
        headers: fields.headers(),
        addresses: fields.addresses(),
        asns: fields.list("asns", "match").map(|items| fields.asns(items)),
        countries: fields.list("geoip", "countries").map(|items| fields.countries(items)),
        expression: fields.expression(),
        unknown: fields.unknown(&KEYS),
        name: name?,
    };
    let matchers =
        ["user_agent_regex", "path_regex", "headers_regex", "remote_addresses", "asns", "geoip", "expression"];
    if !matchers.iter().any(|key| fields.asks(key)) && rule.unknown.is_none() {
        fields.reader.report(
            Diagnostic::new(rule.name.span, "the rule asks for nothing")
                .help(format!("one of {}", matchers.join(", "))),
        );
    }
    Some(rule)
}

/// The threshold that an item is. `None` if it is none; why not is reported.
pub(super) fn threshold(item: &Tree, reader: &mut Reader<'_, '_>) -> Option<Threshold> {
    let mut fields = Fields::of(item, reader)?;
    let (name, expression) = (fields.name(), fields.expression());
    let action = fields.action()?;
    if let Action::Weigh(_) = action {
        fields.reader.error(item.span, "a threshold cannot weigh");
    }
    if expression.is_none() && fields.get("expression").is_none() {
        fields.reader.error(item.span, "a threshold needs an `expression`");
    }
    if let Some(unknown) = fields.unknown(&["name", "expression", "action", "challenge"]) {
        fields.reader.error(item.span, unknown);
    }
    Some(Threshold { name: name?, action, expression: expression? })
}

/// The entries of an item, and where faults go.
struct Fields<'t, 'r, 'a, 'b> {
    entries: &'t [(Located<String>, Tree)],
    span: Span,
    reader: &'r mut Reader<'a, 'b>,
}

impl<'t, 'r, 'a, 'b> Fields<'t, 'r, 'a, 'b> {
    fn of(item: &'t Tree, reader: &'r mut Reader<'a, 'b>) -> Option<Self> {
        let Some(entries) = item.entries() else {
            reader.error(item.span, format!("expected a mapping, found {}", item.kind()));
            return None;
        };
        Some(Self { entries, span: item.span, reader })
    }

    /// The value of a key; as in Go what is null is not there.
    fn get(&self, key: &str) -> Option<&'t Tree> {
        let found = self.entries.iter().find(|(name, _)| name.value == key);
        found.map(|(_, value)| value).filter(|value| value.value != Value::Null)
    }

    /// Whether a key has something that is not empty.
    fn asks(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| match &value.value {
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            _ => true,
        })
    }

    fn text(&mut self, key: &str) -> Option<Located<String>> {
        let value = self.get(key)?;
        let text = value.text();
        if text.is_none() {
            self.reader.error(value.span, format!("`{key}` is text, not {}", value.kind()));
        }
        text
    }

    fn name(&mut self) -> Option<Located<String>> {
        let name = self.text("name").filter(|name| !name.value.is_empty());
        if name.is_none() {
            self.reader.error(self.span, "a name is missing");
        }
        name
    }

    fn action(&mut self) -> Option<Action> {
        let Some(action) = self.text("action") else {
            self.reader.error(self.span, "an `action` is missing");
            return None;
        };
        Some(match action.value.as_str() {
            "ALLOW" => Action::Allow,
            "DENY" => Action::Deny,
            "CHALLENGE" => Action::Challenge,
            "DEBUG_BENCHMARK" => Action::Benchmark,
            "WEIGH" => Action::Weigh(self.weight()?),
            other => {
                let fault = Diagnostic::new(action.span, format!("unknown action `{other}`"));
                self.reader.report(fault.nearest(other, ACTIONS));
                return None;
            }
        })
    }

    fn weight(&mut self) -> Option<i32> {
        let Some(weight) = self.get("weight") else { return Some(DEFAULT_WEIGHT) };
        let Some(adjust) = weight.get("adjust") else {
            if weight.entries().is_some() {
                return Some(0);
            }
            self.reader.error(weight.span, "`weight` is a mapping with `adjust`");
            return None;
        };
        let number = adjust.text().and_then(|text| text.value.parse().ok());
        if number.is_none() {
            self.reader.error(adjust.span, "`adjust` is a whole number of 32 bits");
        }
        number
    }

    fn regex(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        self.translated(&text)
    }

    /// A regex of Go as one of the crate `regex`.
    fn translated(&mut self, text: &Located<String>) -> Option<String> {
        if text.value.ends_with('\n') {
            let fault = Diagnostic::new(text.span, "the regex ends with a new line, which Anubis refuses");
            self.reader.report(fault.help("write `>-` for `>`, or `|-` for `|`"));
            return None;
        }
        match go_regex::translate(text.value.trim()) {
            Ok(regex) => Some(regex),
            Err(why) => {
                self.reader.error(text.span, why);
                None
            }
        }
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        let Some(value) = self.get("headers_regex") else { return Vec::new() };
        let Some(entries) = value.entries() else {
            self.reader.error(value.span, "`headers_regex` is a mapping of headers to regexes");
            return Vec::new();
        };
        let mut headers = Vec::with_capacity(entries.len());
        for (name, regex) in entries {
            let Some(text) = regex.text() else {
                self.reader.error(regex.span, format!("a regex is text, not {}", regex.kind()));
                continue;
            };
            // This very regex asks in Anubis whether there is anything.
            let regex = if text.value == ".*" { Some("(?s).".to_owned()) } else { self.translated(&text) };
            headers.extend(regex.map(|regex| (canonical(name.value.trim()), regex)));
        }
        headers
    }

    /// The items of a list; `None` if it is none.
    fn items(&mut self, value: &'t Tree, what: &str) -> Option<&'t [Tree]> {
        match &value.value {
            Value::List(items) => Some(items),
            _ => {
                self.reader.error(value.span, format!("{what} is a list, not {}", value.kind()));
                None
            }
        }
    }

    fn addresses(&mut self) -> Vec<IpNet> {
        let Some(value) = self.get("remote_addresses") else { return Vec::new() };
        let Some(items) = self.items(value, "`remote_addresses`") else { return Vec::new() };
        let mut networks = Vec::with_capacity(items.len());
        for item in items {
            match item.text().and_then(|text| network(text.value.trim())) {
                Some(network) => networks.push(network),
                None => {
                    let fault = Diagnostic::new(item.span, "a network is an address and a number of bits");
                    self.reader.report(fault.help("such as 192.0.2.0/24; of a single address 192.0.2.1/32"));
                }
            }
        }
        networks
    }

    /// The list beneath a key of a mapping.
    fn list(&mut self, key: &str, inner: &str) -> Option<&'t [Tree]> {
        let value = self.get(key)?;
        match value.get(inner) {
            Some(list) => self.items(list, &format!("`{inner}`")),
            None => {
                self.reader.error(value.span, format!("`{key}` is a mapping with `{inner}`"));
                None
            }
        }
    }

    fn asns(&mut self, items: &[Tree]) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(items.len());
        for item in items {
            match item.text().and_then(|text| text.value.parse().ok()) {
                Some(number) => numbers.push(number),
                None => self.reader.error(item.span, "an autonomous system is a number"),
            }
        }
        numbers
    }

    fn countries(&mut self, items: &[Tree]) -> Vec<String> {
        let mut countries = Vec::with_capacity(items.len());
        for item in items {
            let code = item.text().map(|text| text.value.to_ascii_lowercase());
            match code.filter(|code| code.len() == 2 && code.bytes().all(|b| b.is_ascii_lowercase())) {
                Some(code) => countries.push(code),
                None => self.reader.error(item.span, "a country is two letters"),
            }
        }
        countries
    }

    /// A text, or a list of which `all` or `any` must hold.
    fn expression(&mut self) -> Option<Expr> {
        let value = self.get("expression")?;
        let Some(entries) = value.entries() else {
            let text = self.text("expression")?;
            return self.parsed(&text);
        };
        let [(key, list)] = entries else {
            self.reader.error(value.span, "an expression is text, or a mapping with one of `all` and `any`");
            return None;
        };
        let joined: fn(Vec<Expr>) -> Expr = match key.value.as_str() {
            "all" => Expr::All,
            "any" => Expr::Any,
            other => {
                let fault = Diagnostic::new(key.span, format!("unknown key `{other}`"));
                self.reader.report(fault.nearest(other, ["all", "any"]));
                return None;
            }
        };
        let items = self.items(list, &format!("`{}`", key.value))?;
        if items.is_empty() {
            self.reader.error(list.span, "the expression is empty");
            return None;
        }
        let mut parts = Vec::with_capacity(items.len());
        for item in items {
            match item.text() {
                Some(text) => parts.push(self.parsed(&text)?),
                None => {
                    self.reader.error(item.span, format!("an expression is text, not {}", item.kind()));
                    return None;
                }
            }
        }
        if parts.len() == 1 { parts.pop() } else { Some(joined(parts)) }
    }

    fn parsed(&mut self, text: &Located<String>) -> Option<Expr> {
        match cel::parse(&text.value) {
            Ok(expr) => Some(expr),
            Err(fault) => {
                let part = Some(fault.part).filter(|part| !part.is_empty());
                let fault = ExprFault { part, ..ExprFault::new(format!("not an expression: {}", fault.message)) };
                self.reader.expression(text, &fault);
                None
            }
        }
    }

    /// Why an item cannot be evaluated that says more than is known.
    fn unknown(&self, known: &[&str]) -> Option<String> {
        let (key, _) = self.entries.iter().find(|(key, _)| !known.contains(&key.value.as_str()))?;
        Some(match FETCHED.contains(&key.value.as_str()) {
            true => format!("`{}` asks a server for its addresses", key.value),
            false => format!("the key `{}` is not known here", key.value),
        })
    }
}

/// A network; one of IPv4 within IPv6 is of IPv4. Bits behind its prefix do not count, as in Anubis.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok()?.trunc();
    match (network.addr().to_canonical(), network) {
        (IpAddr::V4(address), IpNet::V6(six)) if six.prefix_len() >= 96 => {
            Some(IpNet::V4(Ipv4Net::new(address, six.prefix_len() - 96).ok()?))
        }
        _ => Some(network),
    }
}
