//! `status`: asks the web service of a running pipeline how it is.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::summary::number;
use super::{Exit, ReportFormat, complain, print};
use crate::text::printable;

/// How long the service may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn status(url: &str, format: ReportFormat) -> Exit {
    let answer = ask(url).and_then(|body| {
        serde_json::from_str::<Value>(&body).map_err(|error| format!("the answer of {url} is not understood: {error}"))
    });
    match (answer, format) {
        (Err(message), _) => {
            complain(&message);
            Exit::Failed
        }
        (Ok(status), ReportFormat::Json) => print(&format!("{status:#}\n")),
        (Ok(status), ReportFormat::Text) => print(&text(&status)),
    }
}

/// The body of `GET /status`.
fn ask(url: &str) -> Result<String, String> {
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let fault = |error: std::io::Error| {
        format!("{address} does not answer: {error}; only a pipeline with a section `serve` does, at its `listen`")
    };
    let mut addresses = address.to_socket_addrs().map_err(fault)?;
    let found = addresses.next().ok_or_else(|| format!("{address} is no address and port"))?;
    let attempt = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&found, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /status HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(16 << 20).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = attempt().map_err(fault)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address} does not speak HTTP"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        code => Err(format!("{address} answers {}", code.unwrap_or("nothing"))),
    }
}

fn text(status: &Value) -> String {
    let word = |value: &Value| printable(value.as_str().unwrap_or("?")).into_owned();
    let count = |value: &Value| number(value.as_u64().unwrap_or(0));
    let mut out = format!(
        "{}: {}, up {} s\n",
        word(&status["pipeline"]),
        word(&status["state"]),
        status["uptime_seconds"].as_f64().unwrap_or(0.0).round()
    );
    let reloads = &status["reloads"];
    out.push_str(&format!(
        "reloads: {} applied, {} refused, {} unchanged\n",
        count(&reloads["applied"]),
        count(&reloads["refused"]),
        count(&reloads["unchanged"])
    ));
    if let Some(last) = reloads["last"].as_object() {
        let message = last["message"].as_str().unwrap_or_default();
        let first = printable(message.lines().next().unwrap_or_default());
        out.push_str(&format!("last: {} {first}\n", word(&last["outcome"])));
    }
    for node in status["nodes"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "{:<20} {:<22} in {:>12} out {:>12} late {:>6} rejected {:>6} evicted {:>6} held {:>9}\n",
            word(&node["id"]),
            word(&node["kind"]),
            count(&node["rows_in"]),
            count(&node["rows_out"]),
            count(&node["late"]),
            count(&node["rejected"]),
            count(&node["evicted"]),
            node["state_rows"].as_i64().unwrap_or(0)
        ));
        for (part, trouble) in node["troubles"].as_object().into_iter().flatten() {
            out.push_str(&format!("  {}: {}\n", printable(part), word(trouble)));
        }
    }
    out
}
