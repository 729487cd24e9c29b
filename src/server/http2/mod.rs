//! One connection of a client that speaks HTTP/2: it drives `h2` and the requests on it, all in the
//! task of the connection, and ends what is overdue, floods, or has drained.
//!
//! `driver` watches the clock, `meter` sits between `h2` and the stream and counts frames, `frames`
//! reads their heads, `fields` and `settings` look into some, `allowance` says how many are too many.
//! `request` makes a request of ours from what came, `body` gives its body, `stream` answers it, and
//! `streams` are all that are under way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use h2::server::Builder;

use self::driver::{Accepted, Driver, Next};
use self::meter::{Metered, Wire};
use self::streams::{Desk, Streams};
use super::current::{Current, Snapshot};
use super::drain::Drained;
use super::linger::linger;
use super::settings::ConnectionSettings;
use crate::telemetry::connections::Protocol;
use crate::telemetry::exchange;
use crate::wire::timer;
use crate::wire::tunnel::Duplex;
use crate::wire::{Handler, Peer};

mod allowance;
mod body;
mod driver;
mod fields;
mod frames;
mod meter;
mod request;
mod settings;
mod stream;
mod streams;

/// What a client may send of one body before it is read, and of all bodies of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What waits to be written of one answer.
const SEND_BUFFER: usize = 32 << 10;
/// Decoded fields that the next block may refer to.
const HEADER_TABLE: u32 = 4 << 10;
/// Requests of a client that were reset before they were looked at.
const RESETS_UNSEEN: usize = 32;
/// Streams that we reset, of which frames may still arrive.
const RESETS_REMEMBERED: usize = 64;
/// Resets that faults of the client led to.
const FAULTS: usize = 256;

/// Serves requests on `stream` until it ends, is overdue, or has drained. For a stream on which both
/// sides have agreed on HTTP/2, as by ALPN: the preface is still to come.
pub(super) async fn serve<S, P, H>(
    stream: S,
    permit: P,
    peer: Peer,
    current: Rc<Current<H>>,
    drained: Drained,
) where
    S: Duplex + 'static,
    H: Handler + 'static,
{
    let _held = permit;
    let ahead = BytesMut::new();
    let running = pin!(run(stream, ahead, &peer, &current, drained));
    timer::drive(&peer.timer, running).await;
}

/// The same, in a task that drives the timer of `peer`; `ahead` was read of `stream` already.
pub(super) async fn run<S: Duplex>(
    stream: S,
    ahead: BytesMut,
    peer: &Peer,
    current: &Current<impl Handler>,
    mut drained: Drained,
) {
    let wire = Wire::shared(stream, ahead);
    // What the client is told now holds as long as the connection (RFC 9113, 6.5.2).
    let snapshot = current.now();
    let _open = snapshot.settings.count(Protocol::Http2, peer.scheme);
    let builder = builder(&snapshot.settings);
    let mut handshake = pin!(builder.handshake(Metered(Rc::clone(&wire))));
    let shaken = pin!(poll_fn(|context| {
        wire.borrow_mut().begin_turn();
        let polled = handshake.as_mut().poll(context);
        let pushed = wire.borrow_mut().poll_push(context);
        match (polled, pushed) {
            (Poll::Ready(outcome), _) => Poll::Ready(outcome.ok()),
            (Poll::Pending, Poll::Ready(Err(_))) => Poll::Ready(None),
            (Poll::Pending, _) if drained.leaves(context) => Poll::Ready(None),
            (Poll::Pending, _) => Poll::Pending,
        }
    }));
    let limit = snapshot.settings.timeouts.header;
    drop(snapshot);
    let Some(Some(connection)) = peer.timer.while_moving(limit, shaken).await else {
        return;
    };
    let of_streams = &drained.of_tunnel();
    let mut driver = Driver::new(connection, &wire, peer, drained);
    let mut streams = Streams::new(move |desk: Rc<Desk<Accepted>>| {
        desk.serve(move |(request, respond)| {
            stream::serve(request, respond, current.now(), peer, of_streams)
        })
    });
    poll_until_end(&mut driver, &mut streams, || current.now()).await;
    exchange::client_left(|| drop(streams));
    drop(driver);
    if let Some(wire) = Rc::into_inner(wire).map(RefCell::into_inner)
        && !wire.has_ended()
    {
        linger(wire.into_stream()).await;
    }
}

fn builder(settings: &ConnectionSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(u32::try_from(settings.streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(settings.head.bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(Some(FAULTS))
        .enable_connect_protocol();
    builder
}

/// Drives the connection and its requests.
async fn poll_until_end<S, H, F, O>(
    driver: &mut Driver<'_, S>,
    streams: &mut Streams<Accepted, F, O>,
    now: impl Fn() -> Rc<Snapshot<H>>,
) where
    S: Duplex,
    F: Future<Output = ()>,
    O: Fn(Rc<Desk<Accepted>>) -> F,
{
    let waker = streams.waker();
    poll_fn(|context| {
        streams.begin_turn(context);
        if driver.begin_turn() {
            streams.wake_all();
        }
        let context = &mut Context::from_waker(&waker);
        let mut is_first = true;
        loop {
            // Before the connection, which writes what they leave there.
            for _ended in 0..streams.poll() {
                driver.answered();
            }
            // Once: what has to wait is asked once a turn, and may have asked for the next one.
            if std::mem::take(&mut is_first) {
                streams.connection_is_polled();
            }
            let mut came = false;
            loop {
                match driver.poll_accept(context) {
                    Poll::Ready(Some(Ok(accepted))) => {
                        streams.push(accepted);
                        came = true;
                    }
                    Poll::Ready(ended @ (Some(Err(_)) | None)) => {
                        if let Some(Err(error)) = ended {
                            driver.count(&error, &now().settings);
                        }
                        // Whatever of it there is room for: the connection is over.
                        let _last = driver.push(context);
                        return Poll::Ready(());
                    }
                    Poll::Pending => break,
                }
            }
            if came {
                continue;
            }
            match driver.push(context) {
                Ok(false) => {}
                Ok(true) => continue,
                Err(_) => return Poll::Ready(()),
            }
            match driver.look_after(streams.is_empty(), &now().settings, context) {
                Next::Wait => break,
                Next::Rest => {
                    streams.rest();
                    break;
                }
                Next::Poll => {}
                Next::End => return Poll::Ready(()),
            }
        }
        streams.end_turn();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
