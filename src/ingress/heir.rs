//! What a process is given at its start, and how it takes over from one before it.

use std::io;
use std::net::SocketAddr;
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
pub struct Heir(Arc<Channel>);

/// Until the configuration says how long, as by default.
const PATIENCE: Duration = Duration::from_secs(60);

impl Heir {
    /// Takes the sockets of the process on the other end of `channel`.
    ///
    /// # Errors
    /// When they do not come.
    pub fn new(channel: Channel) -> io::Result<(Self, Inherited)> {
        channel.set_patience(PATIENCE)?;
        let sockets = channel.hear_sockets()?;
        Ok((Self(Arc::new(channel)), sockets))
    }

    /// `timeouts.upgrade`.
    pub(super) fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        self.0.set_patience(patience).map_err(Error::Handover)
    }

    /// Asks for what only one process may have, and waits until it is let go of.
    pub(super) fn ask(&self) -> Result<(), Error> {
        let asked = self.0.say(&Word::LetGo).and_then(|()| self.0.hear());
        match asked.map_err(Error::Handover)? {
            Some(Word::Yours) => Ok(()),
            Some(other) => Err(Error::Handover(unexpected(&other))),
            None => Err(Error::Handover(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// This process serves, and accepts at these addresses.
    pub(super) fn ready(&self, taken: Vec<SocketAddr>) -> Result<(), Error> {
        let said = self.0.say(&Word::Ready { taken });
        said.map_err(Error::Handover)
    }

    /// This process ends; the one before goes on.
    pub fn failed(&self, why: &str) {
        // It may be gone, or has handed over already.
        let _heard = self.0.say(&Word::failed(why));
    }

    /// Waits until the process `before`, if any, has stopped what only one is to do.
    pub(super) async fn alone(before: Option<Self>) {
        let Some(before) = before else { return };
        if let Ok(channel) = before.0.another().and_then(AsyncChannel::new) {
            channel.closed().await;
        }
    }
}
