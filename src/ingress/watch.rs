//! Looks whether a file has changed, by what the system says of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::stamp::Stamp;

/// A file that is looked at again and again.
#[derive(Debug)]
pub(super) struct Watch {
    file: PathBuf,
    /// As it was when it was last taken.
    taken: Option<Stamp>,
    /// As it was at the last look.
    seen: Option<Stamp>,
    next: Option<Instant>,
}

impl Watch {
    pub(super) fn new(file: &Path) -> Self {
        let now = stamp(file);
        Self {
            file: file.to_owned(),
            taken: now,
            seen: now,
            next: None,
        }
    }

    /// Waits until the file is another one than was taken last, and has been so for one look: whoever
    /// writes it may not be done.
    pub(super) async fn changed(&mut self, every: Duration) {
        loop {
            let next = *self.next.get_or_insert_with(|| Instant::now() + every);
            tokio::time::sleep_until(next).await;
            self.next = None;
            let before = self.seen;
            self.seen = self.stamp().await;
            if self.seen != self.taken && self.seen == before {
                return;
            }
        }
    }

    /// Takes the file as it is now: to be called before it is read.
    pub(super) async fn look(&mut self) {
        self.taken = self.stamp().await;
        self.seen = self.taken;
    }

    /// A disk that does not answer holds nobody else.
    async fn stamp(&self) -> Option<Stamp> {
        let file = self.file.clone();
        let looked = tokio::task::spawn_blocking(move || stamp(&file));
        looked.await.unwrap_or(self.seen)
    }
}

/// `None` where there is none.
fn stamp(file: &Path) -> Option<Stamp> {
    std::fs::metadata(file).ok().as_ref().map(Stamp::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    /// Whether a change is seen within so many looks.
    async fn is_seen(watch: &mut Watch, looks: u32) -> bool {
        let patience = EVERY * looks + EVERY / 4;
        tokio::time::timeout(patience, watch.changed(EVERY))
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_once_it_has_been_there_for_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(&file);
        assert!(!is_seen(&mut watch, 3).await);
        std::fs::write(&file, "three").unwrap();
        assert!(!is_seen(&mut watch, 1).await, "it may still be written");
        std::fs::write(&file, "thirteen").unwrap();
        assert!(!is_seen(&mut watch, 1).await, "it was");
        assert!(is_seen(&mut watch, 1).await);
        watch.look().await;
        assert!(!is_seen(&mut watch, 3).await, "once");
        std::fs::remove_file(&file).unwrap();
        assert!(is_seen(&mut watch, 2).await, "gone is a change too");
        watch.look().await;
        assert!(!is_seen(&mut watch, 3).await, "once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_leads_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["..one", "..two"] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("file"), "same").unwrap();
        }
        // As Kubernetes mounts a ConfigMap.
        std::os::unix::fs::symlink("..one", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/file", path("file")).unwrap();
        let mut watch = Watch::new(&path("file"));
        assert!(!is_seen(&mut watch, 2).await);
        std::os::unix::fs::symlink("..two", path("..new")).unwrap();
        std::fs::rename(path("..new"), path("..data")).unwrap();
        assert!(is_seen(&mut watch, 2).await);
    }
}
