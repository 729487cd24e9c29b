//! API keys: who may call. Only their digests are kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::random;
use super::store::{self, Read, Store, Table};
use crate::credentials::Secret;

/// What is kept beside the digest of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Key {
    created: Timestamp,
}

/// Lets a call pass whose `Authorization` field carries a known key.
pub(super) fn admit(store: &Store, headers: &HeaderMap) -> Result<(), Error> {
    let key = key_of(headers).ok_or(Error::Unauthorized)?;
    let known = store
        .read()?
        .get::<Key>(Table::Keys, &random::digest(key.expose()))?;
    known.map(drop).ok_or(Error::Unauthorized)
}

/// Adds `key` to those that may call, if it is not one of them yet.
pub(super) fn add(store: &Store, key: &Secret) -> Result<(), store::Error> {
    let digest = random::digest(key.expose());
    let known: Option<Key> = store.read()?.get(Table::Keys, &digest)?;
    if known.is_some() {
        return Ok(());
    }
    store.write_blocking(move |tx| {
        let created = Timestamp::now();
        tx.put(Table::Keys, &digest, &Key { created });
        Ok(())
    })
}

/// Whether anybody may call at all.
pub(super) fn any(store: &Store) -> Result<bool, store::Error> {
    let first: Vec<(String, Key)> = store.read()?.scan(Table::Keys, "", 1)?;
    Ok(!first.is_empty())
}

/// The key in `Bearer KEY` (RFC 6750, 2.1), or in `Basic` as the password (RFC 7617, 2).
fn key_of(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = value.split_once(' ')?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_known_key_passes_as_bearer_and_as_basic() {
        let store = Store::open(Path::new("memory")).unwrap();
        assert!(!any(&store).unwrap());
        add(&store, &Secret::new("k:1")).unwrap();
        add(&store, &Secret::new("k2")).unwrap();
        assert!(any(&store).unwrap());
        let check = |value: &str, passes: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(admit(&store, &headers).is_ok(), passes, "{value}");
        };
        check("Bearer k:1", true);
        check("bearer  k2", true);
        check(&format!("Basic {}", STANDARD.encode("user:k:1")), true);
        check(&format!("Basic {}", STANDARD.encode(":k2")), true);
        check(&format!("Basic {}", STANDARD.encode("k2")), false);
        check("Bearer k", false);
        check("Bearer K2", false);
        check("Bearer ", false);
        check("k2", false);
        check("Digest k2", false);
        assert!(admit(&store, &HeaderMap::new()).is_err());
    }
}
