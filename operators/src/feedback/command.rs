//! `ja4-engine feedback`: says to a running pipeline what it has found rightly or wrongly, or shows what was said.

use clap::{Args, FromArgMatches, ValueEnum};
use command_line::{Exit, Extra, ask, complain, print};
use engine::text::cell;
use serde_json::{Map, Value};

use crate::source::feedback::{INTAKE, Label};

/// Tell a running pipeline that a client is or is not a bot, or list what is in effect
///
/// It reaches verdicts within two ticks, and is kept: also when the engine is killed right behind the answer.
#[derive(Debug, Args)]
struct Options {
    /// Address of the client
    #[arg(value_name = "IP")]
    src_ip: Option<String>,
    /// Only on this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only with this fingerprint
    #[arg(long)]
    ja4: Option<String>,
    /// What it is; without this, what is in effect is listed
    #[arg(long, value_enum)]
    label: Option<Said>,
    /// Why
    #[arg(long, value_name = "TEXT", requires = "label")]
    note: Option<String>,
    /// Who says it [default: the user]
    #[arg(long, value_name = "NAME", requires = "label")]
    who: Option<String>,
    /// Address of the pipeline's web service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// What can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Said {
    /// No bot, whatever was found
    FalsePositive,
    /// A bot
    TruePositive,
    /// What was said of exactly these before is taken back
    Undo,
}

impl Said {
    fn name(self) -> &'static str {
        match self {
            Self::FalsePositive => Label::FalsePositive.name(),
            Self::TruePositive => Label::TruePositive.name(),
            Self::Undo => "undo",
        }
    }
}

/// The command, for [`command_line::main`].
pub fn command() -> Extra {
    let command = clap::Command::new("feedback");
    Extra {
        command: Options::augment_args(command),
        run: |matches, _| Options::from_arg_matches(matches).map_or(Exit::Refused, |options| run(&options)),
    }
}

fn run(options: &Options) -> Exit {
    let path = format!("/api/{INTAKE}");
    let about = [("src_ip", &options.src_ip), ("host", &options.host), ("ja4", &options.ja4)];
    let answer = match options.label {
        None => ask(&options.url, &format!("GET {path}"), None),
        Some(said) => {
            let text = |text: &str| Value::String(text.to_owned());
            let mut document: Map<String, Value> =
                about.iter().filter_map(|(name, value)| Some(((*name).to_owned(), text(value.as_deref()?)))).collect();
            document.insert("label".to_owned(), text(said.name()));
            document.insert("who".to_owned(), text(&options.who.clone().unwrap_or_else(user)));
            if let Some(note) = &options.note {
                document.insert("note".to_owned(), text(note));
            }
            ask(&options.url, &format!("POST {path}"), Some(&Value::Object(document).to_string()))
        }
    };
    let answer = answer.and_then(|(code, body)| understood(code, &body));
    match answer {
        Ok(Value::Array(all)) => {
            let wanted = |entry: &&Value| {
                about.iter().all(|(name, value)| value.as_deref().is_none_or(|value| entry[*name] == value))
            };
            print(&all.iter().filter(wanted).map(line).collect::<String>())
        }
        Ok(one) => print(&line(&one)),
        Err(why) => {
            complain(&why);
            Exit::Failed
        }
    }
}

/// The answer, or why there is none.
fn understood(code: u16, body: &str) -> Result<Value, String> {
    let answer: Value = serde_json::from_str(body).map_err(|error| format!("the answer is not understood: {error}"))?;
    let why = answer["error"].as_str().unwrap_or("no reason given");
    match code {
        200 => Ok(answer),
        404 => Err(format!("{why}: it needs a node such as `{{ id: feedback, kind: source.feedback }}`")),
        code => Err(format!("not taken ({code}): {why}")),
    }
}

/// The most characters of a value in a line.
const MOST: usize = 2000;

/// One line for what was said.
fn line(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().map(|text| cell(text, MOST));
    let about = [("", "src_ip"), ("host ", "host"), ("ja4 ", "ja4")];
    let about: Vec<String> = about.iter().filter_map(|(word, name)| Some(format!("{word}{}", text(name)?))).collect();
    let note = text("note").map(|note| format!(": {note}")).unwrap_or_default();
    format!(
        "{} {} by {} at {} until {} (id {}){note}\n",
        about.join(", "),
        text("label").unwrap_or_default(),
        text("who").unwrap_or_default(),
        text("given_at").unwrap_or_default(),
        text("until").unwrap_or_default(),
        text("id").unwrap_or_default(),
    )
}

/// Who runs the command, also behind `sudo`.
fn user() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    let name = names.iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.trim().is_empty()));
    name.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_said_is_one_line_that_a_terminal_does_not_obey() {
        let entry = json!({
            "id": "7", "src_ip": "192.0.2.1", "host": "shop\u{1b}[2J\n", "label": "undo", "who": "ada",
            "given_at": "2026-12-01T10:00:00.000Z", "until": "2027-03-01T10:00:00.000Z", "note": "a bot"
        });
        let expected = "192.0.2.1, host shop\\u{1b}[2J\\n undo by ada at 2026-12-01T10:00:00.000Z until \
                        2027-03-01T10:00:00.000Z (id 7): a bot\n";
        assert_eq!(line(&entry), expected);
    }

    #[test]
    fn a_refusal_says_why() {
        assert_eq!(understood(503, r#"{"error":"full"}"#), Err("not taken (503): full".to_owned()));
        assert!(understood(404, r#"{"error":"nobody"}"#).is_err_and(|why| why.contains("source.feedback")));
        assert!(understood(200, "<html>").is_err_and(|why| why.contains("not understood")));
    }
}
