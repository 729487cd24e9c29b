//! Sends what waits in a queue, again and again until it left or was given up.

use jiff::{SignedDuration, Timestamp};

use super::Message;
use crate::telemetry::platform::Platform as Series;

/// A mail that waits, and what was tried already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Tells it from others, for the queue.
    pub id: String,
    /// When it was written.
    pub since: Timestamp,
    /// How often it could not be sent.
    pub attempts: u32,
    /// The mail.
    pub message: Message,
}

/// Where mail waits. Waits itself where it cannot answer: it never fails.
pub trait Queue {
    /// The next mail that is due, as soon as one is. It stays in the queue.
    fn next_due(&self) -> impl Future<Output = Queued>;

    /// Removes a mail: it left, or was given up.
    fn done(&self, mail: &Queued) -> impl Future<Output = ()>;

    /// Keeps a mail that could not be sent until `due`.
    fn retry(&self, mail: &Queued, due: Timestamp) -> impl Future<Output = ()>;
}

/// Takes a mail to its server.
pub trait Transport {
    /// Sends one mail.
    fn send(&self, message: &Message) -> impl Future<Output = Result<(), SendError>>;
}

impl<T: Transport> Transport for &T {
    async fn send(&self, message: &Message) -> Result<(), SendError> {
        T::send(self, message).await
    }
}

/// Why a mail did not leave. Says nothing of whom it was for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The server will never take it (a reply of 5xx).
    #[error("the mail server refused it for good ({0})")]
    Refused(String),
    /// It may be taken later.
    #[error("the mail server did not take it ({0})")]
    Later(String),
}

/// A queue and the way out of it.
#[derive(Debug)]
pub struct Outbox<'a, Q, T> {
    queue: Q,
    transport: T,
    series: &'a Series,
}

impl<'a, Q: Queue, T: Transport> Outbox<'a, Q, T> {
    /// Sends from `queue` over `transport`, and counts what became of each mail.
    pub fn new(queue: Q, transport: T, series: &'a Series) -> Self {
        Self {
            queue,
            transport,
            series,
        }
    }

    /// Sends until `stop` is there. A mail that is under way then is sent to its end: dropped in the
    /// middle it would be sent once more by the next one.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let mail = tokio::select! {
                biased;
                () = &mut stop => return,
                mail = self.queue.next_due() => mail,
            };
            self.send(&mail).await;
        }
    }

    async fn send(&self, mail: &Queued) {
        let outcome = self.transport.send(&mail.message).await;
        let now = Timestamp::now();
        match (outcome, next_attempt(mail, now)) {
            (Ok(()), _) => {
                tracing::info!(mail = mail.id, "sent mail {}", mail.id);
                self.series.mail_sent.inc();
                self.queue.done(mail).await;
            }
            (Err(SendError::Later(why)), Some(due)) => {
                tracing::warn!(
                    mail = mail.id,
                    why,
                    "mail {} waits until {due}: {why}",
                    mail.id
                );
                self.series.mail_retried.inc();
                self.queue.retry(mail, due).await;
            }
            (Err(error), _) => {
                tracing::error!(mail = mail.id, %error, "gave mail {} up: {error}", mail.id);
                self.series.mail_given_up.inc();
                self.queue.done(mail).await;
            }
        }
    }
}

/// When to try again after one more failure: 10 s, 20 s, … 1 h; never once it is three days old.
fn next_attempt(mail: &Queued, now: Timestamp) -> Option<Timestamp> {
    if now.duration_since(mail.since) > GIVE_UP {
        return None;
    }
    let seconds = 10_i64 << mail.attempts.min(16);
    now.checked_add(SignedDuration::from_secs(seconds.min(3600)))
        .ok()
}

const GIVE_UP: SignedDuration = SignedDuration::from_hours(72);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn mail(attempts: u32, since: Timestamp) -> Queued {
        Queued {
            id: "1".to_owned(),
            since,
            attempts,
            message: Message {
                to: "a@b.example".to_owned(),
                from_name: String::new(),
                subject: String::new(),
                text: String::new(),
            },
        }
    }

    #[test]
    fn attempts_back_off_to_an_hour_and_end_after_three_days() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let wait = |attempts| {
            let due = next_attempt(&mail(attempts, now), now).unwrap();
            due.duration_since(now).as_secs()
        };
        assert_eq!([wait(0), wait(1), wait(2)], [10, 20, 40]);
        assert_eq!([wait(9), wait(u32::MAX)], [3600, 3600]);
        let old = now - SignedDuration::from_hours(73);
        assert_eq!(next_attempt(&mail(0, old), now), None);
    }

    #[derive(Default)]
    struct Noted(RefCell<Vec<&'static str>>);

    impl Queue for &Noted {
        async fn next_due(&self) -> Queued {
            std::future::pending().await
        }

        async fn done(&self, _mail: &Queued) {
            self.0.borrow_mut().push("done");
        }

        async fn retry(&self, _mail: &Queued, _due: Timestamp) {
            self.0.borrow_mut().push("retry");
        }
    }

    struct Answers(Result<(), SendError>);

    impl Transport for Answers {
        async fn send(&self, _message: &Message) -> Result<(), SendError> {
            self.0.clone()
        }
    }

    async fn check(
        answer: Result<(), SendError>,
        since: Timestamp,
        expected: &str,
        counts: [u64; 3],
    ) {
        let queue = Noted::default();
        let series = Series::default();
        let outbox = Outbox::new(&queue, Answers(answer), &series);
        outbox.send(&mail(0, since)).await;
        assert_eq!(*queue.0.borrow(), [expected]);
        let counted = [
            &series.mail_sent,
            &series.mail_retried,
            &series.mail_given_up,
        ];
        assert_eq!(counted.map(|counter| counter.get()), counts);
    }

    #[tokio::test]
    async fn a_mail_is_kept_until_it_left_or_cannot_leave() {
        let now = Timestamp::now();
        let later = || Err(SendError::Later("450".to_owned()));
        check(Ok(()), now, "done", [1, 0, 0]).await;
        check(later(), now, "retry", [0, 1, 0]).await;
        let old = now - SignedDuration::from_hours(73);
        check(later(), old, "done", [0, 0, 1]).await;
        let refused = Err(SendError::Refused("550".to_owned()));
        check(refused, now, "done", [0, 0, 1]).await;
    }
}
