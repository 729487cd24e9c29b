//! A connection that has switched protocols: bytes go both ways as they are.

use std::any::Any;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::Instant;

/// A stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// The end of a tunnel that a response with status 101 brings along.
pub struct Tunnel {
    stream: Box<dyn Duplex>,
    /// How long nothing may move; zero: for ever.
    idle: Duration,
    /// Kept as long as the tunnel stands.
    held: Option<Box<dyn Any>>,
}

impl Tunnel {
    /// A tunnel to whoever is at the other end of `stream`.
    #[must_use]
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            idle: Duration::ZERO,
            held: None,
        }
    }

    /// Ends it when nothing has moved for `idle` (zero: never), and keeps `held` as long as it stands.
    pub fn hold(&mut self, idle: Duration, held: impl Any) {
        self.idle = idle;
        self.held = Some(Box::new(held));
    }

    /// The stream to the other end.
    #[cfg(test)]
    pub(crate) fn into_stream(self) -> Box<dyn Duplex> {
        self.stream
    }

    /// Joins `client` with the other end until both have ended, or nothing moves any more.
    pub async fn join(mut self, mut client: impl Duplex) {
        // However it ends, both ends are closed by being dropped.
        if self.idle.is_zero() {
            let _ended = copy_bidirectional(&mut client, &mut self.stream).await;
            return;
        }
        let moved = Rc::new(Cell::new(Instant::now()));
        let mut client = Watched {
            stream: client,
            moved: Rc::clone(&moved),
        };
        tokio::select! {
            _ended = copy_bidirectional(&mut client, &mut self.stream) => {}
            () = quiet_for(self.idle, &moved) => {}
        }
    }
}

/// An extension of a request that asks for a WebSocket over HTTP/2 (RFC 8441), and looks like the
/// upgrade of HTTP/1.1 that it becomes. The key in it is ours, so the answer is ours to check.
#[derive(Debug, Clone)]
pub struct Connect {
    /// What `Sec-WebSocket-Accept` must be (RFC 6455, 4.1).
    pub accept: HeaderValue,
}

/// What `Sec-WebSocket-Accept` answers to `key` (RFC 6455, 4.2.2).
///
/// # Panics
/// Never: base64 is visible ASCII.
#[must_use]
pub fn accept(key: &[u8]) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    HeaderValue::try_from(BASE64_STANDARD.encode(hash)).expect("base64 is visible ASCII")
}

/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tunnel")
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// Waits until nothing has moved for `idle`.
async fn quiet_for(idle: Duration, moved: &Cell<Instant>) {
    loop {
        let until = moved.get() + idle;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// A stream that notes when bytes last moved, in either direction.
struct Watched<S> {
    stream: S,
    moved: Rc<Cell<Instant>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if polled.is_ready() {
            this.moved.set(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, data);
        if polled.is_ready() {
            this.moved.set(Instant::now());
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_quiet_only_when_nothing_moved_for_the_configured_time() {
        let start = Instant::now();
        let moved = Cell::new(start);
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                moved.set(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = moving => {}
            () = quiet_for(Duration::from_secs(10), &moved) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 37);
    }
}
