//! The ids that requests carry: of apps and functions, of short links, of requests.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

/// The id of an app or a function: a DNS label (RFC 1035, 2.3.1, digits first allowed).
///
/// Held in place, so that looking one up allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId {
    length: u8,
    // Zero behind `length`, so that derived comparison sees equal ids as equal.
    bytes: [u8; Self::MAX],
}

/// An id that is not one: the path or host it came from leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {max} characters of {alphabet}")]
pub struct BadId {
    max: usize,
    alphabet: &'static str,
}

impl WorkloadId {
    const MAX: usize = 63;

    /// Takes a label of `a-z`, `0-9` and `-`, with no hyphen at either end.
    ///
    /// # Errors
    /// For anything else. Upper case is not folded here: a [`Host`](crate::host::Host) already is.
    pub fn parse(label: &str) -> Result<Self, BadId> {
        let valid = (1..=Self::MAX).contains(&label.len())
            && label
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !valid {
            return Err(BadId {
                max: Self::MAX,
                alphabet: "a-z, 0-9 and -, with no hyphen at either end",
            });
        }
        let mut bytes = [0; Self::MAX];
        bytes[..label.len()].copy_from_slice(label.as_bytes());
        Ok(Self {
            length: u8::try_from(label.len()).unwrap_or(u8::MAX),
            bytes,
        })
    }

    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)])
            .expect("only ASCII is taken in `parse`")
    }
}

impl TryFrom<String> for WorkloadId {
    type Error = String;

    fn try_from(label: String) -> Result<Self, String> {
        Self::parse(&label).map_err(|error| format!("`{label}` is no name of an app: {error}"))
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> Self {
        id.as_str().to_owned()
    }
}

impl Hash for WorkloadId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Only what is there: the zeros behind it would cost more than all of it.
        self.as_str().hash(state);
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// The id of a short link: 1 to 128 of `A-Z a-z 0-9 _ -`, case kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkId(Box<str>);

impl LinkId {
    const MAX: usize = 128;

    /// Takes an id as it stands in a path.
    ///
    /// # Errors
    /// When a character or the length is not one of a short link's id.
    pub fn parse(id: &str) -> Result<Self, BadId> {
        let valid = (1..=Self::MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !valid {
            return Err(BadId {
                max: Self::MAX,
                alphabet: "A-Z, a-z, 0-9, _ and -",
            });
        }
        Ok(Self(id.into()))
    }

    /// The id, in the case it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The id of one request, on its answer, in its log line and on its way to a backend.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The longest id that is taken over from a trusted peer, in octets.
    const MAX: usize = 128;

    /// A new one: a UUID of version 7 (RFC 9562, 5.7), so ids sort by time.
    #[must_use]
    pub fn new() -> Self {
        let now = uuid::Timestamp::now(uuid::NoContext);
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        uuid::Uuid::new_v7(now).hyphenated().encode_lower(&mut text);
        Self::of(HeaderValue::from_bytes(&text).expect("a UUID is visible ASCII"))
    }

    /// Takes over what a trusted peer sent, if it is short and visible ASCII.
    #[must_use]
    pub fn from_trusted(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let usable =
            (1..=Self::MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        usable.then(|| Self::of(value.clone()))
    }

    /// Kept out of the tables of HTTP/2 (RFC 7541, 7.1.3): it is no secret, but none comes twice, and each
    /// would push out a field that does.
    fn of(mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        Self(value)
    }

    /// As a field value; cloning it copies nothing.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_is_a_dns_label() {
        for id in ["a", "7", "hello-world", "a--b", &"x".repeat(63)] {
            assert_eq!(WorkloadId::parse(id).unwrap().as_str(), id);
        }
        for id in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "ä",
            "a b",
            &"x".repeat(64),
        ] {
            assert!(WorkloadId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_link_id_keeps_its_case() {
        for id in ["a", "Zz_9-", &"x".repeat(128)] {
            assert_eq!(LinkId::parse(id).unwrap().as_str(), id);
        }
        for id in ["", "a.b", "a/b", "a%20", "ä", &"x".repeat(129)] {
            assert!(LinkId::parse(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn request_ids_are_unique_and_only_clean_ones_are_taken_over() {
        assert_ne!(RequestId::new().as_str(), RequestId::new().as_str());
        let taken = |value: &'static str| {
            RequestId::from_trusted(&HeaderValue::from_static(value)).is_some()
        };
        assert!(taken("abc-123"));
        assert!(!taken(""));
        assert!(!taken("a b"));
    }
}
