//! One certificate with its chain and key, and the names that it speaks for.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::wire::Covers;

/// A certificate with its chain and key.
pub struct Certificate {
    label: Box<str>,
    names: Names,
    not_after: Timestamp,
    /// The digest of the whole chain, as it is written.
    fingerprint: [u8; 32],
    /// What gives what `key` is made from; taken when it is.
    source: Mutex<Option<Box<Source>>>,
    key: OnceLock<Result<Arc<CertifiedKey>, BadPair>>,
}

/// A chain and the key to it, in PEM form.
#[derive(Debug)]
pub struct Pair {
    /// Our own certificate first.
    pub chain: Vec<u8>,
    /// That of our own certificate.
    pub key: Vec<u8>,
}

type Names = Box<[Box<str>]>;

type Source = dyn FnOnce() -> Result<Pair, BadPair> + Send;

/// Why a chain and a key are no certificate to serve with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPair {
    /// The chain holds no certificate.
    #[error("the chain holds no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The chain is no PEM.
    #[error("the chain is no PEM, or it is cut off: {0}")]
    Chain(String),
    /// The first certificate of the chain, which is to be our own, cannot be read.
    #[error("the first certificate of the chain cannot be read: {0}")]
    Leaf(String),
    /// It speaks for no name.
    #[error(
        "the certificate names no host: it needs a subject alternative name, like `DNS:example.com`"
    )]
    NoNames,
    /// There is no key, or it is no PEM.
    #[error(
        "the key is no private key in PEM form (`-----BEGIN PRIVATE KEY-----`, not encrypted): {0}"
    )]
    Key(String),
    /// The key is of a kind that TLS does not know, or broken.
    #[error("the key cannot be used: {0}")]
    UnusableKey(String),
    /// The key belongs to another certificate.
    #[error(
        "the key is not that of the first certificate of the chain: the server's own certificate comes first, and each needs its own key"
    )]
    Mismatch,
    /// They were left for later, and cannot be read any more.
    #[error("they cannot be read any more: {0}")]
    Lost(String),
    /// They were left for later, and there is another chain now.
    #[error("there is another chain than a moment ago")]
    Replaced,
}

impl Certificate {
    /// Reads a chain, our own certificate first, and its key, and checks that they belong together.
    /// `label` is what logs and the admin address call it.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(label: &str, chain: &[u8], key: &[u8]) -> Result<Self, BadPair> {
        let certificate = Self::indexed(label, chain)?;
        let key = read(chain, key)?;
        let _is_empty = certificate.key.set(Ok(key));
        Ok(certificate)
    }

    /// Reads the names of a chain alone. The rest of it and the key are asked of `later`, and checked, when
    /// the key is first asked for: that costs far more.
    ///
    /// # Errors
    /// What is wrong with the first certificate of the chain.
    pub fn index(
        label: &str,
        chain: &[u8],
        later: impl FnOnce() -> Result<Pair, BadPair> + Send + 'static,
    ) -> Result<Self, BadPair> {
        let source = Mutex::new(Some(Box::new(later) as Box<Source>));
        let indexed = Self::indexed(label, chain)?;
        Ok(Self { source, ..indexed })
    }

    fn indexed(label: &str, chain: &[u8]) -> Result<Self, BadPair> {
        let leaf = CertificateDer::pem_slice_iter(chain).next();
        let leaf = leaf.ok_or(BadPair::NoCertificate)?;
        let leaf = leaf.map_err(|error| BadPair::Chain(told(&error)))?;
        let (names, not_after) = read_leaf(&leaf)?;
        Ok(Self {
            label: label.into(),
            names,
            not_after,
            fingerprint: fingerprint(chain),
            source: Mutex::default(),
            key: OnceLock::new(),
        })
    }

    /// Whether it is the very same certificate as `other`; each key has its own.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// What logs and the admin address call it.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The names that it speaks for: lower case, `*.example.com` for one label of any kind, addresses
    /// as text.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// From when on clients refuse it.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The chain and the key as rustls takes them; read when first asked for, which may block.
    ///
    /// # Errors
    /// When they do not belong together or the key cannot be used.
    pub fn key(&self) -> Result<&Arc<CertifiedKey>, &BadPair> {
        let read = || {
            let source = self.source.lock();
            let source = source.unwrap_or_else(PoisonError::into_inner).take();
            let Pair { chain, key } = source.ok_or(BadPair::NoCertificate)?()?;
            match fingerprint(&chain) == self.fingerprint {
                true => read(&chain, &key),
                false => Err(BadPair::Replaced),
            }
        };
        self.key.get_or_init(read).as_ref()
    }

    /// Whether the key has been read, be it good or not.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.key.get().is_some()
    }

    /// Takes over the key of `other`, which is the very same, where its own has not been read.
    pub(super) fn adopt(&self, other: Self) {
        if let Some(key) = other.key.into_inner() {
            let _own_is_kept = self.key.set(key);
        }
    }
}

/// RFC 9525, 6.3 and 6.4.
impl Covers for Certificate {
    fn covers(&self, host: &str) -> bool {
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = literal.unwrap_or(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_string();
            return self.names().any(|name| name == address);
        }
        self.names().any(|name| matches(name, host))
    }
}

/// Whether the name of a certificate stands for `host`.
fn matches(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        // The wildcard is one whole label.
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Certificate")
            .field("label", &self.label)
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads all of a chain and its key, and checks that they belong together.
fn read(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, BadPair> {
    use rustls::{Error, InconsistentKeys};
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| BadPair::Chain(told(&error)))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| BadPair::Key(told(&error)))?;
    match CertifiedKey::from_der(chain, key, super::provider()) {
        Ok(key) => Ok(Arc::new(key)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(BadPair::Mismatch),
        Err(error) => Err(BadPair::UnusableKey(error.to_string())),
    }
}

fn fingerprint(chain: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, chain);
    digest.as_ref().try_into().expect("SHA-256 has 32 octets")
}

/// The names and the end of a certificate.
fn read_leaf(leaf: &CertificateDer<'_>) -> Result<(Names, Timestamp), BadPair> {
    let unreadable = |error: &dyn fmt::Display| BadPair::Leaf(error.to_string());
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| unreadable(&error))?;
    let alternatives = leaf
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?
        .ok_or(BadPair::NoNames)?;
    let named = alternatives.value.general_names.iter();
    let mut names: Vec<Box<str>> = named.filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(BadPair::NoNames);
    }
    let seconds = leaf.validity().not_after.timestamp();
    // RFC 5280, 4.1.2.5: the year 9999 stands for "no end", which a clock need not reach.
    let not_after = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    Ok((names.into(), not_after))
}

/// The name as we compare it; `None` for a kind of which no client asks a server.
fn name(general: &GeneralName<'_>) -> Option<Box<str>> {
    match general {
        GeneralName::DNSName(name) => {
            let parent = name.strip_prefix("*.").unwrap_or(name);
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            let is_fine = !parent.is_empty() && parent.bytes().all(plain);
            is_fine.then(|| name.to_ascii_lowercase().into())
        }
        GeneralName::IPAddress(octets) => {
            let four = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
            address.ok().map(|address| address.to_string().into())
        }
        _ => None,
    }
}

/// What the reader of PEM says, without the bytes that it met: they may be of a key.
fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is broken",
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is no base64",
        pem::Error::NoItemsFound => "there is none",
        _ => "it cannot be read",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let parameters = rcgen::CertificateParams::new(names).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn certificate(names: &[&str]) -> Certificate {
        let (chain, key) = pair(names);
        Certificate::from_pem("test", chain.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_of_a_wildcard() {
        let certificate = certificate(&["Example.com", "*.m3o.app", "127.0.0.1", "::1"]);
        let covered = [
            "example.com",
            "EXAMPLE.com",
            "blog.m3o.app",
            "Blog.M3O.app",
            "127.0.0.1",
            "::1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
        ];
        for host in covered {
            assert!(certificate.covers(host), "{host}");
        }
        let others = [
            "www.example.com",
            "m3o.app",
            ".m3o.app",
            "a.b.m3o.app",
            "evilm3o.app",
            "127.0.0.2",
            "",
        ];
        for host in others {
            assert!(!certificate.covers(host), "{host}");
        }
    }

    #[test]
    fn a_pair_that_is_none_says_what_is_wrong() {
        let (chain, key) = pair(&["example.com"]);
        let (_, other) = pair(&["example.com"]);
        let check = |chain: &str, key: &str, expected: &str| {
            let bad = Certificate::from_pem("test", chain.as_bytes(), key.as_bytes()).unwrap_err();
            assert!(bad.to_string().contains(expected), "{bad}");
        };
        check("", &key, "no certificate");
        check(&chain[..chain.len() / 2], &key, "cut off");
        check(&chain, "", "no private key");
        check(&chain, &key[..key.len() / 2], "no private key");
        check(&chain, &chain, "no private key");
        check(&chain, &other, "not that of the first");
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(garbage, &key, "cannot be read");
        let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        check(&chain, garbage, "cannot be used");
        let nameless = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        let nameless_chain = parameters.self_signed(&nameless).unwrap().pem();
        check(&nameless_chain, &nameless.serialize_pem(), "names no host");
    }

    #[test]
    fn an_index_reads_the_names_and_leaves_the_key_for_later() {
        let (chain, key) = pair(&["example.com"]);
        let (other_chain, other_key) = pair(&["example.com"]);
        let cut = &chain[..chain.len() - 20];
        let lost = BadPair::Lost("gone".to_owned());
        let check = |given: Result<(&str, &str), BadPair>, expected: Result<(), BadPair>| {
            let given = given.map(|(chain, key)| Pair {
                chain: chain.into(),
                key: key.into(),
            });
            let indexed = Certificate::index("test", chain.as_bytes(), || given).unwrap();
            assert!(indexed.covers("example.com"));
            assert!(!indexed.is_read());
            for _ in 0..2 {
                let found = indexed.key().map(drop);
                assert_eq!(found, expected.as_ref().copied());
                assert!(indexed.is_read());
            }
        };
        check(Ok((&chain, &key)), Ok(()));
        check(Ok((&chain, &other_key)), Err(BadPair::Mismatch));
        check(Ok((&other_chain, &other_key)), Err(BadPair::Replaced));
        check(Ok((cut, &key)), Err(BadPair::Replaced));
        check(Err(lost.clone()), Err(lost));
    }
}
