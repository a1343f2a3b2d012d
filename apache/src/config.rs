//! The directives: names, defaults, and what is wrong with a value.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How important a message of the module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The server cannot go on.
    Emerg,
    /// Records are lost.
    Error,
    /// Something may be lost.
    Warning,
    /// What happens in normal work.
    Info,
    /// Each loss.
    Debug,
}

const LEVELS: [(&str, Level); 5] = [
    ("EMERG", Level::Emerg),
    ("ERROR", Level::Error),
    ("WARNING", Level::Warning),
    ("INFO", Level::Info),
    ("DEBUG", Level::Debug),
];

/// Headers that are logged unless the configuration names others: those that the engine has a column for, in its spelling.
pub const HEADERS: [&str; 16] = [
    "User-Agent",
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Content-Type",
    "X-Request-Id",
    "X-Trace-Id",
    "X-Forwarded-For",
    "Referer",
    "Sec-CH-UA",
    "Sec-CH-UA-Mobile",
    "Sec-CH-UA-Platform",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
];

/// Headers whose value gives access to something: it is never logged, whatever the configuration says.
const SECRET: [&str; 10] = [
    "Authorization",
    "Cookie",
    "Cookie2",
    "Proxy-Authorization",
    "Set-Cookie",
    "Set-Cookie2",
    "X-Api-Key",
    "X-Auth-Token",
    "X-Csrf-Token",
    "X-Xsrf-Token",
];

/// The longest path of a unix socket, in bytes: `sun_path` without the zero at its end.
const MAX_PATH: usize = 107;
/// The most headers in a list, and the longest name of one.
const MAX_LIST: usize = 100;
const MAX_NAME: usize = 100;

/// A server's or virtual host's directives as they stand in the configuration; `None` where there are none.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    enabled: Option<bool>,
    socket: Option<PathBuf>,
    headers: Option<Vec<String>>,
    max_headers: Option<usize>,
    max_header_value_len: Option<usize>,
    reconnect_interval: Option<Duration>,
    error_report_interval: Option<Duration>,
    level: Option<Level>,
}

/// A directive: name, whether it takes several values, and what it is for.
pub struct Directive {
    /// Its name.
    pub name: &'static CStr,
    /// Whether one line may have several values.
    pub repeats: bool,
    /// For `apache2 -L`.
    pub help: &'static CStr,
}

/// All directives. Each is for a server or a virtual host.
pub const DIRECTIVES: [Directive; 8] = [
    one(c"JsonSockLogEnabled", c"On or Off: whether requests are logged. Default Off"),
    one(c"JsonSockLogSocket", c"the unix datagram socket to which records go; relative to ServerRoot"),
    Directive {
        name: c"JsonSockLogHeaders",
        repeats: true,
        help:
            c"request headers whose values are logged; may be repeated. Default: those that the engine has a column for",
    },
    one(c"JsonSockLogMaxHeaders", c"the most header values in a record. Default 25"),
    one(c"JsonSockLogMaxHeaderValueLen", c"bytes of a header's value, longer ones are cut. Default 256"),
    one(
        c"JsonSockLogReconnectInterval",
        c"seconds from one failed attempt to reach the socket to the next. Default 10",
    ),
    one(c"JsonSockLogErrorReportInterval", c"seconds from one report of lost records to the next. Default 10"),
    one(
        c"JsonSockLogLevel",
        c"DEBUG, INFO, WARNING, ERROR or EMERG: less important messages are left out. Default WARNING",
    ),
];

const fn one(name: &'static CStr, help: &'static CStr) -> Directive {
    Directive { name, repeats: false, help }
}

impl ServerConfig {
    /// Takes one value of a directive. `in_root` makes a path absolute. What is good to know of it, if anything.
    ///
    /// # Errors
    /// What is wrong with the value, for the server's administrator.
    pub fn set(
        &mut self,
        directive: &str,
        value: &str,
        in_root: impl FnOnce(&Path) -> PathBuf,
    ) -> Result<Option<String>, String> {
        match directive {
            "JsonSockLogEnabled" => self.enabled = Some(flag(value)?),
            "JsonSockLogSocket" => self.socket = Some(socket(in_root(Path::new(value)))?),
            "JsonSockLogHeaders" => return self.add_header(value),
            "JsonSockLogMaxHeaders" => self.max_headers = Some(number(value, 0, MAX_LIST)?),
            "JsonSockLogMaxHeaderValueLen" => self.max_header_value_len = Some(number(value, 1, 8192)?),
            "JsonSockLogReconnectInterval" => self.reconnect_interval = Some(seconds(value)?),
            "JsonSockLogErrorReportInterval" => self.error_report_interval = Some(seconds(value)?),
            "JsonSockLogLevel" => self.level = Some(level(value)?),
            _ => return Err("is no directive of mod_reqin_log".to_owned()),
        }
        Ok(None)
    }

    fn add_header(&mut self, name: &str) -> Result<Option<String>, String> {
        if SECRET.iter().any(|secret| secret.eq_ignore_ascii_case(name)) {
            return Ok(Some(format!("the value of {name} is never logged; left out of JsonSockLogHeaders")));
        }
        // A token of RFC 9110, section 5.6.2.
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(of_token) {
            return Err(format!("`{name}` is no name of a header of at most {MAX_NAME} bytes"));
        }
        let known = HEADERS.iter().find(|known| known.eq_ignore_ascii_case(name));
        let name = known.map_or(name, |known| *known).to_owned();
        let headers = self.headers.get_or_insert_default();
        if headers.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
            return Ok(None);
        }
        if headers.len() == MAX_LIST {
            return Err(format!("more than {MAX_LIST} headers"));
        }
        headers.push(name);
        Ok(None)
    }

    /// A virtual host's, with what it does not say taken from the server's.
    pub fn merged(&self, of_host: &Self) -> Self {
        let own = of_host.clone();
        Self {
            enabled: own.enabled.or(self.enabled),
            socket: own.socket.or_else(|| self.socket.clone()),
            headers: own.headers.or_else(|| self.headers.clone()),
            max_headers: own.max_headers.or(self.max_headers),
            max_header_value_len: own.max_header_value_len.or(self.max_header_value_len),
            reconnect_interval: own.reconnect_interval.or(self.reconnect_interval),
            error_report_interval: own.error_report_interval.or(self.error_report_interval),
            level: own.level.or(self.level),
        }
    }

    /// What the module does for this host; nothing if it is not enabled.
    ///
    /// # Errors
    /// If it is enabled and has no socket.
    pub fn settings(&self) -> Result<Option<Settings>, String> {
        if !self.enabled.unwrap_or(false) {
            return Ok(None);
        }
        let Some(socket) = self.socket.clone() else {
            return Err("JsonSockLogEnabled is On, but there is no JsonSockLogSocket".to_owned());
        };
        let headers = self.headers.clone().unwrap_or_else(|| HEADERS.map(str::to_owned).to_vec());
        Ok(Some(Settings {
            target: Target {
                socket,
                reconnect_interval: self.reconnect_interval.unwrap_or(INTERVAL),
                error_report_interval: self.error_report_interval.unwrap_or(INTERVAL),
            },
            limits: Limits {
                headers,
                max_headers: self.max_headers.unwrap_or(25),
                max_header_value_len: self.max_header_value_len.unwrap_or(256),
            },
            level: self.level.unwrap_or(Level::Warning),
        }))
    }
}

const INTERVAL: Duration = Duration::from_secs(10);

/// What the module does for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where records go.
    pub target: Target,
    /// What a record has of a request.
    pub limits: Limits,
    /// Less important messages are left out.
    pub level: Level,
}

/// A socket and how it is treated. Hosts with the same share a connection to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its absolute path.
    pub socket: PathBuf,
    /// From one failed attempt to reach it to the next.
    pub reconnect_interval: Duration,
    /// From one report of lost records to the next.
    pub error_report_interval: Duration,
}

/// What a record has of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Headers whose values are logged, as their key spells them.
    pub headers: Vec<String>,
    /// The most of them in a record.
    pub max_headers: usize,
    /// Bytes of a value.
    pub max_header_value_len: usize,
}

fn flag(value: &str) -> Result<bool, String> {
    match () {
        () if value.eq_ignore_ascii_case("on") => Ok(true),
        () if value.eq_ignore_ascii_case("off") => Ok(false),
        () => Err(format!("takes On or Off, not `{value}`")),
    }
}

fn socket(path: PathBuf) -> Result<PathBuf, String> {
    let length = path.as_os_str().len();
    if length == 0 || length > MAX_PATH {
        return Err(format!("takes a path of 1 to {MAX_PATH} bytes, not one of {length}: {}", path.display()));
    }
    Ok(path)
}

fn number(value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("takes a whole number from {least} to {most}, not `{value}`"))
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds = value.parse().ok().filter(|seconds| *seconds <= 86_400);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("takes a number of seconds from 0 to 86400, not `{value}`"))
}

fn level(value: &str) -> Result<Level, String> {
    let found = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, level)| *level).ok_or_else(|| format!("takes DEBUG, INFO, WARNING, ERROR or EMERG, not `{value}`"))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
