//! What can go wrong in the platform, and how a caller is told. Answers, and logs what is ours.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode, header};

use super::store;
use crate::closed::Closed;
use crate::mail::BadMessage;
use crate::upstream::{self, messages::ErrorMessage};
use crate::wire::{Body, Response};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A field that is missing, of another type, or that makes no sense.
    #[error("{field}: {why}")]
    Field {
        /// As the documentation writes it.
        field: &'static str,
        /// What would be right.
        why: Cow<'static, str>,
    },
    /// The body is no JSON object.
    #[error("the body is not a JSON object: {0}")]
    Body(Cow<'static, str>),
    /// A WebSocket handshake that is none (RFC 6455, 4.2.1).
    #[error("the WebSocket handshake is not one: {0}")]
    Handshake(&'static str),
    /// No key, or an unknown one.
    #[error("a valid API key is needed: send `Authorization: Bearer KEY`")]
    Unauthorized,
    /// A password that does not fit, or nobody to fit it to.
    #[error("the email, username or password is wrong")]
    WrongPassword,
    /// No such service or endpoint.
    #[error("there is no such endpoint")]
    NoEndpoint,
    /// Nothing under this id.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A token that was used, is too old, or never was.
    #[error("the token is unknown, used or expired")]
    BadToken,
    /// Another method than the endpoint takes.
    #[error("the method is not one of this endpoint")]
    Method,
    /// Somebody has it already.
    #[error("this {0} is taken already")]
    Taken(&'static str),
    /// A custom domain that another app has proven.
    #[error("custom_domains: `{0}` is proven by another app already")]
    DomainTaken(String),
    /// The body is larger than 1 MiB.
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// An endpoint of M3O that is not built here.
    #[error("this endpoint is not built yet")]
    NotBuilt,
    /// No mail is configured.
    #[error("no mail is configured")]
    NoMail,
    /// Too much waits already.
    #[error("too many passwords are being checked; try again")]
    Busy,
    /// The function's backend gave no answer.
    #[error("the function is not reachable")]
    Unreachable,
    /// It took too long.
    #[error("the function took too long to answer")]
    TimedOut,
    /// It answered with an error of its own.
    #[error("the function answered with status {0}")]
    Failed(u16),
    /// It answered with something that is no JSON, or too much of it.
    #[error("the function did not answer with a JSON object of at most 4 MiB")]
    BadAnswer,
    /// A function that takes no requests for now.
    #[error("{}", .0.told("function"))]
    Closed(Closed),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The platform itself.
    #[error("something went wrong in the platform")]
    Internal,
}

impl Error {
    /// A field that makes no sense.
    pub(super) fn field(field: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        let why = why.into();
        Self::Field { field, why }
    }

    /// A mail that cannot be sent as it is.
    pub(super) fn mail(error: BadMessage) -> Self {
        let field = match error {
            BadMessage::Address => "email",
            BadMessage::ControlCharacter | BadMessage::TooLong => "subject, fromName",
        };
        Self::field(field, error.to_string())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Field { .. } | Self::Body(_) | Self::Handshake(_) | Self::BadToken => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized | Self::WrongPassword => StatusCode::UNAUTHORIZED,
            Self::NoEndpoint | Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Taken(_) | Self::DomainTaken(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotBuilt | Self::NoMail => StatusCode::NOT_IMPLEMENTED,
            Self::Busy
            | Self::Closed(_)
            | Self::Store(store::Error::Busy | store::Error::Unavailable) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable | Self::Failed(_) | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Store(store::Error::Damaged { .. } | store::Error::Panicked) | Self::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// The error as JSON in the M3O shape, said by `id`.
    pub(super) fn to_json(&self, id: &str) -> String {
        let status = self.status();
        let detail = match self {
            // Where the file is, is not the caller's business.
            Self::Store(store::Error::Damaged { .. }) => "a record is damaged".to_owned(),
            error => error.to_string(),
        };
        ErrorMessage::new(id, status, &detail).to_json()
    }

    /// The answer to a call of `id`, such as `app.Run`.
    pub(super) fn to_response(&self, id: &str) -> Response {
        self.note(id);
        let mut response = Response::new(Body::from(self.to_json(id)));
        let status = self.status();
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, JSON);
        match status {
            // RFC 9110, 15.5.2 wants a challenge with every 401. A wrong password has none that would
            // be true: a client that asks its user for another key does so in vain.
            StatusCode::UNAUTHORIZED if matches!(self, Self::Unauthorized) => {
                fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                fields.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let after = match self {
                    Self::Closed(closed) => closed.retry_after().into(),
                    _ => HeaderValue::from_static("1"),
                };
                fields.insert(header::RETRY_AFTER, after);
            }
            _ => {}
        }
        response
    }

    /// What the ingress is told that has asked `id` for itself.
    pub(super) fn to_upstream(&self, id: &str) -> upstream::Error {
        self.note(id);
        upstream::Error::of(self.status())
    }

    /// Logs what somebody has to look at.
    fn note(&self, id: &str) {
        if let Self::Store(error @ (store::Error::Damaged { .. } | store::Error::Panicked)) = self {
            tracing::error!(endpoint = id, %error, "{error}");
        }
    }
}

/// The content type of every answer but a stream.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_nothing_of_our_files() {
        let error = Error::Store(store::Error::Damaged {
            place: "/secret/path".to_owned(),
            table: "apps",
            key: "blog".to_owned(),
        });
        let json = error.to_json("app.Get");
        assert_eq!(
            json,
            r#"{"id":"app.Get","code":500,"detail":"a record is damaged","status":"Internal Server Error"}"#
        );
    }

    #[test]
    fn an_error_carries_the_fields_that_its_status_asks_for() {
        let field = |error: Error, name| error.to_response("x").headers()[name].clone();
        assert_eq!(field(Error::Unauthorized, "www-authenticate"), "Bearer");
        let login = Error::WrongPassword.to_response("user.Login");
        assert_eq!(login.status(), 401);
        assert!(
            !login.headers().contains_key("www-authenticate"),
            "the key was fine"
        );
        assert_eq!(field(Error::Method, "allow"), "POST");
        assert_eq!(field(Error::Busy, "retry-after"), "1");
        assert_eq!(
            field(Error::Store(store::Error::Unavailable), "retry-after"),
            "1"
        );
    }
}
