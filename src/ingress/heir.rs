//! What a process is given at its start, and how it takes over from one before it.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use crate::server::inherited::Inherited;
use crate::server::notify::Notifier;
use crate::server::passing::{AsyncChannel, Channel, Word, unexpected};

/// What a process was started with beside its configuration.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Sockets that another process bound.
    pub sockets: Inherited,
    /// The process that hands over to this one.
    pub before: Option<Heir>,
    /// Whom to tell how the service is.
    pub notifier: Notifier,
}

/// Speaks to the process before. A clone speaks to the same.
#[derive(Debug, Clone)]
pub struct Heir {
    channel: Arc<Channel>,
    /// The file that it lets go of.
    store: Option<Arc<Path>>,
}

/// Until the configuration says how long, as by default.
const PATIENCE: Duration = Duration::from_secs(60);

impl Heir {
    /// Takes the sockets of the process on the other end of `channel`, which has the file `store` open, if
    /// any.
    ///
    /// # Errors
    /// When they do not come. The process before hears why.
    pub fn new(channel: Channel, store: Option<&Path>) -> io::Result<(Self, Inherited)> {
        channel.set_patience(PATIENCE)?;
        let heard = channel.hear_sockets();
        let heir = Self {
            channel: Arc::new(channel),
            store: store.map(Arc::from),
        };
        if let Err(error) = &heard {
            heir.failed(&error.to_string());
        }
        Ok((heir, heard?))
    }

    /// Whether the file at `store` is the one that the process before has open, or had.
    pub(super) fn hands_over(&self, store: &Path) -> bool {
        let file = |path: &Path| path.metadata().ok();
        let own = self.store.as_deref().and_then(file).zip(file(store));
        own.is_some_and(|(theirs, ours)| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
    }

    /// `timeouts.upgrade`.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        self.channel.set_patience(patience).map_err(Error::Handover)
    }

    /// Asks for what only one process may have, and waits until it is let go of.
    pub(super) fn ask(&self) -> Result<(), Error> {
        let channel = &self.channel;
        let asked = channel.say(&Word::LetGo).and_then(|()| channel.hear());
        match asked.map_err(Error::Handover)? {
            Some(Word::Yours) => Ok(()),
            Some(other) => Err(Error::Handover(unexpected(&other))),
            None => Err(Error::Handover(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// This process serves, and accepts at these addresses.
    pub(super) fn ready(&self, taken: Vec<SocketAddr>) -> Result<(), Error> {
        let said = self.channel.say(&Word::Ready { taken });
        said.map_err(Error::Handover)
    }

    /// This process ends; the one before goes on.
    pub fn failed(&self, why: &str) {
        // It may be gone, or has handed over already.
        let _heard = self.channel.say(&Word::failed(why));
    }

    /// Waits until the process `before`, if any, has stopped what only one is to do.
    pub(super) async fn alone(before: Option<Self>) {
        let Some(before) = before else { return };
        if let Ok(channel) = before.channel.another().and_then(AsyncChannel::new) {
            channel.closed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_handed_over_where_it_is_the_same_file_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("store"), "").unwrap();
        std::fs::write(path("other"), "").unwrap();
        std::os::unix::fs::symlink(path("store"), path("link")).unwrap();
        let heir = |store: Option<&str>| Heir {
            channel: Arc::new(Channel::pair().unwrap().0),
            store: store.map(|name| path(name).into()),
        };
        let before = heir(Some("store"));
        assert!(before.hands_over(&path("store")));
        assert!(before.hands_over(&path("link")));
        assert!(!before.hands_over(&path("other")));
        assert!(!before.hands_over(&path("none")));
        assert!(!heir(Some("none")).hands_over(&path("none")));
        assert!(!heir(None).hands_over(&path("store")), "it had none open");
    }
}
