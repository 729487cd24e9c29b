//! Answers to clients whose request is not there to be answered: written as bytes, then closed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::id::RequestId;
use crate::wire::clock::http_date;
use crate::wire::head::BadHead;
use crate::wire::{Body, Response};

/// Why a connection ends without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head did not arrive in time.
    HeadTimedOut,
    /// What arrived is no head that is taken.
    Head(BadHead),
    /// Too many connections.
    Full,
    /// HTTP without TLS where TLS is spoken.
    Plain,
}

/// How much of the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it.
    Whole,
    /// What answers a HEAD.
    HeadAlone,
}

/// How long a client may take to accept a few hundred bytes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes the answer, with a `promise` of HTTPS, and ends the stream. A client that is gone is not waited
/// for.
pub(super) async fn write(
    mut stream: impl AsyncWrite + Unpin,
    refusal: Refusal,
    form: Form,
    promise: Option<&HeaderValue>,
    id: &RequestId,
) {
    let answer = refusal.to_bytes(form, promise, id);
    let written = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Nobody is left to be told when this fails.
    let _outcome = tokio::time::timeout(PATIENCE, written).await;
}

/// Writes the answer as far as the system takes it at once, and closes: for a stream that must not
/// last.
pub(super) fn write_at_once(stream: TcpStream, refusal: Refusal, id: &RequestId) {
    send_at_once(stream, refusal.to_bytes(Form::Whole, None, id).as_bytes());
}

/// Sends `answer` as far as the system takes it at once, and closes.
pub(super) fn send_at_once(mut stream: TcpStream, answer: &[u8]) {
    let mut unread = [0; 4096];
    // Closing with data unread resets the connection, and the reset may overtake the answer. Whatever
    // fails here: there is nobody left who could be told.
    let _request = stream.read(&mut unread);
    let _answer = stream.write(answer);
    let _end = stream.shutdown(Shutdown::Write);
    let _rest = stream.read(&mut unread);
}

impl Refusal {
    fn to_bytes(self, form: Form, promise: Option<&HeaderValue>, id: &RequestId) -> String {
        let status = self.status();
        let (code, reason) = (
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
        );
        let (error, extra) = match self {
            Self::HeadTimedOut | Self::Head(_) | Self::Plain => ("http_request_error", ""),
            Self::Full => ("connection_limit_reached", "retry-after: 1\r\n"),
        };
        let promise = promise.and_then(|promise| promise.to_str().ok());
        let promise = promise.map(|promise| format!("strict-transport-security: {promise}\r\n"));
        let body = self.to_json();
        let shown = match form {
            Form::Whole => &body,
            Form::HeadAlone => "",
        };
        format!(
            "HTTP/1.1 {code} {reason}\r\n\
             date: {date}\r\n\
             content-type: application/json\r\n\
             content-length: {length}\r\n\
             x-request-id: {id}\r\n\
             proxy-status: m3o-ingress; error={error}\r\n\
             {extra}{promise}connection: close\r\n\r\n{shown}",
            date = http_date().to_str().unwrap_or_default(),
            length = body.len(),
            id = id.as_str(),
            promise = promise.unwrap_or_default(),
        )
    }

    /// The same as an answer over a connection that goes on.
    pub(super) fn to_response(self, promise: Option<HeaderValue>, id: &RequestId) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert("x-request-id", id.to_header());
        let error = HeaderValue::from_static("m3o-ingress; error=http_request_error");
        headers.insert("proxy-status", error);
        if let Some(promise) = promise {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, promise);
        }
        response
    }

    fn to_json(self) -> String {
        let status = self.status();
        let (code, reason) = (
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
        );
        let detail = match self {
            Self::HeadTimedOut => "the request did not arrive in time".to_owned(),
            Self::Head(bad) => bad.to_string(),
            Self::Full => "too many connections; try again in a moment".to_owned(),
            Self::Plain => {
                "this port speaks HTTPS only: use https:// in place of http://".to_owned()
            }
        };
        format!(r#"{{"id":"ingress","code":{code},"detail":"{detail}","status":"{reason}"}}"#)
    }

    /// The status of the answer.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::HeadTimedOut => StatusCode::REQUEST_TIMEOUT,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Plain => StatusCode::BAD_REQUEST,
            Self::Head(bad) => status_of(bad),
        }
    }
}

/// The status of the answer to what is no head.
#[must_use]
pub fn status_of(bad: BadHead) -> StatusCode {
    match bad {
        BadHead::Malformed(_) => StatusCode::BAD_REQUEST,
        BadHead::TargetTooLong => StatusCode::URI_TOO_LONG,
        BadHead::TooLarge | BadHead::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        BadHead::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        BadHead::Coding => StatusCode::NOT_IMPLEMENTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_in_lower_case_as_in_every_other_answer() {
        let answer = Refusal::Full.to_bytes(Form::HeadAlone, None, &RequestId::new());
        for line in answer.trim_end().lines().skip(1) {
            let (name, _) = line.split_once(": ").unwrap();
            assert_eq!(name, name.to_ascii_lowercase());
        }
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
}
