//! The hosts file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

/// The most processes of a cluster: each holds two connections with each other.
const MAX_PROCESSES: usize = 64;

/// The most bytes of a hosts file, with its comments.
const MAX_BYTES: u64 = 1 << 20;

/// The addresses of all processes, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    file: String,
    addresses: Vec<String>,
}

/// Why the processes are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// The file cannot be read.
    #[error("{file}: {cause}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        cause: String,
    },
    /// A line is not an address.
    #[error("{file}:{line}: {fault}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// The file as a whole does not do.
    #[error("{file}: {fault}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// Reads a regular file of a bounded size: nothing waits for somebody to write to a pipe.
fn read_text(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

impl Hosts {
    /// Reads a hosts file: one `address:port` a line, where the address is a name, an IPv4 address or an IPv6 address in
    /// brackets. What follows `#` is a comment; empty lines do not count.
    ///
    /// # Errors
    /// With file and line, if the file cannot be read or a line is not such an address.
    pub fn load(path: &Path) -> Result<Self, HostsError> {
        let file = path.display().to_string();
        match read_text(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(cause) => Err(HostsError::Unreadable { file, cause: cause.to_string() }),
        }
    }

    /// The same from text; `file` is named in messages.
    ///
    /// # Errors
    /// As for [`Hosts::load`].
    pub fn parse(file: &str, text: &str) -> Result<Self, HostsError> {
        let mut addresses: Vec<(usize, String)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let address = line.split('#').next().unwrap_or_default().trim();
            if address.is_empty() {
                continue;
            }
            let fault = |fault: String| HostsError::Line { file: file.to_owned(), line: index + 1, fault };
            check(address).map_err(fault)?;
            if let Some((first, _)) = addresses.iter().find(|(_, known)| known == address) {
                return Err(fault(format!("`{address}` is on line {first} already: give each process an own port")));
            }
            addresses.push((index + 1, address.to_owned()));
        }
        let addresses: Vec<String> = addresses.into_iter().map(|(_, address)| address).collect();
        let fault = |fault: String| HostsError::File { file: file.to_owned(), fault };
        match addresses.len() {
            0 | 1 => {
                Err(fault("fewer than two addresses: name each process on a line, or run one without `--hosts`".into()))
            }
            n if n > MAX_PROCESSES => {
                Err(fault(format!("{n} addresses: at most {MAX_PROCESSES} processes can run together")))
            }
            _ => Ok(Self { file: file.to_owned(), addresses }),
        }
    }

    /// The addresses in their order.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The file's name, for messages.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn no_such_process(&self, process: usize) -> HostsError {
        let last = self.addresses.len() - 1;
        let fault = format!("no process {process}: the file names the processes 0 to {last}");
        HostsError::File { file: self.file.clone(), fault }
    }

    /// Whether a connection from this address may be one of the processes.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let known = self.addresses.iter().filter_map(|a| resolve(a).ok()).flatten();
        known.into_iter().any(|known| known.ip().to_canonical() == address)
    }
}

/// Addresses of a line; names are looked up.
pub(crate) fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(address.to_socket_addrs()?.collect())
}

fn check(address: &str) -> Result<(), String> {
    let example = "write `address:port`, such as `10.0.0.2:7001`";
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("`{address}` has no port: {example}"));
    };
    match port.parse::<u16>() {
        Err(_) => return Err(format!("`{port}` is not a port: {example}")),
        Ok(0) => return Err("port 0 cannot be connected to: choose another".into()),
        Ok(_) => {}
    }
    if let Some(inner) = host.strip_prefix('[') {
        let ip = inner.strip_suffix(']').and_then(|text| text.parse::<Ipv6Addr>().ok());
        return unspecified(ip.map(IpAddr::V6).ok_or_else(|| format!("`{host}` is not an IPv6 address: {example}"))?);
    }
    if host.contains(':') {
        return Err(format!("`{host}` is not a name or address: write an IPv6 address in brackets, `[::1]:7001`"));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return unspecified(ip);
    }
    let well_formed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // A last part of digits is an address that was mistyped, not a name.
    let number = host.rsplit('.').next().is_some_and(|part| part.chars().all(|c| c.is_ascii_digit()));
    if host.is_empty() || number || !host.chars().all(well_formed) {
        return Err(format!("`{host}` is not a name or address: {example}"));
    }
    Ok(())
}

fn unspecified(ip: IpAddr) -> Result<(), String> {
    match ip.is_unspecified() {
        true => Err(format!("`{ip}` cannot be connected to: write the address that the other processes reach")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Hosts::parse("hosts", text).expect_err("refused").to_string()
    }

    #[test]
    fn names_addresses_and_comments_are_read() {
        let hosts = Hosts::parse("hosts", "# two of them\n10.0.0.1:7001 # first\n\n [::1]:7002\nhost-b.lan:7003\r\n");
        assert_eq!(hosts.expect("valid").addresses(), ["10.0.0.1:7001", "[::1]:7002", "host-b.lan:7003"]);
    }

    #[test]
    fn a_fault_names_file_and_line() {
        assert_eq!(refused("a:1\n\nb"), "hosts:3: `b` has no port: write `address:port`, such as `10.0.0.2:7001`");
        for (line, says) in [
            ("b:x", "`x` is not a port"),
            ("b:0", "port 0"),
            ("b:70000", "`70000` is not a port"),
            ("::1:70", "in brackets"),
            ("[::g]:70", "not an IPv6 address"),
            ("10.0.0.300:70", "not a name or address"),
            ("b c:70", "not a name or address"),
            (":70", "not a name or address"),
            ("0.0.0.0:70", "cannot be connected to"),
            ("a:1", "is on line 1 already"),
        ] {
            let shown = refused(&format!("a:1\n{line}\n"));
            assert!(shown.starts_with("hosts:2: ") && shown.contains(says), "{line}: {shown}");
        }
    }

    #[test]
    fn a_file_needs_two_processes_and_not_too_many() {
        assert!(refused("# nobody\n").contains("fewer than two"));
        assert!(refused("a:1\n").contains("fewer than two"));
        let many: String = (1..=65).map(|n| format!("a:{n}\n")).collect();
        assert!(refused(&many).contains("at most 64"));
    }

    #[test]
    fn only_addresses_of_the_file_may_connect() {
        let hosts = Hosts::parse("hosts", "127.0.0.1:1\n[::2]:1\n").expect("valid");
        for (address, may) in [("127.0.0.1", true), ("::ffff:127.0.0.1", true), ("::2", true), ("127.0.0.2", false)] {
            assert_eq!(hosts.holds(address.parse().expect("an address")), may, "{address}");
        }
    }
}
