//! Credentials of a request, as its `Authorization` header will carry them; never shown.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use reqwest::{Url, header::HeaderValue};
use subnet::{Fault, FaultKind};
use zeroize::Zeroizing;

/// The value of an `Authorization` header.
#[derive(Debug, Clone)]
pub struct Credentials(pub(crate) HeaderValue);

/// A token holds characters that no header may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token holds characters that can't be sent")]
pub struct InvalidToken;

impl From<InvalidToken> for Fault {
    fn from(error: InvalidToken) -> Self {
        Self::new(FaultKind::Config, error)
    }
}

impl Credentials {
    /// Takes a token, for bearer authentication.
    pub fn bearer(token: &str) -> Result<Self, InvalidToken> {
        Self::new(&Zeroizing::new(format!("Bearer {token}")))
    }

    /// Takes a user and a password, for basic authentication.
    pub fn basic(user: &str, password: &str) -> Result<Self, InvalidToken> {
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let encoded = Zeroizing::new(STANDARD.encode(&*pair));
        Self::new(&Zeroizing::new(format!("Basic {}", *encoded)))
    }

    /// Takes the user and password that stand in an address, for basic authentication; `None` if there
    /// are none, or if they can't be sent.
    pub(crate) fn within(url: &Url) -> Option<Self> {
        let password = url.password().unwrap_or_default();
        if url.username().is_empty() && password.is_empty() {
            return None;
        }
        let decoded =
            |text: &str| Zeroizing::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
        Self::basic(&decoded(url.username()), &decoded(password)).ok()
    }

    fn new(text: &str) -> Result<Self, InvalidToken> {
        let mut value = HeaderValue::from_str(text).map_err(|_| InvalidToken)?;
        // `Debug` and HTTP/2 compression leave it out.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_sent_and_never_shown() {
        let bearer = Credentials::bearer("hf_secret").unwrap();
        assert_eq!(bearer.0, "Bearer hf_secret");
        assert!(!format!("{bearer:?}").contains("secret"));
        let basic = Credentials::basic("api", "key").unwrap();
        assert_eq!(basic.0, "Basic YXBpOmtleQ==");
        let within = |url: &str| Credentials::within(&Url::parse(url).unwrap());
        assert_eq!(within("https://api:k%65y@host/").unwrap().0, basic.0);
        assert!(within("https://host/").is_none());
        assert_eq!(Credentials::bearer("a\nb").unwrap_err(), InvalidToken);
    }
}
