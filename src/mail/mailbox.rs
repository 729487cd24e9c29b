//! The mailbox of `dev`: mail that goes nowhere and can be read in a browser.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::Message;

/// The latest mails, in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Mutex<VecDeque<Received>>>);

/// A mail that a [`Mailbox`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// When it came.
    pub at: Timestamp,
    /// The mail.
    pub message: Message,
}

impl Mailbox {
    /// Mails held at most; the oldest goes first.
    pub const CAPACITY: usize = 200;

    /// Puts a mail on top.
    pub fn deliver(&self, message: Message) {
        let mut mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mails.truncate(Self::CAPACITY - 1);
        mails.push_front(Received {
            at: Timestamp::now(),
            message,
        });
    }

    /// What it holds, newest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Received> {
        let mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mails.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_mail_is_on_top_and_the_oldest_makes_room() {
        let mailbox = Mailbox::default();
        for number in 0..=Mailbox::CAPACITY {
            mailbox.deliver(Message {
                to: "a@b.example".to_owned(),
                from_name: String::new(),
                subject: number.to_string(),
                text: String::new(),
            });
        }
        let mails = mailbox.messages();
        assert_eq!(mails.len(), Mailbox::CAPACITY);
        assert_eq!(mails[0].message.subject, "200");
        assert_eq!(mails[199].message.subject, "1");
    }
}
