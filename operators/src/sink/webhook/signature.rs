//! Signatures of requests, as Standard Webhooks says (<https://github.com/standard-webhooks/standard-webhooks>).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a key in base64 begins with.
const PREFIX: &str = "whsec_";

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads a key: base64 after `whsec_`, otherwise the bytes of the text.
    ///
    /// # Errors
    /// If it is empty or no base64; the message does not repeat it.
    pub fn read(text: &str) -> Result<Self, String> {
        let key = match text.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| format!("`secret` is not base64 after {PREFIX}"))?,
            None => text.as_bytes().to_vec(),
        };
        if key.is_empty() { Err("`secret` is empty: leave it out, or set it".to_owned()) } else { Ok(Self(key)) }
    }

    /// The header `webhook-signature` of a request with this name, sent at `seconds` since 1970.
    ///
    /// # Errors
    /// Never: a key may have any length.
    pub fn sign(&self, name: &str, seconds: i64, body: &[u8]) -> Result<String, String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|error| format!("cannot be signed: {error}"))?;
        mac.update(format!("{name}.{seconds}.").as_bytes());
        mac.update(body);
        Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own documentation.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("valid");
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).expect("signed");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_never_in_a_message() {
        assert!(Secret::read("whsec_s3cret!").is_err_and(|error| !error.contains("s3cret")));
        assert!(Secret::read("").is_err() && Secret::read("whsec_").is_err());
        assert!(!format!("{:?}", Secret::read("s3cret")).contains("s3cret"));
    }
}
