//! A WebSocket over a stream of HTTP/2 (RFC 8441): the answer to a client that asked over HTTP/1.1, and
//! the tunnel behind it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::Carried;
use crate::wire::h2_tunnel::Ends;
use crate::wire::tunnel;

/// The protocol, as the client's `Upgrade` and `:protocol` name it.
pub(super) const WEBSOCKET: &str = "websocket";

/// Whether `headers` ask for a WebSocket.
pub(super) fn is_asked_by(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|protocol| {
        protocol
            .as_bytes()
            .eq_ignore_ascii_case(WEBSOCKET.as_bytes())
    })
}

/// Makes the head of an answer that agrees the one that a client of HTTP/1.1 expects to its `key`: over
/// HTTP/2 there is no key, and no switch (RFC 8441, 5.1).
pub(super) fn agree(response: &mut http::response::Parts, key: Option<&HeaderValue>) {
    response.status = StatusCode::SWITCHING_PROTOCOLS;
    let headers = &mut response.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    if let Some(key) = key {
        let accept = tunnel::accept(key.as_bytes());
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
}

/// A stream as the other end of a tunnel. Dropped before both sides have ended, it is reset.
#[derive(Debug)]
pub(super) struct Through {
    ends: Ends,
    /// Dropped last: the stream is over when its place is free.
    carried: Carried,
}

impl Through {
    pub(super) fn new(ends: Ends, carried: Carried) -> Self {
        Self { ends, carried }
    }
}

impl AsyncRead for Through {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.ends).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            this.carried.shared().traffic().was_useful();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Through {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().ends).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().ends).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().ends).poll_shutdown(context)
    }
}
