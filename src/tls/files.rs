//! A folder of `NAME.crt` and `NAME.key` pairs, looked at again and again.
//!
//! What cannot be read, does not belong together or is half there leaves the last good pair in place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::certificate::{self, BadPair, Certificate};
use crate::stamp::Stamp;

/// A folder of pairs, as it was when it was last looked at.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    pairs: BTreeMap<Box<str>, Pair>,
    /// Why it could not be listed the last time.
    unlisted: Option<String>,
}

/// How closely pairs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The names of certificates are read; their files are read again, with the keys, when those are asked
    /// for.
    Names,
    /// Each key is read, and checked against its certificate.
    Keys,
}

/// Why the files of one name are no certificate to serve with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFiles {
    /// One of the two is not there.
    #[error(
        "there is no {0}: a certificate needs both NAME.crt, with its whole chain, and NAME.key"
    )]
    Missing(PathBuf),
    /// One cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(PathBuf, String),
    /// They are no pair.
    #[error(transparent)]
    Pair(#[from] BadPair),
}

/// The files of one name.
#[derive(Debug, Default)]
struct Pair {
    /// What was read last; `None`: it is to be read again, whatever it looks like.
    read: Option<[Stamp; 2]>,
    /// The last one that could be served.
    good: Option<Arc<Certificate>>,
    /// What is wrong with what is there now.
    bad: Option<BadFiles>,
    /// Whether both files were not there the last time.
    gone: bool,
}

/// No chain and no key is larger.
const LARGEST: u64 = 1 << 20;
/// A file that was changed so shortly before it was read may have been changed once more without
/// looking different.
const SETTLED: Duration = Duration::from_secs(2);

impl Folder {
    /// A folder that nobody has looked at yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            pairs: BTreeMap::new(),
            unlisted: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at all files; whether other certificates are to be served than before.
    ///
    /// A pair of which nothing is left is dropped when it is missed a second time, since whoever puts
    /// new files in place may take the old ones away first.
    ///
    /// # Errors
    /// When the folder cannot be listed: then all that is known stays.
    pub fn scan(&mut self, depth: Depth) -> io::Result<bool> {
        let labels = labels(&self.path)?;
        let mut changed = false;
        self.pairs.retain(|label, pair| {
            let gone = !labels.contains(label);
            let dropped = gone && std::mem::replace(&mut pair.gone, gone);
            if !gone {
                pair.gone = false;
            }
            if dropped {
                tracing::info!(certificate = %label, "both files of a certificate are gone");
                changed |= pair.good.is_some();
            }
            !dropped
        });
        for label in labels {
            let file = |ending| self.path.join(format!("{label}.{ending}"));
            let files = [file("crt"), file("key")];
            let pair = self.pairs.entry(label.clone()).or_default();
            changed |= pair.look(&label, &files, depth);
        }
        Ok(changed)
    }

    /// As [`scan`](Self::scan) with keys; what is wrong with the folder itself is logged once. One that
    /// never was there is needed by nobody.
    pub fn watch(&mut self) -> bool {
        match self.scan(Depth::Keys) {
            Ok(changed) => {
                self.unlisted = None;
                changed
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.pairs.is_empty() => false,
            Err(error) => {
                let told = error.to_string();
                if self.unlisted.as_ref() != Some(&told) {
                    let folder = self.path.display();
                    tracing::error!(%folder, %error, "the folder of certificates cannot be read; those that are known stay");
                    self.unlisted = Some(told);
                }
                false
            }
        }
    }

    /// Whether one can be served: keys are read until one is good.
    pub fn can_serve(&mut self) -> bool {
        self.pairs
            .iter_mut()
            .any(|(label, pair)| pair.is_good(label))
    }

    /// Whether the one that is called `label` can be served, with its key.
    pub fn can_serve_as(&mut self, label: &str) -> bool {
        let pair = self.pairs.get_mut(label);
        pair.is_some_and(|pair| pair.is_good(label))
    }

    /// The certificates that can be served, as far as is known.
    #[must_use]
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        let good = self.pairs.values().filter_map(|pair| pair.good.as_ref());
        good.map(Arc::clone).collect()
    }

    /// The names whose files are no certificate now, and why.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &BadFiles)> {
        self.pairs
            .iter()
            .filter_map(|(label, pair)| Some((&**label, pair.bad.as_ref()?)))
    }
}

/// The names that stand before `.crt` and `.key`. What begins with a dot is nobody's business.
fn labels(folder: &Path) -> io::Result<BTreeSet<Box<str>>> {
    let mut labels = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let label = name.to_str().and_then(|name| {
            name.strip_suffix(".crt")
                .or_else(|| name.strip_suffix(".key"))
        });
        if let Some(label) = label.filter(|label| !label.is_empty() && !label.starts_with('.')) {
            labels.insert(label.into());
        }
    }
    Ok(labels)
}

impl Pair {
    /// Looks at the two files; whether another certificate is to be served than before.
    fn look(&mut self, label: &str, files: &[PathBuf; 2], depth: Depth) -> bool {
        let stamps = match stamps(files) {
            Ok(stamps) => stamps,
            Err(bad) => return self.keep(label, bad),
        };
        if self.read == Some(stamps) && self.bad.is_none() {
            // One that was taken for its names may turn out to be none.
            return depth == Depth::Keys && self.good.is_some() && !self.is_good(label);
        }
        match read(label, files, &stamps, depth) {
            Ok(certificate) => self.take(label, certificate, stamps),
            Err(bad) => self.keep(label, bad),
        }
    }

    /// Whether there is one that can be served, with its key.
    fn is_good(&mut self, label: &str) -> bool {
        if let Some(Err(bad)) = self.good.as_ref().map(|good| good.key()) {
            let bad = bad.clone().into();
            self.keep(label, bad);
        }
        self.good.is_some()
    }

    /// Leaves what is served as it is, as long as its key is at hand; whether it is not.
    fn keep(&mut self, label: &str, bad: BadFiles) -> bool {
        let lost = self
            .good
            .take_if(|good| !good.is_read() || good.key().is_err());
        if self.bad.as_ref() != Some(&bad) {
            match &self.good {
                Some(_) => {
                    tracing::error!(certificate = label, error = %bad, "a certificate cannot be read; the one before is served on");
                }
                None => {
                    tracing::error!(certificate = label, error = %bad, "a certificate cannot be read, so it is not served");
                }
            }
        }
        self.bad = Some(bad);
        self.read = None;
        lost.is_some()
    }

    fn take(&mut self, label: &str, certificate: Certificate, stamps: [Stamp; 2]) -> bool {
        let is_settled = stamps.iter().all(is_settled);
        self.read = Some(stamps).filter(|_| is_settled);
        self.bad = None;
        if let Some(good) = &self.good
            && good.is_same(&certificate)
        {
            good.adopt(certificate);
            return false;
        }
        let not_after = certificate.not_after();
        if not_after < Timestamp::now() {
            tracing::warn!(certificate = label, %not_after, "a certificate has ended; clients refuse it");
        } else if self.good.is_some() {
            tracing::info!(certificate = label, %not_after, "a new certificate is served");
        }
        self.good = Some(Arc::new(certificate));
        true
    }
}

/// Of both files, before they are read: what changes meanwhile looks different the next time.
fn stamps(files: &[PathBuf; 2]) -> Result<[Stamp; 2], BadFiles> {
    let stamp = |file: &PathBuf| match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => Ok(Stamp::of(&metadata)),
        // Whoever opens a pipe waits for its other end.
        Ok(_) => Err(BadFiles::Unreadable(
            file.clone(),
            "it is no file".to_owned(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(BadFiles::Missing(file.clone()))
        }
        Err(error) => Err(BadFiles::Unreadable(file.clone(), error.to_string())),
    };
    let [chain, key] = files;
    Ok([stamp(chain)?, stamp(key)?])
}

fn read(
    label: &str,
    files: &[PathBuf; 2],
    stamps: &[Stamp; 2],
    depth: Depth,
) -> Result<Certificate, BadFiles> {
    let [chain, key] = files;
    let sizes = stamps.map(|stamp| stamp.size());
    let chain_read = bytes(chain, sizes[0])?;
    Ok(match depth {
        Depth::Names => {
            let files = files.clone();
            Certificate::index(label, &chain_read, move || again(&files, sizes))?
        }
        Depth::Keys => Certificate::from_pem(label, &chain_read, &bytes(key, sizes[1])?)?,
    })
}

/// Reads both files of a pair whose names are known.
fn again(files: &[PathBuf; 2], sizes: [u64; 2]) -> Result<certificate::Pair, BadPair> {
    let [chain, key] = files;
    let lost = |bad: BadFiles| BadPair::Lost(bad.to_string());
    Ok(certificate::Pair {
        chain: bytes(chain, sizes[0]).map_err(lost)?,
        key: bytes(key, sizes[1]).map_err(lost)?,
    })
}

/// What is in a file of about that size.
fn bytes(file: &Path, size: u64) -> Result<Vec<u8>, BadFiles> {
    // With room to see its end.
    let room = usize::try_from(size.min(LARGEST)).unwrap_or(0) + 1;
    let mut bytes = Vec::with_capacity(room);
    let read = File::open(file).and_then(|opened| opened.take(LARGEST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(BadFiles::Unreadable(file.to_owned(), error.to_string())),
    }
}

/// Whether it is so old that a later write gets another one.
fn is_settled(stamp: &Stamp) -> bool {
    let modified = u64::try_from(stamp.modified()).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    match (modified, now) {
        (Ok(modified), Ok(now)) => now.abs_diff(modified) > SETTLED,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
