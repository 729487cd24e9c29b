//! An app or a function that takes no requests for now, by word of whoever runs the platform.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// That something is closed, and what its visitors are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Said")]
pub struct Closed {
    status: Status,
    message: String,
    retry_after: u32,
}

/// Why it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Until somebody resumes it.
    Paused,
    /// It is worked on, and will soon be back.
    Maintenance,
}

/// A [`Closed`] as it is written, by anybody.
#[derive(Debug, Deserialize)]
struct Said {
    status: Status,
    #[serde(default)]
    message: String,
    retry_after: Option<u32>,
}

/// What nobody can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadClosed {
    /// More than a page has room for.
    #[error("a message has at most {} bytes", Closed::LONGEST)]
    TooLong,
    /// Nothing to be read.
    #[error("a message has no control characters")]
    Control,
    /// No time at which anybody would come again.
    #[error("the time to come again after is from 1 second to {} days", Closed::LATEST / 86_400)]
    Later,
}

impl Closed {
    /// Bytes of a message.
    const LONGEST: usize = 500;
    /// Seconds.
    const LATEST: u32 = 30 * 86_400;
    /// Where nobody says more.
    const USUAL: u32 = 300;

    /// Closed as `status` says. An empty `message` leaves the usual words; `retry_after` are seconds.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn new(status: Status, message: &str, retry_after: Option<u32>) -> Result<Self, BadClosed> {
        let message = message.trim();
        let retry_after = retry_after.unwrap_or(Self::USUAL);
        if message.len() > Self::LONGEST {
            return Err(BadClosed::TooLong);
        }
        if message.chars().any(char::is_control) {
            return Err(BadClosed::Control);
        }
        if !(1..=Self::LATEST).contains(&retry_after) {
            return Err(BadClosed::Later);
        }
        Ok(Self {
            status,
            message: message.to_owned(),
            retry_after,
        })
    }

    /// What an API says of it, with as much of that as can be told: a word too much opens nothing that is to
    /// be closed. `None` where it says that it is not.
    #[must_use]
    pub fn heard(said: &Value) -> Option<Self> {
        if matches!(said, Value::Null | Value::Bool(false)) {
            return None;
        }
        let status = said.get("status").and_then(Value::as_str);
        let maintenance =
            status.is_some_and(|said| said.eq_ignore_ascii_case(Status::Maintenance.as_str()));
        let message = said.get("message").and_then(Value::as_str);
        let retry_after = match said.get("retry_after") {
            Some(Value::Number(number)) => clamped(number.as_f64().unwrap_or_default()),
            _ => Self::USUAL,
        };
        Some(Self {
            status: match maintenance {
                true => Status::Maintenance,
                false => Status::Paused,
            },
            message: printable(message.unwrap_or_default()),
            retry_after,
        })
    }

    /// Why.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// What visitors of `kind`, an app or a function, are told.
    #[must_use]
    pub fn told(&self, kind: &str) -> String {
        match (&*self.message, self.status) {
            ("", Status::Paused) => format!("this {kind} is paused"),
            ("", Status::Maintenance) => format!("this {kind} is being maintained, back soon"),
            (message, _) => message.to_owned(),
        }
    }

    /// In how many seconds they may come again.
    #[must_use]
    pub fn retry_after(&self) -> u32 {
        self.retry_after
    }
}

/// A time to come again after that can be told.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between the two ends"
)]
fn clamped(seconds: f64) -> u32 {
    seconds.clamp(1.0, f64::from(Closed::LATEST)) as u32
}

/// A message on one line, cut where it is too long.
fn printable(message: &str) -> String {
    let message = message.trim();
    let message = &message[..message.floor_char_boundary(Closed::LONGEST)];
    let blank = |letter: char| if letter.is_control() { ' ' } else { letter };
    message
        .chars()
        .map(blank)
        .collect::<String>()
        .trim()
        .to_owned()
}

impl TryFrom<Said> for Closed {
    type Error = BadClosed;

    fn try_from(said: Said) -> Result<Self, BadClosed> {
        Self::new(said.status, &said.message, said.retry_after)
    }
}

impl Status {
    /// As the API names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What is to become of an app or a function, in the words of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is closed.
    Close(Status),
    /// It takes requests again.
    Resume,
}

impl FromStr for Turn {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Ok(match word {
            "pause" => Self::Close(Status::Paused),
            "maintenance" => Self::Close(Status::Maintenance),
            "resume" => Self::Resume,
            _ => return Err(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_are_told_the_message_or_the_usual_words() {
        let told = |status, message: &str| Closed::new(status, message, None).unwrap().told("app");
        assert_eq!(told(Status::Paused, ""), "this app is paused");
        assert_eq!(
            told(Status::Maintenance, " "),
            "this app is being maintained, back soon"
        );
        assert_eq!(told(Status::Paused, "back at noon"), "back at noon");
    }

    #[test]
    fn what_cannot_be_told_is_refused_also_where_it_is_read() {
        let refused = |message: &str, after| Closed::new(Status::Paused, message, after).err();
        assert_eq!(refused(&"x".repeat(500), None), None);
        assert_eq!(refused(&"x".repeat(501), None), Some(BadClosed::TooLong));
        assert_eq!(refused("a\nb", None), Some(BadClosed::Control));
        assert_eq!(refused("", Some(0)), Some(BadClosed::Later));
        assert_eq!(refused("", Some(2_592_000)), None);
        assert_eq!(refused("", Some(2_592_001)), Some(BadClosed::Later));
        let read = |json: &str| serde_json::from_str::<Closed>(json);
        assert_eq!(read(r#"{"status":"paused"}"#).unwrap().retry_after(), 300);
        assert!(read(r#"{"status":"paused","retry_after":0}"#).is_err());
        assert!(read(r#"{"status":"running"}"#).is_err());
    }

    #[test]
    fn of_what_an_api_says_as_much_is_taken_as_can_be_told() {
        use serde_json::json;

        let check = |said: Value, status: &str, message: &str, retry_after: u32| {
            let heard = Closed::heard(&said).unwrap();
            assert_eq!(heard.status().as_str(), status, "{said}");
            assert_eq!(heard.message, message, "{said}");
            assert_eq!(heard.retry_after(), retry_after, "{said}");
            // It is one that an operator could have made.
            let remade = Closed::new(heard.status, &heard.message, Some(heard.retry_after));
            assert_eq!(remade, Ok(heard));
        };
        let all = json!({"status": "maintenance", "message": "soon", "retry_after": 60});
        check(all, "maintenance", "soon", 60);
        check(json!({"status": "paused"}), "paused", "", 300);
        check(json!({"status": "suspended", "more": 1}), "paused", "", 300);
        check(
            json!({"message": "\u{7f}a\r\nb\u{7f} "}),
            "paused",
            "a  b",
            300,
        );
        check(json!({"message": 7, "status": 7}), "paused", "", 300);
        let long = format!("{}ä", "x".repeat(499));
        check(json!({ "message": long }), "paused", &"x".repeat(499), 300);
        let after = |retry_after: Value| json!({ "retry_after": retry_after });
        check(after(json!(0)), "paused", "", 1);
        check(after(json!(-7)), "paused", "", 1);
        check(after(json!(1.5)), "paused", "", 1);
        check(after(json!(1e300)), "paused", "", 2_592_000);
        check(after(json!("60")), "paused", "", 300);
        for anything in [json!(true), json!("paused"), json!({}), json!([]), json!(1)] {
            check(anything, "paused", "", 300);
        }
        for open in [Value::Null, json!(false)] {
            assert_eq!(Closed::heard(&open), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_an_api_says_an_operator_could_have_said_it(
            status in "\\PC{0,12}",
            message: String,
            repeated in 1_usize..200,
            retry_after: f64,
        ) {
            let message = message.repeat(repeated);
            let said = serde_json::json!({
                "status": status,
                "message": message,
                "retry_after": retry_after,
            });
            let heard = Closed::heard(&said).unwrap();
            let remade = Closed::new(heard.status, &heard.message, Some(heard.retry_after));
            proptest::prop_assert_eq!(remade, Ok(heard));
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let closed = Closed::new(Status::Maintenance, "soon", Some(60)).unwrap();
        let json = serde_json::to_string(&closed).unwrap();
        assert_eq!(
            json,
            r#"{"status":"maintenance","message":"soon","retry_after":60}"#
        );
        assert_eq!(serde_json::from_str::<Closed>(&json).unwrap(), closed);
    }
}
