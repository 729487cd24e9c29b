//! One connection of a client: hyper reads requests from it, a handler answers them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::drain::Drained;
use super::refusal::{self, Refusal};
use crate::settings::{Limits, Timeouts};
use crate::wire::body::Received;
use crate::wire::io::{Io, Overdue, Phase, PhaseLimits};
use crate::wire::timer::Alarm;
use crate::wire::{Body, Handler, Peer};

/// What every connection of a listener is held to.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    phases: PhaseLimits,
    body_stall: Duration,
    body_limit: u64,
    http1: http1::Builder,
}

impl ConnectionSettings {
    /// From the configuration.
    #[must_use]
    pub fn new(timeouts: &Timeouts, limits: &Limits) -> Self {
        let mut http1 = http1::Builder::new();
        let head = usize::try_from(limits.header).unwrap_or(usize::MAX);
        // hyper's own head timer starts with the previous response, so ours is used instead.
        http1
            .header_read_timeout(None)
            .max_header_size(head)
            .max_buf_size(head.max(64 << 10));
        // Told a number, hyper allocates twice for each head; left alone it parses on its stack. A
        // lower limit than its own is the handler's to keep.
        if limits.headers > FIELDS_ON_STACK {
            http1.max_headers(limits.headers);
        }
        Self {
            phases: PhaseLimits {
                idle: timeouts.idle,
                header: timeouts.header,
                response: timeouts.response,
            },
            body_stall: timeouts.body,
            body_limit: limits.body,
            http1,
        }
    }
}

/// Fields of a head that hyper takes unless it is told otherwise.
const FIELDS_ON_STACK: usize = 100;

/// Serves requests on `stream` until it ends, is overdue, or has drained.
pub(super) async fn serve<S, P, H>(
    stream: S,
    permit: P,
    peer: Peer,
    handler: Rc<H>,
    settings: &ConnectionSettings,
    mut drained: Drained,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Unpin + Send + 'static,
    H: Handler + 'static,
{
    let timer = peer.timer.clone();
    let phase = Phase::new(settings.phases, timer.clone());
    let io = TokioIo::new(Io::new(stream, phase.clone(), permit));
    let connected = Rc::new((handler, peer, phase.clone()));
    let (body_limit, body_stall) = (settings.body_limit, settings.body_stall);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let connected = Rc::clone(&connected);
        async move {
            let (handler, peer, phase) = &*connected;
            phase.request_began();
            let request =
                request.map(|incoming| receive(incoming, body_limit, body_stall, peer, phase));
            let response = handler.handle(request, peer).await;
            Ok::<_, Infallible>(response.map(|body| Tracked {
                body,
                phase: phase.clone(),
            }))
        }
    });
    let mut connection = settings.http1.serve_connection(io, service).with_upgrades();
    let mut alarm = Alarm::new(timer);
    let mut draining = false;

    let overdue = poll_fn(|context| {
        loop {
            // How it ended is known to the exchange; a client that broke off needs no other word.
            if Pin::new(&mut connection).poll(context).is_ready() {
                return Poll::Ready(None);
            }
            // A head that is under way is waited for: hyper would close a connection in the middle
            // of its second one.
            if !draining && !phase.is_in_head() && drained.began(context) {
                draining = true;
                if phase.is_idle() {
                    return Poll::Ready(None);
                }
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            if let Some(overdue) = phase.overdue() {
                return Poll::Ready(Some(overdue));
            }
            ready!(alarm.poll(context));
        }
    })
    .await;

    let Some(parts) = connection.into_parts() else {
        // A tunnel has taken the stream over.
        return;
    };
    let stream = parts.io.into_inner();
    if overdue == Some(Overdue::Head) {
        // hyper waits for the rest of the head, so the answer is written past it.
        refusal::write(stream, Refusal::HeadTimedOut).await;
    } else if overdue.is_none() && phase.has_unread_body() {
        linger(stream).await;
    }
}

/// Takes what the client still sends and throws it away for a moment.
///
/// RFC 9112, 9.6: closing with data unread resets the connection, and the reset may overtake the
/// answer that is on its way.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let discarding = async {
        stream.shutdown().await?;
        tokio::io::copy(
            &mut (&mut stream).take(LINGER_BYTES),
            &mut tokio::io::sink(),
        )
        .await
    };
    let _client_gone_or_patience_over = tokio::time::timeout(LINGER_TIME, discarding).await;
}

const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 << 20;

/// The body of a request as our own type, within its limits.
fn receive(incoming: Incoming, limit: u64, stall: Duration, peer: &Peer, phase: &Phase) -> Body {
    if incoming.is_end_stream() {
        return Body::Empty;
    }
    let timer = peer.timer.clone();
    Body::Received(Received::new(incoming, limit, stall, timer, phase.clone()))
}

/// A response body that tells its connection when it has ended.
pub(super) struct Tracked<B> {
    body: B,
    phase: Phase,
}

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        self.phase.response_ended();
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Tracked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
