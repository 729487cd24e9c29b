//! Answers to clients whose request is not there to be answered: written as bytes, then closed.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::id::RequestId;

/// Why a connection ends without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The head did not arrive in time.
    HeadTimedOut,
    /// Too many connections.
    Full,
}

/// How long a client may take to accept a few hundred bytes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes the answer and ends the stream. A client that is gone is not waited for.
pub(super) async fn write(mut stream: impl AsyncWrite + Unpin, refusal: Refusal) {
    let answer = refusal.to_bytes();
    let written = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Nobody is left to be told when this fails.
    let _outcome = tokio::time::timeout(PATIENCE, written).await;
}

impl Refusal {
    fn to_bytes(self) -> String {
        let (status, reason, detail, extra) = match self {
            Self::HeadTimedOut => (
                408,
                "Request Timeout",
                "the request did not arrive in time",
                "",
            ),
            Self::Full => (
                503,
                "Service Unavailable",
                "too many connections; try again in a moment",
                "Retry-After: 1\r\n",
            ),
        };
        let body = format!(
            r#"{{"id":"ingress","code":{status},"detail":"{detail}","status":"{reason}"}}"#
        );
        format!(
            "HTTP/1.1 {status} {reason}\r\n\
             Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\
             X-Request-Id: {id}\r\n\
             Proxy-Status: m3o-ingress; error={error}\r\n\
             {extra}Connection: close\r\n\r\n{body}",
            length = body.len(),
            id = RequestId::new().as_str(),
            error = if self == Self::Full {
                "connection_limit_reached"
            } else {
                "http_request_error"
            },
        )
    }
}
