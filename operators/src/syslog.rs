//! What a source and a sink of syslog messages have in common: places, facilities and severities (RFC 5424, section 6.2.1).

use std::fmt;
use std::path::PathBuf;

/// The facilities, by their numbers.
pub(crate) const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// The severities, by their numbers.
pub(crate) const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Where messages come from or go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `host:port`, one message a datagram (RFC 5426).
    Udp(String),
    /// `host:port` (RFC 6587).
    Tcp(String),
    /// A socket's file, one message a datagram.
    UnixDatagram(PathBuf),
    /// A socket's file, as a stream.
    UnixStream(PathBuf),
}

impl Place {
    /// Reads `udp://host:port`, `tcp://host:port`, `unix-dgram://path` or `unix-stream://path`.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("`{text}` is not udp://host:port, tcp://host:port, unix-dgram://path or unix-stream://path");
        let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
        let has_port = || {
            let (host, port) = rest.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| rest.to_owned())
        };
        match scheme {
            "udp" => has_port().map(Self::Udp).ok_or_else(malformed),
            "tcp" => has_port().map(Self::Tcp).ok_or_else(malformed),
            // sockaddr_un has 108 bytes for a path and its end.
            _ if rest.is_empty() || rest.len() > 107 => Err(malformed()),
            "unix-dgram" => Ok(Self::UnixDatagram(rest.into())),
            "unix-stream" => Ok(Self::UnixStream(rest.into())),
            _ => Err(malformed()),
        }
    }

    /// The same with another path, if it has one.
    pub fn with_path(self, change: impl FnOnce(PathBuf) -> PathBuf) -> Self {
        match self {
            Self::UnixDatagram(path) => Self::UnixDatagram(change(path)),
            Self::UnixStream(path) => Self::UnixStream(change(path)),
            net => net,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::UnixDatagram(path) => write!(f, "unix-dgram://{}", path.display()),
            Self::UnixStream(path) => write!(f, "unix-stream://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_shown_alike() {
        for text in [
            "udp://127.0.0.1:514",
            "tcp://[::1]:601",
            "tcp://log.example.test:1",
            "unix-dgram:///dev/log",
            "unix-stream://a b",
        ] {
            assert_eq!(Place::parse(text).map(|place| place.to_string()), Ok(text.to_owned()));
        }
        let long = format!("unix-dgram://{}", "x".repeat(108));
        for text in [
            "",
            "127.0.0.1:514",
            "udp://127.0.0.1",
            "udp://:514",
            "tcp://a:65536",
            "unix-dgram://",
            "http://a:1",
            &long,
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
