//! The programs that fetch: npm for its packages, as it is configured here, with its check of the content; curl for URLs. Both
//! know proxies, certificates and redirects. A client of our own would be a second way for all that in a program that runs
//! with rights to capture packets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use engine::text::line;

/// The most bytes that are fetched.
const MOST_BYTES: &str = "1073741824";

/// Whether a text is a URL that curl fetches.
pub(super) fn is_url(text: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Fetches a URL into a folder: the file, whose time is that of the content if the server says so.
///
/// # Errors
/// What curl says, or that there is none.
pub(super) fn curl(url: &str, folder: &Path) -> Result<PathBuf, String> {
    let target = folder.join("download");
    // Who asks for TLS does not get something else by a redirect.
    let redirects = if url.starts_with("https://") { "=https" } else { "=http,https" };
    let mut command = Command::new("curl");
    command.args(["--fail", "--silent", "--show-error", "--location", "--max-redirs", "5", "--remote-time"]);
    command.args(["--proto", "=http,https", "--proto-redir", redirects, "--connect-timeout", "30"]);
    command.args(["--max-time", "900", "--max-filesize", MOST_BYTES]);
    command.args(["--user-agent", concat!("ja4-engine/", env!("CARGO_PKG_VERSION"))]);
    command.arg("--output").arg(&target).arg("--url").arg(url);
    run(command, "curl", "download it by other means and give the file with --from")?;
    Ok(target)
}

/// Downloads a package into a folder: its archive.
///
/// # Errors
/// What npm says, or that there is none.
pub(super) fn npm_pack(package: &str, folder: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new("npm");
    command.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]).arg(folder).arg(package);
    let advice = format!("download the package `{package}` by other means and give its archive (.tgz) with --from");
    run(command, "npm", &advice)?;
    let found = fs::read_dir(folder).map_err(|error| error.to_string())?.flatten().map(|entry| entry.path());
    let mut archives = found.filter(|path| path.extension().is_some_and(|extension| extension == "tgz"));
    archives.next().ok_or_else(|| format!("npm has left no archive of `{package}`"))
}

/// When a package was published last, as its registry says; `None` if that cannot be found out.
pub(super) fn npm_published(package: &str) -> Option<String> {
    let mut command = Command::new("npm");
    command.args(["view", "--silent", package, "time.modified"]);
    run(command, "npm", "").ok()
}

/// Runs a program to its end: its output.
fn run(mut command: Command, name: &str, advice: &str) -> Result<String, String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name} cannot be run: {error}; {advice}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // npm ends with where its log is; what was wrong stands before.
    let said: Vec<&str> = said.lines().filter(|said| !said.trim().is_empty()).take(4).collect();
    let said = if said.is_empty() { format!("it ended with {}", output.status) } else { said.join("; ") };
    Err(format!("{name}: {}", line(said.strip_prefix(&format!("{name}: ")).unwrap_or(&said))))
}
