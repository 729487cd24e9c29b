//! The JSON that the M3O API takes and gives, as far as the ingress knows it.

use std::borrow::Cow;

use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};

use crate::closed::Closed;

/// An error in the M3O shape: `{"id":"…","code":404,"detail":"…","status":"Not Found"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMessage<'a> {
    /// Who says so: `ingress.api`, `url.Resolve`.
    pub id: Cow<'a, str>,
    /// The HTTP status.
    pub code: u16,
    /// What happened, in words a user understands.
    pub detail: Cow<'a, str>,
    /// The reason phrase of the status.
    pub status: Cow<'a, str>,
}

impl<'a> ErrorMessage<'a> {
    /// An error from `id` with the reason phrase of its status.
    #[must_use]
    pub fn new(id: &'a str, status: StatusCode, detail: &'a str) -> Self {
        Self {
            id: id.into(),
            code: status.as_u16(),
            detail: detail.into(),
            status: status.canonical_reason().unwrap_or("Error").into(),
        }
    }

    /// The message as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and a number always serialise")
    }
}

/// `app/Resolve`, `function/Proxy` and `url/Resolve` by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ById<'a> {
    /// The id.
    pub id: Cow<'a, str>,
}

/// `url/Resolve` by the whole short link.
#[derive(Clone, Serialize, Deserialize)]
pub struct ByShortUrl<'a> {
    /// The short link as a person would paste it.
    #[serde(rename = "shortURL")]
    pub short_url: Cow<'a, str>,
}

/// `user/VerifyEmail`.
#[derive(Serialize, Deserialize)]
pub struct ByToken<'a> {
    /// The token of the mail.
    pub token: Cow<'a, str>,
}

/// What `app/Resolve` and `function/Proxy` give.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Where the backend is.
    pub url: String,
    /// That it takes no requests for now.
    #[serde(
        default,
        deserialize_with = "heard",
        skip_serializing_if = "Option::is_none"
    )]
    pub closed: Option<Closed>,
}

/// Whatever stands there: an answer that was refused for it would leave the app open for as long as the last
/// good one is believed.
fn heard<'de, D: Deserializer<'de>>(said: D) -> Result<Option<Closed>, D::Error> {
    let said = serde_json::Value::deserialize(said)?;
    Ok(Closed::heard(&said))
}

/// What `url/Resolve` gives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkResolved {
    /// Where the short link leads.
    #[serde(rename = "destinationURL")]
    pub destination_url: String,
}

/// What `app/List` gives, as far as the index shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppList {
    /// The apps.
    #[serde(default)]
    pub services: Vec<ListedApp>,
}

/// One app of [`AppList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedApp {
    /// Its id, the label before the app host.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `running`, `paused`, …
    pub status: String,
}

/// Tokens, and URLs, which may carry some.
macro_rules! hidden {
    ($($name:ident$(<$life:lifetime>)?),*) => {$(
        impl std::fmt::Debug for $name$(<$life>)? {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(concat!(stringify!($name), "([hidden])"))
            }
        }
    )*};
}

hidden!(ByShortUrl<'_>, ByToken<'_>, Resolved, LinkResolved);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_is_closed_in_any_words_is_closed() {
        let closed = |said: &str| {
            let json = format!(r#"{{"url":"https://b"{said}}}"#);
            let resolved: Resolved = serde_json::from_str(&json).unwrap();
            assert_eq!(resolved.url, "https://b");
            resolved.closed.map(|closed| closed.status().as_str())
        };
        assert_eq!(closed(""), None);
        assert_eq!(closed(r#","closed":null"#), None);
        let soon = r#","closed":{"status":"maintenance","retry_after":0}"#;
        assert_eq!(closed(soon), Some("maintenance"));
        assert_eq!(
            closed(r#","closed":{"status":"suspended"}"#),
            Some("paused")
        );
        assert_eq!(closed(r#","closed":"for good""#), Some("paused"));
    }
}
