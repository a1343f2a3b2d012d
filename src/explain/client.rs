//! Whom an explanation is about.

use std::net::IpAddr;

use crate::history::{Table, sql};

/// A client: an address, at one host and with one JA4 if so wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, IPv4-mapped IPv6 as IPv4.
    pub src_ip: IpAddr,
    /// The host; the inner `None` is no host, the outer one any.
    pub host: Option<Option<String>>,
    /// The JA4, likewise.
    pub ja4: Option<Option<String>>,
    /// As it was written.
    pub written: String,
}

impl Client {
    /// Reads `address` or `address,host,ja4`: an empty part is any value, `-` is none. A host may have commas.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, rest) = text.split_once(',').map_or((text, None), |(address, rest)| (address, Some(rest)));
        let fault = || {
            format!("`{text}` is no client: an address, such as 192.0.2.1, or address,host,ja4 as a detection has them")
        };
        let src_ip = address.trim().parse::<IpAddr>().map_err(|_| fault())?.to_canonical();
        let part = |text: &str| match text.trim() {
            "" => None,
            "-" => Some(None),
            text => Some(Some(text.to_owned())),
        };
        let (host, ja4) = match rest {
            None => (None, None),
            Some(rest) => {
                let (host, ja4) = rest.rsplit_once(',').ok_or_else(fault)?;
                (part(host), part(ja4))
            }
        };
        Ok(Self { src_ip, host, ja4, written: text.to_owned() })
    }

    /// The conditions for rows of this client, of the columns that a table has.
    pub fn conditions(&self, table: &Table) -> Vec<String> {
        let address = self.src_ip.to_string();
        let mapped = format!("::ffff:{address}");
        let forms: Vec<&str> = match self.src_ip {
            IpAddr::V4(_) => vec![&address, &mapped],
            IpAddr::V6(_) => vec![&address],
        };
        let mut conditions = vec![sql::among("src_ip", forms)];
        for (name, value) in [("host", &self.host), ("ja4", &self.ja4)] {
            if let Some(value) = value.as_ref().filter(|_| table.has(name)) {
                conditions.push(sql::equals(name, value.as_deref()));
            }
        }
        conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_and_perhaps_more() {
        let parsed = |text| Client::parse(text).map(|client| (client.src_ip.to_string(), client.host, client.ja4));
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(parsed("192.0.2.1"), Ok(("192.0.2.1".to_owned(), None, None)));
        assert_eq!(parsed("::ffff:192.0.2.1,,-"), Ok(("192.0.2.1".to_owned(), None, Some(None))));
        assert_eq!(parsed("2001:db8:0::1,a,b,t13d"), Ok(("2001:db8::1".to_owned(), some("a,b"), some("t13d"))));
        for wrong in ["", "example.org", "192.0.2.1,a", "192.0.2.0/24", "192.0.2.1' or 1=1"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_of_columns_that_there_are() {
        let table = |names: &[&str]| {
            let columns: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name, "type": "Utf8"})).collect();
            serde_json::from_value(serde_json::json!({"name": "t", "columns": columns})).expect("a table")
        };
        let client = Client::parse("192.0.2.1,it's,-").expect("a client");
        let address = "\"src_ip\" IN ('192.0.2.1', '::ffff:192.0.2.1')";
        assert_eq!(client.conditions(&table(&["src_ip", "ja4"])), [address, "\"ja4\" IS NULL"]);
        assert_eq!(client.conditions(&table(&["host"])), [address, "\"host\" = 'it''s'"]);
    }
}
