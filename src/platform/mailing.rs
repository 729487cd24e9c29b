//! How the platform's mail leaves: the outbox's queue in the store, or the mailbox of `dev`.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::error::Error;
use super::store::{self, Read, Store, Table, Transaction};
use crate::mail::{Mailbox, Message, Outbox, Queue, Queued, Smtp};
use crate::telemetry::platform::Platform as Series;

/// Where mail goes.
#[derive(Debug)]
pub(super) enum Mail {
    /// Nowhere: what would send one is refused.
    Nowhere,
    /// Into memory, for a page that shows it.
    Mailbox(Mailbox),
    /// Into the queue, and from there to a server.
    Server {
        /// The server.
        smtp: Box<Smtp>,
        /// Rung when something was queued.
        bell: Notify,
        /// Where mail is counted.
        series: Box<Series>,
    },
}

impl Mail {
    /// Refuses a call that would send mail where none can leave.
    pub(super) fn configured(&self) -> Result<(), Error> {
        match self {
            Self::Nowhere => Err(Error::NoMail),
            Self::Mailbox(_) | Self::Server { .. } => Ok(()),
        }
    }

    /// What is to be queued in the transaction that promises the mail.
    pub(super) fn to_queue(&self, message: &Message) -> Option<Message> {
        match self {
            Self::Server { .. } => Some(message.clone()),
            Self::Nowhere | Self::Mailbox(_) => None,
        }
    }

    /// That transaction is durable.
    pub(super) fn written(&self, message: Message) {
        match self {
            Self::Nowhere => {}
            Self::Mailbox(mailbox) => mailbox.deliver(message),
            Self::Server { bell, series, .. } => {
                series.mail_queue.inc();
                bell.notify_one();
            }
        }
    }

    /// Sends what is queued, until `stop` is there.
    pub(super) async fn run(&self, store: &Store, stop: impl Future<Output = ()>) {
        match self {
            Self::Nowhere | Self::Mailbox(_) => stop.await,
            Self::Server { smtp, bell, series } => {
                let queue = StoreQueue {
                    store,
                    bell,
                    series,
                };
                Outbox::new(queue, smtp.as_ref(), series).run(stop).await;
            }
        }
    }
}

/// Puts a mail into the queue, to be sent at once.
pub(super) fn enqueue(tx: &mut Transaction<'_>, message: Message) {
    let now = Timestamp::now();
    let waiting = Waiting {
        since: now,
        attempts: 0,
        message,
    };
    tx.put(Table::Mail, &key(now), &waiting);
}

/// How many mails wait.
pub(super) fn queued(view: &store::View<'_>) -> Result<usize, store::Error> {
    Ok(view.keys(Table::Mail, usize::MAX)?.len())
}

/// A mail as it is kept, under a key that begins with the second when it is due.
#[derive(Clone, Serialize, Deserialize)]
struct Waiting {
    since: Timestamp,
    attempts: u32,
    message: Message,
}

/// The table of mail as the outbox sees it.
struct StoreQueue<'a> {
    store: &'a Store,
    bell: &'a Notify,
    series: &'a Series,
}

impl StoreQueue<'_> {
    /// The mail that is due first. A damaged one is left where it is, and holds up no other.
    fn first(&self) -> Result<Option<(String, Waiting)>, store::Error> {
        let view = self.store.read()?;
        for key in view.keys(Table::Mail, LOOK_AT)? {
            match view.get(Table::Mail, &key) {
                Ok(Some(waiting)) => return Ok(Some((key, waiting))),
                Ok(None) => {}
                Err(error @ store::Error::Damaged { .. }) => {
                    tracing::error!(%error, "a mail cannot be sent: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes until the store takes it: what was sent must not be sent again.
    async fn write(&self, work: impl Fn(&mut Transaction<'_>) + Clone + Send + 'static) {
        loop {
            let work = work.clone();
            let written = self.store.write(move |tx| {
                work(tx);
                Ok::<_, store::Error>(())
            });
            let Err(error) = written.await else { return };
            tracing::warn!(%error, "the queue of mail waits for the store: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Queue for StoreQueue<'_> {
    async fn next_due(&self) -> Queued {
        loop {
            let wait = match self.first() {
                Ok(Some((key, waiting))) => {
                    let wait = due(&key).saturating_sub(Timestamp::now().as_second());
                    let Some(wait) = u64::try_from(wait).ok().filter(|wait| *wait > 0) else {
                        return Queued {
                            id: key,
                            since: waiting.since,
                            attempts: waiting.attempts,
                            message: waiting.message,
                        };
                    };
                    // The wall clock may be set meanwhile: look again.
                    Duration::from_secs(wait.min(60))
                }
                Ok(None) => Duration::from_secs(60),
                Err(error) => {
                    tracing::error!(%error, "the queue of mail cannot be read: {error}");
                    PAUSE
                }
            };
            // Whichever comes first.
            let _ = tokio::time::timeout(wait, self.bell.notified()).await;
        }
    }

    async fn done(&self, mail: &Queued) {
        let id = mail.id.clone();
        self.write(move |tx| tx.delete(Table::Mail, &id)).await;
        self.series.mail_queue.dec();
    }

    async fn retry(&self, mail: &Queued, due: Timestamp) {
        let (old, new) = (mail.id.clone(), key(due));
        let waiting = Waiting {
            since: mail.since,
            attempts: mail.attempts.saturating_add(1),
            message: mail.message.clone(),
        };
        self.write(move |tx| {
            tx.delete(Table::Mail, &old);
            tx.put(Table::Mail, &new, &waiting);
        })
        .await;
    }
}

/// Sorts by the time when a mail is due.
fn key(due: Timestamp) -> String {
    format!("{:012}-{}", due.as_second(), uuid::Uuid::now_v7())
}

fn due(key: &str) -> i64 {
    let second = key.split('-').next().unwrap_or_default();
    second.parse().unwrap_or_default()
}

/// Mails at the head of the queue that may be damaged before it is taken for empty.
const LOOK_AT: usize = 16;

/// After a fault of the store.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn message(subject: &str) -> Message {
        Message {
            to: "a@b.example".to_owned(),
            from_name: String::new(),
            subject: subject.to_owned(),
            text: String::new(),
        }
    }

    #[tokio::test]
    async fn queued_mail_is_there_after_reopening_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let bell = Notify::new();
        let store = Store::unwatched(&path).unwrap();
        let queue = StoreQueue {
            store: &store,
            bell: &bell,
            series: &Series::default(),
        };
        queue.write(|tx| enqueue(tx, message("one"))).await;
        drop(store);

        let store = Store::unwatched(&path).unwrap();
        let queue = StoreQueue {
            store: &store,
            bell: &bell,
            series: &Series::default(),
        };
        let mail = queue.next_due().await;
        assert_eq!(mail.message.subject, "one");
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(3600);
        queue.retry(&mail, later).await;
        let (key, waiting) = queue.first().unwrap().unwrap();
        assert_eq!((due(&key), waiting.attempts), (later.as_second(), 1));
        assert_eq!(waiting.since, mail.since);

        queue.write(|tx| enqueue(tx, message("two"))).await;
        let second = queue.next_due().await;
        assert_eq!(second.message.subject, "two", "one is not due yet");
        queue.done(&second).await;
        let (left, _) = queue.first().unwrap().unwrap();
        assert_eq!(left, key);
    }

    #[tokio::test]
    async fn the_bell_wakes_who_waits_for_mail() {
        let store = Store::unwatched(Path::new("memory")).unwrap();
        let bell = Notify::new();
        let queue = StoreQueue {
            store: &store,
            bell: &bell,
            series: &Series::default(),
        };
        let ring = async {
            queue.write(|tx| enqueue(tx, message("one"))).await;
            bell.notify_one();
        };
        let (mail, ()) = tokio::join!(queue.next_due(), ring);
        assert_eq!(mail.message.subject, "one");
    }
}
