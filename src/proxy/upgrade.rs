//! Requests that turn their connection into a tunnel: WebSockets, and other protocols by 101.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::wire::{Request, Response};

/// A client's wish for another protocol.
#[derive(Debug)]
pub(super) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// What `request` asks for, if it is one that is passed on (RFC 9110, 7.8).
    ///
    /// HTTP/1.0 has no upgrades; HTTP/2 in the clear and TLS are never negotiated through us.
    pub(super) fn asked_by(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let mut protocols = headers.get_all(header::UPGRADE).iter();
        let protocol = protocols.next()?;
        let single = protocols.next().is_none() && !protocol.as_bytes().contains(&b',');
        let asked = single
            && request.method() == Method::GET
            && request.version() == Version::HTTP_11
            && names_upgrade(headers)
            && is_passed_on(protocol);
        let client = request.extensions().get::<OnUpgrade>().filter(|_| asked)?;
        Some(Self {
            protocol: protocol.clone(),
            client: client.clone(),
        })
    }

    /// Whether the wish is for a WebSocket (RFC 6455).
    pub(super) fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Says so in the head of a message, after what belonged to the other connection is gone.
    pub(super) fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// Whether `response` agrees to this wish.
    pub(super) fn is_granted_by(&self, response: &Response) -> bool {
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && response
                .headers()
                .get(header::UPGRADE)
                .is_some_and(|granted| {
                    granted
                        .as_bytes()
                        .eq_ignore_ascii_case(self.protocol.as_bytes())
                })
    }

    /// Joins the client with whoever granted the wish, as a task of `tasks`, until both have ended
    /// or nothing has moved for `idle` (zero: for ever).
    ///
    /// A response without a connection of its own is one whose maker speaks to the client itself.
    /// `held` is kept as long as the tunnel stands.
    pub(super) fn join(
        self,
        response: &mut Response,
        tasks: &TaskTracker,
        idle: Duration,
        held: impl Sized + 'static,
    ) {
        let Some(server) = response.extensions_mut().remove::<OnUpgrade>() else {
            return;
        };
        tasks.spawn_local(async move {
            let _held = held;
            let (Ok(client), Ok(server)) = (self.client.await, server.await) else {
                // One of the two left before the tunnel stood.
                return;
            };
            let mut server = TokioIo::new(server);
            // However it ends, both ends are closed by being dropped.
            if idle.is_zero() {
                let mut client = TokioIo::new(client);
                let _ended = copy_bidirectional(&mut client, &mut server).await;
                return;
            }
            let moved = Rc::new(Cell::new(Instant::now()));
            let mut client = Watched {
                stream: TokioIo::new(client),
                moved: Rc::clone(&moved),
            };
            tokio::select! {
                _ended = copy_bidirectional(&mut client, &mut server) => {}
                () = quiet_for(idle, &moved) => {}
            }
        });
    }
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    })
}

fn is_passed_on(protocol: &HeaderValue) -> bool {
    let name = protocol
        .as_bytes()
        .split(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    !name.is_empty()
        && ![&b"h2c"[..], b"h2", b"http", b"tls"]
            .iter()
            .any(|refused| name.eq_ignore_ascii_case(refused))
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

    #[test]
    fn http2_and_tls_are_not_negotiated_through_us() {
        let passed = |protocol: &'static str| is_passed_on(&HeaderValue::from_static(protocol));
        assert!(passed("websocket"));
        assert!(passed("WebSocket"));
        assert!(passed("my-protocol/1"));
        for protocol in ["h2c", "H2C", "TLS/1.0", "HTTP/2.0", "h2", ""] {
            assert!(!passed(protocol), "{protocol}");
        }
    }
}
