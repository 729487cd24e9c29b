//! What a caller proves itself with. Nothing here can be printed.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
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

/// Credentials of the scheme `Basic` that are no base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials of the request are no base64")]
pub struct BadBasic;

/// As others read it too: bits that are left over and what fills it up do not matter.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What comes after the first colon, which no name of a user has (RFC 7617, 2).
fn password(decoded: &[u8]) -> Option<&[u8]> {
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(&decoded[colon + 1..])
}

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
        let (scheme, credential) = self.parts();
        let key = if scheme.eq_ignore_ascii_case(b"bearer") {
            credential.to_vec()
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            let decoded = BASE64.decode(credential).ok()?;
            password(&decoded)?.to_vec()
        } else {
            return None;
        };
        let key = String::from_utf8(key).ok()?;
        (!key.is_empty()).then(|| Secret::new(key))
    }

    /// What whoever calls is to be told apart by: the key, however it is written, and of a scheme that is not
    /// known what comes after its name.
    ///
    /// # Errors
    /// When it is `Basic` and does not decode. Others may read a key in it all the same, and who knows which.
    pub fn distinct(&self) -> Result<Secret, BadBasic> {
        let (scheme, credential) = self.parts();
        let told = |bytes: &[u8]| Secret::new(String::from_utf8_lossy(bytes));
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Ok(told(credential));
        }
        let decoded = BASE64.decode(credential).map_err(|_| BadBasic)?;
        let password = password(&decoded).filter(|password| !password.is_empty());
        Ok(told(password.unwrap_or(&decoded)))
    }

    /// The scheme, and what comes after it; all of it, where there is no scheme (RFC 9110, 11.4).
    fn parts(&self) -> (&[u8], &[u8]) {
        let field = self.0.as_bytes().trim_ascii();
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        match field.iter().position(is_blank) {
            Some(end) => (&field[..end], field[end..].trim_ascii()),
            None => (b"", field),
        }
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_hidden_when_printed() {
        let key = Secret::new("canary");
        let credentials = Credentials::bearer("canary").unwrap();
        let printed = format!("{key:?} {credentials:?} {:?}", credentials.to_header());
        assert!(!printed.contains("canary"), "{printed}");
    }

    fn field(value: &[u8]) -> Credentials {
        Credentials::from_header(HeaderValue::from_bytes(value).unwrap())
    }

    #[test]
    fn a_key_is_the_same_however_it_is_written() {
        let same = Secret::new("k:1");
        // Of the user 9, of \xff and of nobody; with bits left over, and without what fills it up.
        for value in [
            "Bearer k:1",
            "bearer  k:1 ",
            "BEARER\tk:1",
            "Basic dXNlcjprOjE=",
            "BASIC OTprOjE=",
            "Basic /zprOjE=",
            "Basic Oms6MQ==",
            "Basic OTprOjF=",
            "Basic OTprOjE",
        ] {
            let credentials = field(value.as_bytes());
            assert!(credentials.distinct() == Ok(same.clone()), "{value}");
            assert!(credentials.key() == Some(same.clone()), "{value}");
        }
        for value in ["Custom k:1", "custom  k:1", "k:1"] {
            let credentials = field(value.as_bytes());
            assert!(credentials.distinct() == Ok(same.clone()), "{value}");
            assert!(credentials.key().is_none(), "{value}");
        }
        assert!(field(b"Bearer k").distinct() != Ok(same));
    }

    proptest! {
        #[test]
        fn a_password_is_the_same_whoever_sends_it_and_in_whatever_base64(
            user in vec(any::<u8>().prop_filter("no colon", |byte| *byte != b':'), 0..9),
            password in "[!-~]{1,20}",
            spare in 0_u8..16,
            padded: bool,
        ) {
            let plain = [&*user, b":", password.as_bytes()].concat();
            let mut text = BASE64.encode(&plain).trim_end_matches('=').to_owned();
            // Bits of the last letter that stand for nothing.
            let free = [0, 0, 4, 2][text.len() % 4];
            let letters = alphabet::STANDARD.as_str();
            let last = text.pop().and_then(|last| letters.find(last)).unwrap();
            let last = last | usize::from(spare & ((1 << free) - 1));
            text.push(char::from(letters.as_bytes()[last]));
            if padded {
                text.push_str(["", "", "==", "="][text.len() % 4]);
            }
            let credentials = field(format!("Basic {text}").as_bytes());
            prop_assert!(credentials.distinct() == Ok(Secret::new(&*password)));
            prop_assert!(credentials.key() == Some(Secret::new(&*password)));
        }

        #[test]
        fn any_field_at_all_is_told_apart_or_refused(value in vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let credentials = Credentials::from_header(value);
                let _outcome = (credentials.key(), credentials.distinct());
            }
        }
    }

    #[test]
    fn what_is_no_key_is_told_apart_all_the_same() {
        // A name without a password, and no name at all.
        for (value, told) in [
            ("Basic OTk6", "99:"),
            ("Basic OTk=", "99"),
            ("Bearer", "Bearer"),
        ] {
            let credentials = field(value.as_bytes());
            assert!(credentials.distinct() == Ok(Secret::new(told)), "{value}");
            assert!(credentials.key().is_none(), "{value}");
        }
        for value in [
            "Basic OT%6aw==",
            "Basic O",
            "Basic OTk6 aw==",
            "basic OTk6_w==",
        ] {
            assert_eq!(field(value.as_bytes()).distinct(), Err(BadBasic), "{value}");
            assert!(field(value.as_bytes()).key().is_none(), "{value}");
        }
        // A password of bytes that are no text is nobody's key.
        assert!(field(b"Basic OTr/").key().is_none());
        assert!(field(b"Basic OTr/").distinct().is_ok());
    }

    #[test]
    fn a_token_that_could_break_a_field_is_refused() {
        assert!(Credentials::bearer("k3y-._~+/=").is_ok());
        for token in ["", "a b", "a\r\nX: y", "ä", &"x".repeat(4097)] {
            assert_eq!(Credentials::bearer(token), Err(BadToken), "{token:?}");
        }
    }
}
