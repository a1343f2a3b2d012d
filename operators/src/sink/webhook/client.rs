//! Posts parcels and judges the answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use engine::contract::{NodeMetrics, printable, wall_clock_ns};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;

use super::request::{Address, body};
use super::signature::Secret;
use crate::sink::clickhouse::dead_letters::DeadLetters;
use crate::sink::delivery::{Carrier, Parcel, Trouble};

/// How much of an answer is read, in bytes.
const ANSWER: usize = 64 << 10;

/// How much of it is shown, in characters.
const SHOWN: usize = 200;

/// What requests have in common.
#[derive(Clone)]
pub(super) struct Post {
    pub node: String,
    pub address: Address,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub secret: Option<Secret>,
    pub timeout: Duration,
    /// The folder of dead letters, and the most bytes there.
    pub dead: PathBuf,
    pub max_dead: u64,
}

/// Posts.
pub(super) struct Webhooks {
    post: Post,
    runtime: Runtime,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    letters: DeadLetters,
    metrics: Arc<NodeMetrics>,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// It will never take this.
    Refused(String),
    Again(Trouble),
}

impl Webhooks {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// If the certificates of this machine cannot be read.
    pub fn new(post: Post, metrics: &Arc<NodeMetrics>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no thread to send from: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(post.timeout));
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("the certificates of this machine cannot be read: {error}"))?;
        let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let letters = DeadLetters::with_extension(post.dead.clone(), "json", post.max_dead);
        Ok(Self { post, runtime, client, letters, metrics: Arc::clone(metrics) })
    }

    fn request(&self, parcel: &Parcel, body: &Bytes) -> Result<Request<Full<Bytes>>, String> {
        let seconds = wall_clock_ns() / 1_000_000_000;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.post.address.uri().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", &parcel.name)
            .header("webhook-id", &parcel.name)
            .header("webhook-timestamp", seconds.to_string());
        if let Some(secret) = &self.post.secret {
            request = request.header("webhook-signature", secret.sign(&parcel.name, seconds, body)?);
        }
        if !self.post.headers.iter().any(|(name, _)| name == USER_AGENT) {
            request = request.header(USER_AGENT, concat!("ja4-engine/", env!("CARGO_PKG_VERSION")));
        }
        for (name, value) in &self.post.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body.clone())).map_err(|error| format!("no request can be made: {error}"))
    }

    async fn attempt(&self, request: Request<Full<Bytes>>) -> Verdict {
        let answered = async {
            match self.client.request(request).await {
                Ok(response) => judge(response).await,
                Err(error) => Verdict::Again(causes(&error).into()),
            }
        };
        match tokio::time::timeout(self.post.timeout, answered).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Again(format!("no answer within {:?}", self.post.timeout).into()),
        }
    }

    /// Puts refused rows away.
    fn bury(&self, parcel: &Parcel, body: &[u8], why: &str) -> Result<(), String> {
        let path = self.letters.path(&parcel.name);
        let reason = format!(
            "{} refused: {}\n\nTo send it again (bash, with the URL in WEBHOOK_URL; without a signature):\n\
             curl --silent --show-error --fail --header 'Content-Type: application/json' \
             --header 'Idempotency-Key: {}' --data-binary @'{}' \"${{WEBHOOK_URL:?}}\"\n",
            self.post.address.place(),
            printable(why),
            parcel.name,
            path.display().to_string().replace('\'', r"'\''"),
        );
        let more = self.letters.put(&parcel.name, body, &reason)?;
        self.metrics.gauge("dead_letter_bytes").fetch_add(more, Relaxed);
        NodeMetrics::add(&self.metrics.counter("dead_letter_rows"), parcel.rows);
        let (node, rows, file) = (&self.post.node, parcel.rows, path.display());
        tracing::error!(node, rows, %file, "refused: {}", printable(why));
        Ok(())
    }
}

impl Carrier for Webhooks {
    fn carry(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        let body = Bytes::from(body(&self.post.node, parcel));
        let request = self.request(parcel, &body)?;
        match self.runtime.block_on(self.attempt(request)) {
            Verdict::Taken => Ok(()),
            Verdict::Again(trouble) => Err(trouble),
            Verdict::Refused(why) => {
                let held = |fault| format!("{fault}; rows that are refused are held: {why}");
                Ok(self.bury(parcel, &body, &why).map_err(held)?)
            }
        }
    }
}

/// Reads the rest of an answer, as far as it matters, and says what it means.
async fn judge(response: Response<Incoming>) -> Verdict {
    let status = response.status();
    let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if status.is_success() {
        // Read to its end, the connection is used again; that fails for a longer answer, which does not matter.
        let _ = Limited::new(response.into_body(), ANSWER).collect().await;
        return Verdict::Taken;
    }
    let text = match Limited::new(response.into_body(), ANSWER).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).chars().take(SHOWN).collect(),
        Err(_) => String::new(),
    };
    let message = format!("status {status} {text}").trim_end().to_owned();
    match status.as_u16() {
        408 | 429 => Verdict::Again(Trouble { message, pause: pause.map(Duration::from_secs) }),
        400..500 => Verdict::Refused(message),
        300..400 => Verdict::Again(format!("{message}: a redirection is not followed").into()),
        _ => Verdict::Again(Trouble { message, pause: pause.map(Duration::from_secs) }),
    }
}

/// An error and what has caused it. None of them repeats the URL.
fn causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    message
}
