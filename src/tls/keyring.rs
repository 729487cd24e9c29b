//! All certificates that can be served, found by name. Read without a lock, swapped whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::certificate::Certificate;

/// Where certificates come from, the preferred source first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The operator put them into a folder: nothing that we get by ourselves goes before them.
    Files,
    /// We asked an authority for them.
    Acme,
    /// The local authority of `dev`.
    Local,
}

impl Source {
    const ALL: [Self; 3] = [Self::Files, Self::Acme, Self::Local];
}

/// All certificates that can be served, by name.
///
/// Where two speak for the same name, the one of the preferred [`Source`] is served, and of one source
/// that which is valid for longer.
#[derive(Debug, Default)]
pub struct Keyring {
    table: ArcSwap<Table>,
    sets: Mutex<Sets>,
}

/// What the table is made of.
#[derive(Debug, Default)]
struct Sets {
    /// What each source has put in.
    by_source: [Vec<Arc<Certificate>>; Source::ALL.len()],
    /// What the file is called that is shown where no name leads to a certificate.
    fallback: Option<Box<str>>,
}

/// The certificates by what they speak for.
#[derive(Debug, Default)]
struct Table {
    exact: HashMap<Box<str>, Arc<Certificate>>,
    /// By what follows the wildcard.
    wildcards: HashMap<Box<str>, Arc<Certificate>>,
    fallback: Option<Arc<Certificate>>,
}

impl Keyring {
    /// A keyring without a certificate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A keyring whose fallback is the file that is called `label`, once it is put in.
    #[must_use]
    pub fn with_fallback(label: &str) -> Arc<Self> {
        let keyring = Self::new();
        keyring.sets().name_fallback(label);
        keyring
    }

    /// Sets what `source` has, in place of what it had.
    pub fn put(&self, source: Source, certificates: Vec<Arc<Certificate>>) {
        let mut sets = self.sets();
        sets.by_source[source as usize] = certificates;
        self.table.store(Arc::new(sets.table()));
    }

    /// Sets what there is as files, of which the one that is called `fallback` is the fallback.
    pub fn put_files(&self, certificates: Vec<Arc<Certificate>>, fallback: &str) {
        let mut sets = self.sets();
        sets.by_source[Source::Files as usize] = certificates;
        sets.name_fallback(fallback);
        self.table.store(Arc::new(sets.table()));
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificate for `name`, a host or an address as text: one that has it before one with a
    /// wildcard for it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Certificate>> {
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        let table = self.table.load();
        let found = table.exact.get(&*name).or_else(|| {
            let (_, parent) = name
                .split_once('.')
                .filter(|(label, _)| !label.is_empty())?;
            table.wildcards.get(parent)
        });
        found.map(Arc::clone)
    }

    /// The certificate for clients that name no host, or one that no certificate is for.
    #[must_use]
    pub fn fallback(&self) -> Option<Arc<Certificate>> {
        self.table.load().fallback.clone()
    }

    /// All certificates, also those that no name leads to.
    #[must_use]
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        self.sets().by_source.iter().flatten().cloned().collect()
    }
}

impl Sets {
    fn name_fallback(&mut self, label: &str) {
        let label = Some(label).filter(|label| !label.is_empty());
        self.fallback = label.map(Into::into);
    }

    fn table(&self) -> Table {
        let mut table = Table::default();
        for set in &self.by_source {
            table.add(set);
        }
        let mut files = self.by_source[Source::Files as usize].iter();
        let is_fallback = |file: &&Arc<Certificate>| Some(file.label()) == self.fallback.as_deref();
        table.fallback = files.find(is_fallback).map(Arc::clone);
        table
    }
}

impl Table {
    /// Adds one source's certificates for the names that are free.
    fn add(&mut self, set: &[Arc<Certificate>]) {
        let mut set: Vec<_> = set.iter().collect();
        set.sort_by_key(|certificate| std::cmp::Reverse(certificate.not_after()));
        for certificate in set {
            for name in certificate.names() {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut self.wildcards, parent),
                    None => (&mut self.exact, name),
                };
                if !names.contains_key(name) {
                    names.insert(name.into(), Arc::clone(certificate));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Covers as _;

    fn certificate(label: &str, names: &[&str], until: i32) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        let chain = parameters.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        Arc::new(Certificate::from_pem(label, chain.as_bytes(), key.as_bytes()).unwrap())
    }

    #[track_caller]
    fn check(keyring: &Keyring, name: &str, expected: Option<&str>) {
        let found = keyring.find(name);
        let label = found.as_ref().map(|certificate| certificate.label());
        assert_eq!(label, expected, "{name}");
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_of_one_label() {
        let keyring = Keyring::new();
        let wild = certificate("wild", &["*.m3o.app"], 2100);
        let exact = certificate("exact", &["blog.m3o.app", "127.0.0.1"], 2100);
        keyring.put(Source::Files, vec![wild, exact]);
        check(&keyring, "blog.m3o.app", Some("exact"));
        check(&keyring, "BLOG.m3o.app", Some("exact"));
        check(&keyring, "shop.m3o.app", Some("wild"));
        check(&keyring, "127.0.0.1", Some("exact"));
        check(&keyring, "m3o.app", None);
        check(&keyring, ".m3o.app", None);
        check(&keyring, "a.b.m3o.app", None);
        check(&keyring, "evilm3o.app", None);
        check(&keyring, "", None);
    }

    #[test]
    fn files_go_before_acme_and_of_one_source_the_longer_one_serves() {
        let keyring = Keyring::new();
        keyring.put(
            Source::Local,
            vec![certificate("local", &["a.test", "b.test"], 2100)],
        );
        check(&keyring, "a.test", Some("local"));
        keyring.put(Source::Acme, vec![certificate("acme", &["a.test"], 2099)]);
        check(&keyring, "a.test", Some("acme"));
        let files = vec![
            certificate("short", &["a.test"], 2050),
            certificate("long", &["a.test"], 2060),
        ];
        keyring.put(Source::Files, files);
        check(&keyring, "a.test", Some("long"));
        check(&keyring, "b.test", Some("local"));
        keyring.put(Source::Files, Vec::new());
        check(&keyring, "a.test", Some("acme"));
        assert!(keyring.fallback().is_none());
        assert_eq!(keyring.certificates().len(), 2);
    }

    #[test]
    fn the_fallback_is_a_file_and_comes_and_goes_with_it() {
        let keyring = Keyring::with_fallback("main");
        keyring.put(Source::Local, vec![certificate("main", &["a.test"], 2100)]);
        assert!(keyring.fallback().is_none());
        keyring.put(Source::Files, vec![certificate("main", &["b.test"], 2100)]);
        assert!(keyring.fallback().unwrap().covers("b.test"));
        keyring.put(Source::Files, Vec::new());
        assert!(keyring.fallback().is_none());
    }

    #[test]
    fn other_files_may_bring_another_fallback() {
        let keyring = Keyring::with_fallback("main");
        let files = || {
            vec![
                certificate("main", &["a.test"], 2100),
                certificate("other", &["b.test"], 2100),
            ]
        };
        keyring.put(Source::Files, files());
        assert_eq!(keyring.fallback().unwrap().label(), "main");
        keyring.put_files(files(), "other");
        assert_eq!(keyring.fallback().unwrap().label(), "other");
        keyring.put(Source::Files, files());
        assert_eq!(keyring.fallback().unwrap().label(), "other");
        keyring.put_files(files(), "");
        assert!(keyring.fallback().is_none());
    }
}
