//! API keys: who may call. Only their digests are kept.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::random::Sha256;
use super::store::{self, Read, Remembered, Store, Table};
use super::{EVERYTHING, random};
use crate::credentials::{Credentials, Secret};

/// What is kept beside the digest of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Key {
    created: Timestamp,
}

/// The keys that have called.
#[derive(Default)]
pub(super) struct Keys(ArcSwap<Known>);

/// Digests of keys that the store knew when its keys had this generation.
#[derive(Clone, Default)]
struct Known {
    generation: u64,
    digests: Vec<Sha256>,
}

impl Keys {
    /// Lets a call pass whose `Authorization` field carries a known key.
    pub(super) fn admit(&self, store: &Store, headers: &HeaderMap) -> Result<(), Error> {
        let key = key_of(headers).ok_or(Error::Unauthorized)?;
        let digest = random::sha256(key.expose());
        // Read before the store is: a key that is revoked after that has another number.
        let generation = store.generation_of(Remembered::Keys);
        let known = self.0.load();
        if known.generation == generation && known.digests.contains(&digest) {
            return Ok(());
        }
        let found: Option<Key> = store.read()?.get(Table::Keys, &random::text(&digest))?;
        found.ok_or(Error::Unauthorized)?;
        let mut digests = match known.generation == generation && known.digests.len() < MOST {
            true => known.digests.clone(),
            false => Vec::new(),
        };
        digests.push(digest);
        self.0.store(Arc::new(Known {
            generation,
            digests,
        }));
        Ok(())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Keys")
    }
}

/// Lets `key` call, and no other: those that were given before are revoked.
pub(super) fn give(store: &Store, key: &Secret) -> Result<(), store::Error> {
    let digest = random::digest(key.expose());
    let view = store.read()?;
    let known: Option<Key> = view.get(Table::Keys, &digest)?;
    let mut revoked = view.keys(Table::Keys, EVERYTHING)?;
    drop(view);
    revoked.retain(|other| *other != digest);
    if known.is_some() && revoked.is_empty() {
        return Ok(());
    }
    let count = revoked.len();
    store.write_blocking(move |tx| {
        for other in &revoked {
            tx.delete(Table::Keys, other);
        }
        let created = known.map_or_else(Timestamp::now, |known| known.created);
        tx.put(Table::Keys, &digest, &Key { created });
        Ok(())
    })?;
    if count > 0 {
        tracing::info!(count, "revoked {count} API keys: another one is given");
    }
    Ok(())
}

/// Whether anybody may call at all.
pub(super) fn any(store: &Store) -> Result<bool, store::Error> {
    let first: Vec<(String, Key)> = store.read()?.scan(Table::Keys, "", 1)?;
    Ok(!first.is_empty())
}

/// Keys that are remembered at most; there is one, but in stores of earlier versions.
const MOST: usize = 16;

fn key_of(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(header::AUTHORIZATION)?.clone();
    Credentials::from_header(value).key()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_known_key_passes_as_bearer_and_as_basic() {
        let store = Store::unwatched(Path::new("memory")).unwrap();
        let keys = Keys::default();
        assert!(!any(&store).unwrap());
        let check = |key: &str, value: &str, passes: bool| {
            give(&store, &Secret::new(key)).unwrap();
            assert!(any(&store).unwrap());
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            for _ in 0..2 {
                assert_eq!(keys.admit(&store, &headers).is_ok(), passes, "{value}");
            }
        };
        check("k:1", "Bearer k:1", true);
        check("k2", "bearer  k2", true);
        check(
            "k:1",
            &format!("Basic {}", STANDARD.encode("user:k:1")),
            true,
        );
        check("k2", &format!("Basic {}", STANDARD.encode(":k2")), true);
        check("k2", &format!("Basic {}", STANDARD.encode("k2")), false);
        check("k2", "Bearer k", false);
        check("k2", "Bearer K2", false);
        check("k2", "Bearer ", false);
        check("k2", "k2", false);
        check("k2", "Digest k2", false);
        assert!(keys.admit(&store, &HeaderMap::new()).is_err());
    }
}
