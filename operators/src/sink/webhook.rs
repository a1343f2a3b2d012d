//! Posts rows as JSON to a URL, such as that of a service that alerts people.
//!
//! No sink runs a command. What is in a row a client has chosen: a command that is given it is one quoting fault away from
//! being the client's own, with the rights of a process that may capture packets. A program that is to act on rows listens
//! for them, as another user.

mod client;
mod request;
mod signature;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use engine::batch::{Edge, EdgeType, Stream};
use engine::contract::{BuildContext, Facts, Inputs, Node, Operator, PlanContext, Port};
use engine::spec::{Bytes, Diagnostic, Located, humantime_duration};

use super::delivery::{self, Settings};
use super::written::{Format, Mode};
use client::{Post, Webhooks};
use request::Address;
use signature::Secret;

/// See [`Operator::SUMMARY`].
pub struct Webhook;

/// What can be set.
///
/// A request is a POST of `{"batch": …, "node": …, "tick": …, "rows": [{…}, …]}`: rows of one tick, in the order of their
/// text. `batch` names what the request holds. It stands in the headers `Idempotency-Key` and `webhook-id` too, and whatever
/// is sent twice, after a fault or a crash, comes with the same name: a receiver that knows the last names has each row
/// once. With `secret`, requests are signed as [Standard Webhooks](https://www.standardwebhooks.com) says:
/// `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`.
///
/// Rows are confirmed by an answer with a status of 2xx. After 408, 429, 5xx, a redirection (which is not followed), no
/// answer or a connection that breaks, the request is sent again, later each time; `Retry-After` in seconds is heeded up to
/// `max_pause`. Meanwhile rows wait in the spool, or the sources wait if there is none. Requests are sent one after the
/// other. After another 4xx the rows go as a file to `<data_dir>/dead_letters/<node>`, beside it the reason; when the dead
/// letters are full, they are held and sent again.
///
/// Counters: `sent_rows`, `retries` (attempts that failed), `dead_letter_rows`, `dropped` (rows that were not sent when a run
/// without a spool ended). Value: `dead_letter_bytes`.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct WebhookOptions {
    /// Where rows are posted to: `https://…`, or `http://…`, which others on the way can read and change. It is never shown
    /// beyond the host, as it often is a secret: best from the environment, "${WEBHOOK_URL}".
    #[schemars(with = "String")]
    url: Located<String>,
    /// Further headers, such as `{ Authorization: "Bearer ${TOKEN}" }`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    headers: Option<Located<BTreeMap<String, String>>>,
    /// The key of the signature, from the environment: "${WEBHOOK_SECRET}". After `whsec_` it is read as base64. Default: none,
    /// and requests are not signed.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    secret: Option<Located<String>>,
    /// The columns to send, in this order. Default: all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    columns: Option<Vec<Located<String>>>,
    /// Which rows of a relation are sent. A stream has only settled rows.
    #[serde(default)]
    mode: Mode,
    /// The most rows of a request. Default: 500.
    #[serde(default = "five_hundred")]
    max_rows: usize,
    /// The most bytes of a request's rows; a larger row is sent alone. Default: 256KiB.
    #[serde(default = "quarter_mib")]
    max_bytes: Bytes,
    /// How long a request may take until it is answered. Default: 10s.
    #[serde(default = "ten_seconds", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    timeout: Duration,
    /// The longest pause before a request that failed is sent again. The first is 100 ms; each is twice the one before.
    /// Default: 1m.
    #[serde(default = "minute", deserialize_with = "humantime_duration::deserialize")]
    #[schemars(with = "String")]
    max_pause: Duration,
    /// The most bytes of dead letters. Default: 256MiB.
    #[serde(default = "quarter_gib")]
    max_dead_letter_bytes: Bytes,
}

fn five_hundred() -> usize {
    500
}
fn quarter_mib() -> Bytes {
    Bytes(256 << 10)
}
fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
fn minute() -> Duration {
    Duration::from_secs(60)
}
fn quarter_gib() -> Bytes {
    Bytes(256 << 20)
}

impl Operator for Webhook {
    type Options = WebhookOptions;
    const KIND: &'static str = "sink.webhook";
    const SUMMARY: &'static str = "Posts rows as JSON to a URL, each until it is taken.";
    const INPUTS: Inputs = Inputs::One;
    const OUTPUTS: &'static [Port] = &[];
    const NEEDS: &'static str = "any columns, or those in `columns`; no Binary";

    fn plan(options: WebhookOptions, context: &mut PlanContext<'_>) -> Option<Box<dyn Node>> {
        let format = Format::plan(options.columns.as_deref(), options.mode, context);
        let address = match Address::parse(&options.url.value) {
            Ok(address) => Some(address),
            Err(fault) => {
                context.error(options.url.span, fault);
                None
            }
        };
        if let Some(open) = address.as_ref().filter(|address| address.is_open()) {
            let message = format!("rows go to {} unencrypted", open.place());
            context.warn(Diagnostic::new(options.url.span, message).help("use https"));
        }
        let headers = match &options.headers {
            None => Some(Vec::new()),
            Some(headers) => request::headers(&headers.value).map_err(|fault| context.error(headers.span, fault)).ok(),
        };
        let secret = match &options.secret {
            None => Some(None),
            Some(secret) => {
                Secret::read(&secret.value).map_err(|fault| context.error(secret.span, fault)).map(Some).ok()
            }
        };
        if [options.max_rows, options.max_bytes.in_memory()].contains(&0) || options.max_dead_letter_bytes == Bytes(0) {
            context.error(context.span, "`max_rows`, `max_bytes` and `max_dead_letter_bytes` must be greater than 0");
            return None;
        }
        if options.timeout.is_zero() || options.max_pause.is_zero() {
            context.error(context.span, "`timeout` and `max_pause` must be greater than 0");
            return None;
        }
        let post = Post {
            node: context.id.to_owned(),
            address: address?,
            headers: headers?,
            secret: secret?,
            timeout: options.timeout,
            dead: context.data_dir().join("dead_letters").join(context.id),
            max_dead: options.max_dead_letter_bytes.0,
        };
        let most = delivery::most(options.max_rows, options.max_bytes.in_memory());
        Some(Box::new(WebhookNode { format: format?, post, most, max_pause: options.max_pause }))
    }
}

struct WebhookNode {
    format: Format,
    post: Post,
    most: delivery::Most,
    max_pause: Duration,
}

impl Node for WebhookNode {
    fn outputs(&self) -> Vec<EdgeType> {
        Vec::new()
    }

    fn facts(&self) -> Facts {
        Facts { records_changes: self.format.is_of_changes(), ..Facts::default() }
    }

    fn build<'s>(&self, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
        let Some(input) = inputs.into_iter().next() else { return Vec::new() };
        let settings = Settings {
            place: self.post.address.place(),
            target: self.post.address.target(),
            most: self.most,
            max_pause: self.max_pause,
        };
        let carrier = || {
            context.metrics.gauge("dead_letter_bytes").store(0, Relaxed);
            Webhooks::new(self.post.clone(), &context.metrics)
        };
        vec![delivery::build(context, input.stream, &self.format, settings, carrier)]
    }
}
