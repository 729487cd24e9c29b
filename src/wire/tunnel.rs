//! A connection that has switched protocols: bytes go both ways as they are.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

use super::timer::Timer;
use way::Way;

mod frames;
mod way;

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
    /// What comes from there are the frames of a WebSocket.
    is_websocket: bool,
}

impl Tunnel {
    /// A tunnel to whoever is at the other end of `stream`.
    #[must_use]
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            idle: Duration::ZERO,
            held: None,
            is_websocket: false,
        }
    }

    /// What it carries is a WebSocket (RFC 6455), whose client can be told when we go away.
    pub fn carry_websocket(&mut self) {
        self.is_websocket = true;
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

    /// Joins `client` with the other end until both have ended, or nothing moves any more. For the task
    /// that `timer` belongs to.
    ///
    /// When `going_away` becomes true, the client of a WebSocket is told so by a close frame between two
    /// others. Its answer closes the other end, as if it had closed by itself. `going_away` wakes the task.
    pub async fn join(
        mut self,
        mut client: impl Duplex,
        timer: &Timer,
        mut going_away: impl FnMut(&Context<'_>) -> bool,
    ) {
        let stream = &mut self.stream;
        let mut there = Way::default();
        let mut back = match self.is_websocket {
            true => Way::of_frames(),
            false => Way::default(),
        };
        let mut quiet = None;
        // However it ends, both ends are closed by being dropped.
        poll_fn(|context| {
            if back.can_part() && going_away(context) {
                back.part();
            }
            let mut moved = false;
            let polled = poll_both(
                context,
                &mut there,
                &mut back,
                &mut client,
                stream,
                &mut moved,
            );
            if polled.is_ready() {
                return Poll::Ready(());
            }
            if moved {
                quiet = None;
            }
            match !self.idle.is_zero() && timer.is_stuck(self.idle, &mut quiet) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Both directions: `there` from the client to the other end, and `back`.
fn poll_both(
    context: &mut Context<'_>,
    there: &mut Way,
    back: &mut Way,
    client: &mut impl Duplex,
    other: &mut impl Duplex,
    moved: &mut bool,
) -> Poll<io::Result<()>> {
    let there = there.poll(context, client, other, moved)?;
    ready!(back.poll(context, other, client, moved))?;
    // RFC 6455, 7.1.1: the server ends the connection first, and then it is over.
    match back.has_parted() {
        true => Poll::Ready(Ok(())),
        false => there.map(Ok),
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::super::timer;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_when_nothing_has_moved_for_the_configured_time() {
        let (client, mut outside) = duplex(64);
        let (backend, other_end) = duplex(64);
        let mut tunnel = Tunnel::new(other_end);
        tunnel.hold(Duration::from_secs(10), ());
        let timer = Timer::new();
        let joined = std::pin::pin!(tunnel.join(client, &timer, |_| false));
        let (mut from, mut to) = tokio::io::split(backend);
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                outside.write_all(b"x").await.unwrap();
                assert_eq!(from.read_u8().await.unwrap(), b'x');
            }
            tokio::time::sleep(Duration::from_secs(9)).await;
            to.write_all(b"y").await.unwrap();
            assert_eq!(outside.read_u8().await.unwrap(), b'y');
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        tokio::select! {
            () = moving => {}
            () = timer::drive(&timer, joined) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 46);
    }
}
