//! Dead letters: rows that the server refuses, as files with the reason and a command that sends them again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use engine::files;
use engine::text::line;
use migrations::server::Address;
use parking_lot::Mutex;

/// Folders beneath `data_dir` that one of dead letters is in, with its own.
const LEVELS: usize = 3;

/// The folder of one table's dead letters. It holds so many bytes at most: rows beyond it are not put away.
#[derive(Debug)]
pub(in crate::sink) struct DeadLetters {
    dir: PathBuf,
    /// Of the files with rows.
    extension: &'static str,
    most: u64,
    /// Bytes in the folder; `None` until they are counted.
    used: Mutex<Option<u64>>,
    /// Bytes in the folder as they were said last.
    said: AtomicI64,
}

impl DeadLetters {
    /// Of Arrow streams. The folder need not exist.
    pub fn new(dir: PathBuf, most: u64) -> Self {
        Self::with_extension(dir, "arrows", most)
    }

    /// Of files with this extension.
    pub fn with_extension(dir: PathBuf, extension: &'static str, most: u64) -> Self {
        Self { dir, extension, most, used: Mutex::default(), said: AtomicI64::new(0) }
    }

    /// Where the letter of that name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{}", self.extension))
    }

    /// Puts rows away, durably, with the reason and how to send them again beside them. There is never one without the
    /// other: the reason is durable before the rows have their name. By how many bytes the folder has grown since the last time,
    /// or since nothing was known of it.
    ///
    /// # Errors
    /// If the folder is full, or cannot be written.
    pub fn put(&self, name: &str, body: &[u8], reason: &str) -> Result<i64, String> {
        let path = self.path(name);
        let mut used = self.used.lock();
        let fault = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
        // One that is put away again, after a crash, takes the place of itself.
        let more = if path.exists() { 0 } else { (body.len() + reason.len()) as u64 };
        let fits = |used: &Option<u64>| used.is_some_and(|used| used.saturating_add(more) <= self.most);
        if !fits(&used) {
            // Somebody may have sent some again and removed them.
            *used = Some(size(&self.dir).map_err(fault)?);
        }
        if !fits(&used) {
            return Err(format!(
                "{} is full: {} bytes, and {more} more would be above max_dead_letter_bytes = {}: send its files again, \
                 remove them, or raise the bound",
                self.dir.display(),
                used.unwrap_or_default(),
                self.most
            ));
        }
        let write = || {
            files::make_dirs_within(&self.dir, LEVELS)?;
            sync_folders(&self.dir, 4)?;
            replace(&path.with_extension("reason"), reason.as_bytes())?;
            replace(&path, body)
        };
        let written = write();
        *used = written.is_ok().then(|| used.unwrap_or_default() + more);
        written.map_err(fault)?;
        let now = i64::try_from(used.unwrap_or_default()).unwrap_or(i64::MAX);
        Ok(now - self.said.swap(now, Relaxed))
    }
}

/// Bytes of the files in a folder; 0 if there is none.
fn size(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                match entry?.metadata() {
                    Ok(data) => bytes += data.len(),
                    // Removed since it was listed.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

/// Makes a file of that content: durable, old or new, never a part.
pub(super) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = files::create(Path::new(&temporary))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a folder durable with those above it that may be new as well, `levels` in all: up to the data directory, as what
/// is above that need not be readable.
pub(super) fn sync_folders(dir: &Path, levels: usize) -> std::io::Result<()> {
    for folder in dir.ancestors().take(levels).filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The text beside a letter: why, and a command for bash. A password is not written: the command takes it from the
/// environment.
pub(super) fn reason(
    why: &str,
    address: &Address,
    statement: &str,
    settings: &[(&str, String)],
    path: &Path,
) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut command = "curl --silent --show-error --fail".to_owned();
    if let Some(user) = &address.user {
        command += &format!(" --header {}", quoted(&format!("X-ClickHouse-User: {user}")));
    }
    if address.password.is_some() {
        // Not an argument, which others on the machine could see.
        command += " --header @<(printf 'X-ClickHouse-Key: %s\\n' \"${CLICKHOUSE_PASSWORD:?}\")";
    }
    command += &format!(" --data-binary @{}", quoted(&path.display().to_string()));
    let mut url = format!("{}/?query={}", address.url, encoded(statement));
    for (name, value) in settings {
        url += &format!("&{name}={}", encoded(value));
    }
    command += &format!(" {}", quoted(&url));
    let password = if address.password.is_some() { ", with the password in CLICKHOUSE_PASSWORD" } else { "" };
    format!("{}\n{statement}\n\nTo send it again (bash{password}):\n{command}\n", line(why))
}

/// One word of a shell, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Percent-encoded for a query string (RFC 3986, section 2).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_full_takes_nothing_until_there_is_room_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let letters = DeadLetters::new(dir.path().join("store/t"), 100);
        assert_eq!(letters.put("a", &[0; 50], "because"), Ok(57));
        assert_eq!(letters.put("a", &[0; 50], "because"), Ok(0), "the same one again");
        let error = letters.put("b", &[0; 50], "because").expect_err("full");
        assert!(error.contains("is full: 57 bytes") && error.contains("max_dead_letter_bytes = 100"), "{error}");
        assert!(!letters.path("b").exists() && !letters.path("b").with_extension("reason").exists());
        fs::remove_file(letters.path("a")).expect("removed");
        assert_eq!(letters.put("b", &[0; 50], "because"), Ok(64 - 57));
        let mut files: Vec<_> =
            fs::read_dir(dir.path().join("store/t")).expect("there").flatten().map(|entry| entry.file_name()).collect();
        files.sort();
        assert_eq!(files, ["a.reason", "b.arrows", "b.reason"], "nothing temporary is left");
    }

    #[test]
    fn there_is_no_letter_without_its_reason() {
        let dir = tempfile::tempdir().expect("a folder");
        let letters = DeadLetters::new(dir.path().join("t"), 1000);
        // Something in the way of the reason.
        fs::create_dir_all(letters.path("a").with_extension("reason")).expect("made");
        letters.put("a", b"rows", "because").expect_err("no reason could be written");
        assert!(!letters.path("a").exists());
    }

    #[test]
    fn a_command_has_no_password_and_survives_any_name() {
        let address = Address::parse("http://o'neil:s3cret@db:8123", None, None).expect("valid");
        let settings = [("token", "a b&c".to_owned())];
        let text = reason("no\u{1b}[2J", &address, "INSERT INTO `d`.`t` (`it's`)", &settings, Path::new("/a b/c'd"));
        assert!(!text.contains("s3cret") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains(r"--header 'X-ClickHouse-User: o'\''neil'"), "{text}");
        assert!(text.contains(r"@'/a b/c'\''d' 'http://db:8123/?query=INSERT%20INTO%20%60d%60.%60t%60%20%28%60it%27s%60%29&token=a%20b%26c'"), "{text}");
        let open = Address { user: None, password: None, ..address };
        assert!(!reason("no", &open, "", &[], Path::new("/")).contains("CLICKHOUSE_PASSWORD"));
    }
}
