//! A WebSocket over a stream of HTTP/2 (RFC 8441): the answer to a client that asked over HTTP/1.1, and
//! the tunnel behind it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::Carried;
use crate::wire::h2_body;

/// The protocol, as the client's `Upgrade` and `:protocol` name it.
pub(super) const WEBSOCKET: &str = "websocket";

/// What a server of HTTP/1.1 adds to the key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

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
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept(key));
    }
}

fn accept(key: &HeaderValue) -> HeaderValue {
    let text = [key.as_bytes(), GUID].concat();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &text);
    HeaderValue::try_from(BASE64_STANDARD.encode(hash)).expect("base64 is visible ASCII")
}

/// A stream as the other end of a tunnel. Dropped before both sides have ended, it is reset.
#[derive(Debug)]
pub(super) struct Through {
    to: SendStream<Bytes>,
    from: RecvStream,
    /// What was received and not read yet.
    ahead: Bytes,
    /// Dropped last: the stream is over when its place is free.
    carried: Carried,
}

impl Through {
    pub(super) fn new(to: SendStream<Bytes>, from: RecvStream, carried: Carried) -> Self {
        Self {
            to,
            from,
            ahead: Bytes::new(),
            carried,
        }
    }
}

impl AsyncRead for Through {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ahead.is_empty() {
            match ready!(this.from.poll_data(context)) {
                Some(Ok(data)) => this.ahead = data,
                Some(Err(error)) => return Poll::Ready(Err(h2_body::to_io(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead.split_to(length));
        // It fails where the stream is over, and then there is nothing to give back.
        let _released = this.from.flow_control().release_capacity(length);
        this.carried.shared().traffic().was_useful();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Through {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(h2_body::poll_room(&mut this.to, data.len(), context)).map_err(h2_body::to_io)?;
        let length = this.to.capacity().min(data.len());
        let piece = Bytes::copy_from_slice(&data[..length]);
        let sent = this.to.send_data(piece, false);
        Poll::Ready(sent.map(|()| length).map_err(h2_body::to_io))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.get_mut().to.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(h2_body::to_io))
    }
}
