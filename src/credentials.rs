//! What a caller proves itself with. Nothing here can be printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// A secret text: an API key, a token, a password. `Debug` hides it and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[hidden]")
    }
}

/// The value of an `Authorization` field: marked sensitive, hidden in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(HeaderValue);

/// A token that cannot stand in a field, so it cannot be anyone's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 1 to 4096 visible ASCII characters")]
pub struct BadToken;

impl Credentials {
    const MAX_TOKEN: usize = 4096;

    /// `Bearer TOKEN` (RFC 6750, 2.1).
    ///
    /// # Errors
    /// When the token is empty, longer than 4096 octets, or has a character no token has.
    pub fn bearer(token: &str) -> Result<Self, BadToken> {
        let usable = (1..=Self::MAX_TOKEN).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !usable {
            return Err(BadToken);
        }
        let value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| BadToken)?;
        Ok(Self::from_header(value))
    }

    /// Takes an `Authorization` field as it is.
    #[must_use]
    pub fn from_header(mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        Self(value)
    }

    /// The key in `Bearer KEY` (RFC 6750, 2.1), or in `Basic` as the password (RFC 7617, 2).
    #[must_use]
    pub fn key(&self) -> Option<Secret> {
        let (scheme, credential) = self.0.to_str().ok()?.split_once(' ')?;
        let credential = credential.trim();
        let key = if scheme.eq_ignore_ascii_case("bearer") {
            credential.to_owned()
        } else if scheme.eq_ignore_ascii_case("basic") {
            let decoded = String::from_utf8(STANDARD.decode(credential).ok()?).ok()?;
            decoded.split_once(':')?.1.to_owned()
        } else {
            return None;
        };
        (!key.is_empty()).then(|| Secret::new(key))
    }

    /// The field value, marked sensitive.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_when_printed() {
        let key = Secret::new("canary");
        let credentials = Credentials::bearer("canary").unwrap();
        let printed = format!("{key:?} {credentials:?} {:?}", credentials.to_header());
        assert!(!printed.contains("canary"), "{printed}");
    }

    #[test]
    fn a_token_that_could_break_a_field_is_refused() {
        assert!(Credentials::bearer("k3y-._~+/=").is_ok());
        for token in ["", "a b", "a\r\nX: y", "ä", &"x".repeat(4097)] {
            assert_eq!(Credentials::bearer(token), Err(BadToken), "{token:?}");
        }
    }
}
