//! `aws_alb`: the access log of AWS Application Load Balancers.
//!
//! Source: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html>. New fields come
//! at the end of a line; they are passed over.

use std::sync::Arc;

use super::apache::request_line;
use super::options::BuiltIn;
use super::schema::Format;
use super::text::transform;
use super::text::{Escape, Item, Known, Moment, Part, Shape, Want, Wants, Wrong, Zone, header, of};
use super::time::Unit;

pub(super) const FORMAT: BuiltIn = BuiltIn {
    name: "aws_alb",
    summary: "the access log of AWS Application Load Balancers",
    unit: Unit::S,
    format: |_| Format::aws_alb().unwrap_or_else(|_| Format::reqin_log(Unit::Ns)),
};

/// The fields from `client:port` on, with what stands behind each. Those before, and some others, are written out below.
const FIELDS: [(Known, &str); 17] = [
    (of("client", "src_ip", 1, Shape::Address), ":"),
    (of("client:port", "src_port", 1, Shape::Number), " "),
    (of("target:port", "target", 1, Shape::Word), " "),
    (of("request_processing_time", "request_processing_time", 1, Shape::Number).with(transform::not_negative), " "),
    (of("target_processing_time", "target_processing_time", 1, Shape::Number).with(transform::not_negative), " "),
    (of("response_processing_time", "response_processing_time", 1, Shape::Number).with(transform::not_negative), " "),
    (of("elb_status_code", "status_code", 1, Shape::Number), " "),
    (of("target_status_code", "target_status_code", 1, Shape::Number), " "),
    (of("received_bytes", "request_size", 1, Shape::Number), " "),
    (of("sent_bytes", "response_size", 1, Shape::Number), " \""),
    (of("ssl_cipher", "server_tls_cipher", 1, Shape::Word), " "),
    (of("ssl_protocol", "server_tls_version", 1, Shape::Word), " "),
    (of("target_group_arn", "", 1, Shape::Word), " \""),
    (of("trace_id", "trace_id", 1, Shape::Text), "\" \""),
    (of("domain_name", "server_tls_sni", 1, Shape::Text), "\" \""),
    (of("chosen_cert_arn", "", 1, Shape::Text), "\" "),
    (of("matched_rule_priority", "", 1, Shape::Number), " "),
];

impl Format {
    /// Requests as AWS Application Load Balancers log them.
    ///
    /// # Errors
    /// Never: what it is made of is complete.
    pub fn aws_alb() -> Result<Arc<Self>, Wrong> {
        let literal = |text: &str| Item::Literal(text.as_bytes().to_vec());
        let time = |name, moment| {
            let wants = vec![Want::Moment(moment, Part::Whole(Unit::S))];
            Item::value(name, 0, Shape::Word, Escape::None, wants)
        };
        let mut items = vec![
            of("type", "type", 1, Shape::Word).item(0, Escape::None),
            literal(" "),
            time("time", Moment::End),
            literal(" "),
            of("elb", "load_balancer", 1, Shape::Word).item(0, Escape::None),
            literal(" "),
        ];
        for (known, behind) in FIELDS {
            if known.name == "ssl_cipher" {
                let mut wants = request_line();
                let want = |name: &'static str, with| Want::Column { name: name.into(), rank: 1, with };
                wants.extend([want("host", transform::origin_host), want("scheme", transform::origin_scheme)]);
                items.push(Item::value("request", 0, Shape::Text, Escape::Backslash, wants));
                items.push(literal("\" \""));
                items.push(Item::value("user_agent", 0, Shape::Text, Escape::Backslash, header("User-Agent")));
                items.push(literal("\" "));
            }
            items.push(known.item(0, Escape::Backslash));
            items.push(literal(behind));
        }
        items.push(time("request_creation_time", Moment::Begin));
        items.push(literal(" "));
        let expected = "a line of an Application Load Balancer";
        Wants { expected, items, is_open: true, zone: Zone::default() }.format()
    }
}

#[cfg(test)]
#[path = "aws_alb_tests.rs"]
mod tests;
