//! The connection to a ClickHouse server, over HTTP or HTTPS.

use clickhouse::{Client, Compression};

/// Where a server is and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `http://host:port` or `https://host:port`, without credentials.
    pub url: String,
    /// Default: `default`.
    pub user: Option<String>,
    /// Never shown.
    pub password: Option<String>,
}

impl Address {
    /// Reads `http[s]://[user[:password]@]host[:port][/]`. Credentials given apart go before those of the URL.
    ///
    /// # Errors
    /// If it is not such a URL; the message does not repeat it, as it may hold a password.
    pub fn parse(url: &str, user: Option<String>, password: Option<String>) -> Result<Self, String> {
        let malformed = || "the URL of ClickHouse is not http[s]://[user[:password]@]host[:port]".to_owned();
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(malformed)?;
        if !matches!(scheme, "http" | "https") {
            return Err(malformed());
        }
        let (credentials, host) = rest.rsplit_once('@').map_or((None, rest), |(before, host)| (Some(before), host));
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(malformed());
        }
        let (mut own_user, mut own_password) = (None, None);
        if let Some(credentials) = credentials {
            let (name, secret) = credentials.split_once(':').map_or((credentials, None), |(n, s)| (n, Some(s)));
            own_user = Some(decoded(name));
            own_password = secret.map(decoded);
        }
        let url = format!("{scheme}://{host}");
        Ok(Self { url, user: user.or(own_user), password: password.or(own_password) })
    }

    /// A client that is not connected yet.
    pub fn client(&self) -> Client {
        let mut client = Client::default()
            .with_url(&self.url)
            .with_compression(Compression::Lz4)
            .with_product_info("ja4-engine", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.user {
            client = client.with_user(user);
        }
        if let Some(password) = &self.password {
            client = client.with_password(password);
        }
        client
    }
}

/// `%40` and the like.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Why the server did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// ClickHouse's error code; `None` if there was no answer.
    pub code: Option<u32>,
    /// What it said, on one line.
    pub message: String,
}

impl From<clickhouse::error::Error> for ServerError {
    fn from(error: clickhouse::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = inner.source();
        }
        let code = message
            .split("Code: ")
            .nth(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { code: code.and_then(|digits| digits.parse().ok()), message }
    }
}

/// Runs a statement that answers nothing.
///
/// # Errors
/// What the server says, or why it does not.
pub async fn execute(client: &Client, sql: &str) -> Result<(), ServerError> {
    Ok(client.query_raw(sql).with_setting("wait_end_of_query", "1").execute().await?)
}

/// The rows that a query answers, each with its columns as text.
///
/// # Errors
/// As [`execute`].
pub async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<String>>, ServerError> {
    let bytes = client.query_raw(sql).fetch_bytes("TabSeparatedRaw")?.collect().await?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_may_be_in_the_url_and_are_never_in_a_message() {
        let address = Address::parse("https://me:p%40ss@db:8443/", None, None).expect("valid");
        assert_eq!(
            (address.url.as_str(), address.user.as_deref(), address.password.as_deref()),
            ("https://db:8443", Some("me"), Some("p@ss"))
        );
        let address = Address::parse("http://db", Some("x".into()), Some("y".into())).expect("valid");
        assert_eq!(
            (address.url.as_str(), address.user.as_deref(), address.password.as_deref()),
            ("http://db", Some("x"), Some("y"))
        );
        for wrong in ["db:8123", "ftp://me:secret@db", "http://", "http://me:secret@/x"] {
            let error = Address::parse(wrong, None, None).expect_err("refused");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_code_of_an_exception_is_read_from_its_text() {
        let error =
            ServerError::from(clickhouse::error::Error::BadResponse("Code: 60. DB::Exception: Unknown\n table".into()));
        assert_eq!((error.code, error.message.contains("Unknown table")), (Some(60), true));
    }
}
