//! Mail: what is sent, how it leaves, and the mailbox of `dev`. Knows no accounts.

use serde::{Deserialize, Serialize};

mod mailbox;
mod outbox;
mod smtp;

pub use mailbox::{Mailbox, Received};
pub use outbox::{Outbox, Queue, Queued, SendError, Transport};
pub use smtp::{BadSmtp, Smtp};

/// `[platform.mail]`: how mail leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The environment variable that holds `smtps://user:password@host:465`.
    pub smtp_url_env: String,
    /// The sender's address.
    pub from: String,
}

/// One mail, plain text. `Debug` shows neither address nor text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The address of who gets it.
    pub to: String,
    /// The name beside the sender's address; may be empty.
    pub from_name: String,
    /// One line.
    pub subject: String,
    /// What it says.
    pub text: String,
}

/// Why a mail cannot be sent to anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// No mail server would take the address.
    #[error("the email address is not one")]
    Address,
    /// A control character in a field of the head could start another field.
    #[error("the subject and the sender's name must be one line")]
    ControlCharacter,
    /// Longer than any mail needs.
    #[error("the subject is longer than 998 characters, or the sender's name than 256")]
    TooLong,
}

impl Message {
    /// Checks what goes into the head of a mail.
    ///
    /// # Errors
    /// When a field could not be sent, or could become more than one field.
    pub fn check(&self) -> Result<(), BadMessage> {
        if [&self.subject, &self.from_name]
            .iter()
            .any(|text| text.contains(char::is_control))
        {
            return Err(BadMessage::ControlCharacter);
        }
        // RFC 5322, 2.1.1: a line has at most 998 characters.
        if self.subject.chars().count() > 998 || self.from_name.chars().count() > 256 {
            return Err(BadMessage::TooLong);
        }
        check_address(&self.to)
    }
}

/// Whether mail could go to `address`.
///
/// # Errors
/// When it is no address alone: no name beside it, nothing that a mail's head could misread.
pub fn check_address(address: &str) -> Result<(), BadMessage> {
    // RFC 5321, 4.5.3.1: a path has at most 256 octets, its angle brackets counted.
    if address.len() > 254 || address.parse::<lettre::Address>().is_err() {
        return Err(BadMessage::Address);
    }
    Ok(())
}

impl std::fmt::Debug for Message {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Message([hidden])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_carry_a_second_field() {
        let check = |to: &str, from_name: &str, subject: &str| {
            let message = Message {
                to: to.to_owned(),
                from_name: from_name.to_owned(),
                subject: subject.to_owned(),
                text: "any\r\n.\r\ntext".to_owned(),
            };
            message.check()
        };
        assert_eq!(check("a@b.example", "Ämt <x>", "\"hello\""), Ok(()));
        for subject in ["a\r\nBcc: x@y.example", "a\nb", "a\rb", "a\0b"] {
            let refused = Err(BadMessage::ControlCharacter);
            assert_eq!(check("a@b.example", "", subject), refused);
            assert_eq!(check("a@b.example", subject, ""), refused);
        }
        for to in [
            "",
            "a",
            "a@",
            "@b",
            "a b@c.example",
            "A <a@b.example>",
            "a@b.example\r\nBcc: x@y.example",
            "a@b.example, c@d.example",
        ] {
            assert_eq!(check(to, "", ""), Err(BadMessage::Address), "{to:?}");
        }
    }

    #[test]
    fn a_message_hides_itself_when_printed() {
        let message = Message {
            to: "canary@b.example".to_owned(),
            from_name: String::new(),
            subject: "canary".to_owned(),
            text: "canary".to_owned(),
        };
        assert!(!format!("{message:?}").contains("canary"));
    }
}
