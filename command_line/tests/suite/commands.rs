//! The command line as a process: streams, exit codes, signals.
//!
//! The process is this test binary again: [`child`] runs the command line that it finds in the environment.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use command_line::{RunState, WebContext, WebService, command};

use crate::{kinds, shows};

/// Holds the command line of a child, one word a line.
const LINE: &str = "ENGINE_SUITE_COMMAND";

#[test]
fn child() {
    let Some(line) = std::env::var_os(LINE) else { return };
    let words = line.into_string().expect("UTF-8").lines().map(OsString::from).collect::<Vec<_>>();
    std::process::exit(command(words, &kinds::registry(), web, Vec::new()) as i32);
}

/// A web service that only holds the address.
struct Listener(std::net::TcpListener);

fn web(context: WebContext) -> io::Result<Box<dyn WebService>> {
    Ok(Box::new(Listener(std::net::TcpListener::bind(context.listen)?)))
}

impl WebService for Listener {
    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }
    fn set_state(&self, _: RunState) {}
}

pub(crate) fn process(words: &[&str]) -> Command {
    let mut process = Command::new(std::env::current_exe().expect("this binary"));
    process.args(["--exact", "commands::child", "--nocapture"]).env(LINE, format!("ja4-engine\n{}", words.join("\n")));
    process.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

/// Runs a command to its end: exit code, stdout, stderr.
pub(crate) fn run(words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = process(words).output().expect("starts");
    (status.code().expect("exits"), text(stdout), text(stderr))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// A pipeline in a directory of its own.
fn file(body: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("p.yaml");
    std::fs::write(&path, format!("name: t\nnodes:\n{body}")).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    (dir, path)
}

const GOOD: &str = "  - { id: a, kind: test.numbers, rows: 3 }\n  - { id: s, kind: test.collect, from: a, into: x }\n";
const LIVE: &str =
    "  - { id: a, kind: test.numbers, rows: 3, live: true }\n  - { id: s, kind: test.collect, from: a, into: x }\n";
const SERVE: &str = "serve: { listen: 127.0.0.1:0, tables: { numbers: a } }\n";

#[test]
fn a_run_ends_with_a_summary() {
    let (_dir, good) = file(GOOD);
    let (code, _, shown) = run(&["run", &good, "--workers", "2"]);
    assert_eq!(code, 0, "{shown}");
    shows(&shown, &["a     test.numbers        0         3     0", "collected 3", "3 rows from sources in"]);
    let (code, _, shown) = run(&["run", &good, "--quiet"]);
    assert_eq!((code, shown.as_str()), (0, ""));
    let (code, _, shown) = run(&["run", &good, "--log-format", "json"]);
    assert_eq!(code, 0, "{shown}");
    shows(&shown, &["\"node\":\"a\"", "\"rows_out\":3"]);
}

#[test]
fn failures_have_exit_codes_and_no_escapes() {
    let (_dir, breaks) = file(&GOOD.replace("rows: 3", "rows: 3, breaks_at: 1"));
    let (code, _, shown) = run(&["run", &breaks]);
    assert_eq!(code, 1);
    shows(&shown, &["ja4-engine: a: the numbers \\u{1b}[31mran out"]);
    let (_dir, rights) = file(&GOOD.replace("rows: 3", "rows: 3, breaks: for_want_of_rights"));
    assert_eq!(run(&["run", &rights]).0, 4);
    let (_dir, panics) = file(&GOOD.replace("into: x", "into: x, panics_at: 1"));
    let (code, _, shown) = run(&["run", &panics]);
    assert_eq!(code, 1);
    shows(&shown, &["ja4-engine: defect: panicked at", "panicked: cannot stand 1"]);
}

#[test]
fn refused_pipelines_and_command_lines_exit_with_2() {
    let (_dir, bad) = file(&GOOD.replace("test.numbers", "test.number"));
    let (code, _, shown) = run(&["run", &bad]);
    assert_eq!(code, 2);
    shows(&shown, &["p.yaml:3:20", "did you mean `test.numbers`?"]);
    let (_dir, good) = file(GOOD);
    let (code, _, shown) = run(&["run", &good, "--serve"]);
    assert_eq!(code, 2);
    shows(&shown, &["has no section `serve`"]);
    assert_eq!(run(&["run", &good, "--workers", "0"]).0, 2);
    assert_eq!(run(&["run", "nowhere.yaml"]).0, 2);
    assert_eq!(run(&["rn"]).0, 2);
    assert_eq!(run(&["--version"]).0, 0);
}

#[test]
fn validate_says_what_is_ok_and_what_is_not() {
    let (_good, good) = file(&format!("{GOOD}{SERVE}"));
    let (_bad, bad) = file(&GOOD.replace("from: a", "from: b"));
    let (code, out, shown) = run(&["validate", &good, &bad]);
    assert_eq!(code, 2);
    shows(&out, &[&format!("{good}: ok (2 nodes, 1 table)"), &format!("{bad}: 1 fault"), "not checked:"]);
    shows(&shown, &["no node has the id `b`"]);
    assert_eq!(run(&["validate", &good]).0, 0);
}

#[test]
fn graph_list_and_schema_go_to_stdout() {
    let (_dir, good) = file(GOOD);
    shows(&run(&["graph", &good, "--format", "dot"]).1, &["digraph \"t\" {"]);
    shows(&run(&["graph", &good]).1, &["flowchart LR"]);
    shows(&run(&["list"]).1, &["test.both     The rows of two inputs.", "in: left, right; out: out"]);
    shows(&run(&["list", "test.numbers"]).1, &["lateness (text; default 1s)\n    Watermark behind"]);
    let (code, _, shown) = run(&["list", "test.number"]);
    assert_eq!(code, 2);
    shows(&shown, &["did you mean `test.numbers`?"]);
    shows(&run(&["list", "--format", "json"]).1, &["\"kind\": \"test.keep\""]);
    shows(&run(&["schema"]).1, &["https://json-schema.org/draft/2020-12/schema"]);
}

#[test]
fn an_address_in_use_exits_with_3() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = held.local_addr().expect("bound").to_string();
    let (_dir, good) = file(&format!("{GOOD}{SERVE}"));
    let (code, _, shown) = run(&["run", &good, "--listen", &address]);
    assert_eq!(code, 3);
    shows(&shown, &[&format!("the address {address} is in use")]);
}

/// Starts a command and waits for a line on stderr; returns the rest of stderr too.
fn until(words: &[&str], part: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = process(words).spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("UTF-8") > 0, "stderr ended before `{part}`");
    }
    (child, stderr)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().expect("sh");
    assert!(sent.success());
}

#[test]
fn a_signal_ends_a_live_run_with_its_summary() {
    let (_dir, live) = file(&format!("{LIVE}{SERVE}"));
    for name in ["INT", "TERM"] {
        let (mut child, mut stderr) = until(&["run", &live], "serving on http://127.0.0.1:");
        signal(&child, name);
        let mut rest = String::new();
        io::Read::read_to_string(&mut stderr, &mut rest).expect("UTF-8");
        assert_eq!(child.wait().expect("ends").code(), Some(0), "{rest}");
        shows(&rest, &["stopping", "3 rows from sources"]);
    }
}

#[test]
fn with_serve_a_finished_run_stays_until_a_signal() {
    let (_dir, good) = file(&format!("{GOOD}{SERVE}"));
    let (mut child, _stderr) =
        until(&["run", &good, "--serve"], "all sources have ended; serving on http://127.0.0.1:");
    assert_eq!(child.try_wait().expect("asked"), None);
    signal(&child, "INT");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_stuck_run_at_once() {
    let (_dir, stuck) = file(&format!("{}{SERVE}", LIVE.replace("live: true", "live: true, deaf: true")));
    let (mut child, mut stderr) = until(&["run", &stuck], "serving on");
    signal(&child, "INT");
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("UTF-8") > 0, "stderr ended");
    }
    signal(&child, "INT");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}
