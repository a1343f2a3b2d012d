//! `status`: asks the web service of a running pipeline how it is.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use engine::text::{age, cell, line};
use serde_json::Value;

use crate::summary::number;
use crate::{Exit, ReportFormat, complain, print, print_json};

/// The most characters of a value.
const MOST: usize = 2000;

/// How long the service may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn status(url: &str, format: ReportFormat) -> Exit {
    let answer = ask(url, "GET /status", None).and_then(|(code, body)| match code {
        200 => serde_json::from_str::<Value>(&body)
            .map_err(|error| format!("the answer of {url} is not understood: {error}")),
        code => Err(format!("{url} answers {code}")),
    });
    match (answer, format) {
        (Err(message), _) => {
            complain(&message);
            Exit::Failed
        }
        (Ok(status), ReportFormat::Json) => print_json(&format!("{status:#}\n")),
        (Ok(status), ReportFormat::Text) => print(&text(&status)),
    }
}

/// Asks the web service at `url`, such as `GET /status`, or with a JSON document to `POST`. Status code and body of the
/// answer.
///
/// # Errors
/// If there is no answer.
pub fn ask(url: &str, request: &str, document: Option<&str>) -> Result<(u16, String), String> {
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let fault = |error: std::io::Error| {
        format!("{address} does not answer: {error}; only a pipeline with a section `serve` does, at its `listen`")
    };
    let mut addresses = address.to_socket_addrs().map_err(fault)?;
    let found = addresses.next().ok_or_else(|| format!("{address} is no address and port"))?;
    let attempt = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&found, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{request} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n")?;
        if let Some(document) = document {
            write!(stream, "Content-Type: application/json\r\nContent-Length: {}\r\n", document.len())?;
        }
        write!(stream, "\r\n{}", document.unwrap_or_default())?;
        let mut answer = String::new();
        stream.take(16 << 20).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = attempt().map_err(fault)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address} does not speak HTTP"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or_else(|| format!("{address} does not speak HTTP"))?, body.to_owned()))
}

fn text(status: &Value) -> String {
    let word = |value: &Value| cell(value.as_str().unwrap_or("?"), MOST).into_owned();
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
        let first = cell(message.lines().next().unwrap_or_default(), MOST);
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
        for reference in node["references"].as_array().into_iter().flatten() {
            let of_age = age(Duration::from_secs(reference["age_seconds"].as_u64().unwrap_or(0)));
            out.push_str(&format!("  {}: {of_age} old\n", word(&reference["file"])));
        }
        for (part, trouble) in node["troubles"].as_object().into_iter().flatten() {
            out.push_str(&format!("  {}: {}\n", line(part), word(trouble)));
        }
    }
    out
}
