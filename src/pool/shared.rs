//! A connection that carries many requests at once: HTTP/2 (RFC 9113). Its frames are read and written
//! by a task of its own, which the pool owns.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Pool;
use super::idle::Place;
use super::lane::Lane;
use super::outliers::Member;
use super::stream::Stream;
use super::watched::{Traffic, Watched};

/// How large the head of a response may be, as over HTTP/1.1.
const MAX_HEAD: u32 = 64 << 10;

/// What a server may send of one response, and of all, before somebody reads it.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What is taken of a request's body before it is written.
const SEND_BUFFER: usize = 64 << 10;

type Wire = client::Connection<Watched<Stream>, Bytes>;

/// A connection whose server has said hello.
#[derive(Debug)]
pub(super) struct Fresh {
    sender: SendRequest<Bytes>,
    wire: Wire,
    traffic: Rc<Traffic>,
    member: Option<Member>,
}

impl Fresh {
    /// Speaks HTTP/2 over `stream`, and waits for what the server says of itself: nothing is sent to one
    /// that speaks something else (RFC 9113, 3.4).
    ///
    /// # Errors
    /// When it does not speak HTTP/2.
    pub(super) async fn greet(stream: Stream) -> io::Result<Self> {
        let traffic = Traffic::new();
        let watched = Watched {
            stream,
            traffic: Rc::clone(&traffic),
        };
        let (sender, mut wire) = client::Builder::new()
            .enable_push(false)
            .max_header_list_size(MAX_HEAD)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            // None may begin before the server's settings are here: they say otherwise.
            .initial_max_send_streams(0)
            .handshake(watched)
            .await
            .map_err(io::Error::other)?;
        poll_fn(|context| match Pin::new(&mut wire).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(crate::wire::h2_body::to_io(error))),
            Poll::Pending if wire.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok(Self {
            sender,
            wire,
            traffic,
            member: None,
        })
    }

    /// The same, to one address of several.
    pub(super) fn at(self, member: Option<Member>) -> Self {
        Self { member, ..self }
    }

    /// The connection to be shared, and its task, which ends when the connection does. A server that
    /// is silent for `patience` is asked whether it is still there, and has as long to say so.
    pub(super) fn start(
        self,
        lane: &Rc<Lane>,
        pool: &Rc<Pool>,
        patience: Duration,
    ) -> (Rc<Shared>, impl Future<Output = ()> + use<>) {
        let state = Rc::new(State {
            traffic: self.traffic,
            carried: Cell::new(0),
            ended: Cell::new(false),
            asked: Notify::new(),
            answered: Notify::new(),
            patience,
        });
        let shared = Rc::new(Shared {
            sender: self.sender,
            state: Rc::clone(&state),
            lane: Rc::downgrade(lane),
            pool: Rc::downgrade(pool),
            member: self.member,
            broken: Cell::new(false),
            number: lane.next_number(),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            place: Cell::new(None),
        });
        (shared, drive(self.wire, state))
    }
}

/// One connection, as its requests see it. It is closed when the last of these is gone.
#[derive(Debug)]
pub(super) struct Shared {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    lane: Weak<Lane>,
    pool: Weak<Pool>,
    /// Its address, where the server has several.
    member: Option<Member>,
    /// Whether somebody has noted that it broke off.
    broken: Cell<bool>,
    /// Counts the connections to one origin.
    number: u64,
    /// Whether it has carried a request.
    used: Cell<bool>,
    idle_since: Cell<Instant>,
    /// Where it is kept while it is idle.
    place: Cell<Option<Place>>,
}

/// What the task of a connection and its requests tell each other.
#[derive(Debug)]
struct State {
    traffic: Rc<Traffic>,
    /// Requests that are on it.
    carried: Cell<usize>,
    ended: Cell<bool>,
    /// Somebody wants to know whether the server is still there.
    asked: Notify,
    /// It is, or the connection has ended.
    answered: Notify,
    patience: Duration,
}

impl Shared {
    /// Whether requests may still begin on it: neither end has closed it, and its address is not left out.
    pub(super) fn is_open(&self) -> bool {
        if self.is_left_out() {
            return false;
        }
        let mut sender = self.sender.clone();
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.state.ended.get() && !matches!(ready, Poll::Ready(Err(_)))
    }

    /// Whether the server takes one more request at once.
    pub(super) fn has_room(&self) -> bool {
        self.load() < self.sender.current_max_send_streams()
    }

    /// Requests that are on it.
    pub(super) fn load(&self) -> usize {
        self.state.carried.get()
    }

    /// Whether the server is still there. Asked only after a long silence: the way to it may have been
    /// forgotten meanwhile by what is in between.
    pub(super) async fn is_alive(&self) -> bool {
        let state = &self.state;
        if state.traffic.silence() < state.patience {
            return true;
        }
        let mut answered = pin!(state.answered.notified());
        answered.as_mut().enable();
        if !state.ended.get() {
            state.asked.notify_one();
            answered.await;
        }
        !state.ended.get()
    }

    /// Whether the server takes WebSockets (RFC 8441, 3).
    pub(super) fn takes_websockets(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    pub(super) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    /// Whether its address is left out.
    pub(super) fn is_left_out(&self) -> bool {
        self.member.as_ref().is_some_and(Member::is_out)
    }

    /// Notes that it broke off; whether nobody has noted that before.
    pub(super) fn breaks_off(&self) -> bool {
        !self.broken.replace(true)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.state.traffic
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    pub(super) fn lane(&self) -> Option<Rc<Lane>> {
        self.lane.upgrade()
    }

    /// Notes where it is kept while it is idle.
    pub(super) fn rest(&self, place: Place) {
        self.idle_since.set(Instant::now());
        self.place.set(Some(place));
    }

    /// Where it was kept, if it was idle.
    pub(super) fn take_place(&self) -> Option<Place> {
        self.place.take()
    }

    /// Whether it has been idle for `limit`.
    pub(super) fn is_idle_for(&self, limit: Duration) -> bool {
        self.load() == 0 && self.idle_since.get().elapsed() >= limit
    }
}

/// A request's place on a connection. The last one that leaves leaves it idle.
#[derive(Debug)]
pub(super) struct Carried {
    shared: Rc<Shared>,
    kept: bool,
}

impl Carried {
    pub(super) fn on(shared: Rc<Shared>) -> Self {
        let carried = &shared.state.carried;
        carried.set(carried.get() + 1);
        let kept = shared.used.replace(true);
        Self { shared, kept }
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// Whether the connection has carried a request before this one.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let carried = &self.shared.state.carried;
        carried.set(carried.get() - 1);
        if carried.get() == 0
            && let Some(pool) = self.shared.pool.upgrade()
        {
            pool.rest(&self.shared);
        }
    }
}

/// Reads and writes the frames of a connection until it ends, or its server is gone.
async fn drive(mut wire: Wire, state: Rc<State>) {
    let pings = wire.ping_pong();
    tokio::select! {
        _ended = wire => {}
        () = watch(pings, &state) => {}
    }
    state.ended.set(true);
    state.answered.notify_waiters();
}

/// Ends when the server does not answer any more.
async fn watch(pings: Option<PingPong>, state: &State) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            () = state.asked.notified() => {}
            () = tokio::time::sleep(state.patience) => {
                // Whoever waits for a response waits for the server; nobody else does.
                if state.carried.get() == 0 || state.traffic.silence() < state.patience {
                    continue;
                }
            }
        }
        if pings.send_ping(Ping::opaque()).is_err() {
            // The connection has ended, and says so itself.
            return std::future::pending().await;
        }
        let mut pong = pin!(poll_fn(|context| pings.poll_pong(context)));
        loop {
            match tokio::time::timeout(state.patience, pong.as_mut()).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) if state.traffic.silence() >= state.patience => return,
                Err(_) => {}
            }
        }
        state.answered.notify_waiters();
    }
}
