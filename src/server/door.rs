//! Lets connections in, or turns them away.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::connection;
use super::current::Current;
use super::descriptors::{self, Reserve, TheLast};
use super::drain::{Drain, Drained};
use super::gate::Gate;
use super::handshake::{self, Agreed, Failed};
use super::http2;
use super::listener::Entrance;
use super::permits::{Permit, Permits, Refused};
use super::shutdown::{Stage, Stop};
use crate::telemetry::metrics::{Metrics, Shed};
use crate::tls::terms::{HTTP2, Terms};
use crate::wire::timer::Timer;
use crate::wire::{Handler, Peer, Scheme};

/// Who connects to a listener: what they get when descriptors run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// Anybody, as many as they like: turned away before the last descriptor is taken.
    Strangers,
    /// The operator, who must see what is going on: served with the last descriptors.
    Operator,
}

impl Guests {
    /// How many descriptors are held back for them.
    fn reserve(self) -> usize {
        match self {
            Self::Strangers => 1,
            Self::Operator => 4,
        }
    }
}

/// A pause after `accept` failed for want of descriptors or memory: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that are turned away with the reserve before such a pause.
const AT_ONE_GO: usize = 32;

/// The limit of descriptors is asked for once in so many connections.
const ASK_EVERY: u32 = 16;

/// Between two warnings about the same.
const QUIET: Duration = Duration::from_secs(10);

/// What stands between the listeners of a worker and its connections.
pub(super) struct Door<H> {
    pub(super) current: Rc<Current<H>>,
    guests: Guests,
    reserve: RefCell<Reserve>,
    the_last: Cell<TheLast>,
    /// Connections until it is asked again.
    until_asked: Cell<u32>,
    pub(super) permits: Arc<Permits>,
    pub(super) metrics: Arc<Metrics>,
    drain: Rc<Drain>,
    pub(super) tasks: TaskTracker,
    /// Refused connections that still read why.
    pub(super) leaving: Cell<usize>,
    /// A failing `accept`.
    warned: Seldom,
    /// Connections that are closed for their PROXY header.
    pub(super) warned_of_header: Seldom,
}

/// When something was last spoken of.
#[derive(Debug, Default)]
pub(super) struct Seldom(Cell<Option<Instant>>);

impl Seldom {
    /// Whether it may be spoken of again, which is then done.
    pub(super) fn is_due(&self) -> bool {
        let is_due = self.0.get().is_none_or(|last| last.elapsed() >= QUIET);
        if is_due {
            self.0.set(Some(Instant::now()));
        }
        is_due
    }
}

impl<H: Handler + 'static> Door<H> {
    /// The connections that it lets in run on `tasks`, and end when `drain` tells them to.
    pub(super) fn new(
        current: Rc<Current<H>>,
        guests: Guests,
        permits: Arc<Permits>,
        metrics: Arc<Metrics>,
        drain: Rc<Drain>,
        tasks: TaskTracker,
    ) -> Rc<Self> {
        Rc::new(Self {
            current,
            guests,
            reserve: RefCell::new(Reserve::new(guests.reserve())),
            the_last: Cell::new(TheLast::of_now()),
            until_asked: Cell::new(ASK_EVERY),
            permits,
            metrics,
            drain,
            tasks,
            leaving: Cell::new(0),
            warned: Seldom::default(),
            warned_of_header: Seldom::default(),
        })
    }

    /// Accepts until the drain begins or the gate is to close, and then whatever is already in the queue,
    /// unless another process accepts there from now on: closing the last handle of a listener resets the
    /// connections that wait.
    pub(super) async fn keep(
        self: Rc<Self>,
        listener: TcpListener,
        gate: Rc<Gate>,
        mut stop: Stop,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.reached(Stage::LastCall) => {
                    let resumed = tokio::select! {
                        resumed = stop.is_resumed() => resumed,
                        () = gate.closing() => false,
                    };
                    match resumed {
                        true => continue,
                        false => break,
                    }
                }
                () = gate.closing() => break,
                accepted = listener.accept() => accepted,
            };
            if self.let_in(&listener, &gate, accepted).is_break() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        if gate.entrance().left.is_left() {
            return;
        }
        // Asked of the system itself: the runtime may not have heard of the last ones yet.
        let Ok(listener) = listener.into_std() else {
            return;
        };
        loop {
            let accepted = listener.accept().and_then(|(stream, address)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, address))
            });
            match accepted {
                Ok((stream, address)) => self.connect(stream, address, &gate),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Takes what `accept` gave; a break says that it cannot give more now.
    fn let_in(
        self: &Rc<Self>,
        listener: &TcpListener,
        gate: &Rc<Gate>,
        accepted: io::Result<(TcpStream, SocketAddr)>,
    ) -> ControlFlow<()> {
        match accepted {
            Ok((stream, address)) => self.connect(stream, address, gate),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                self.warn(&error);
                if descriptors::are_used_up(&error) {
                    self.accept_from_reserve(listener, gate);
                }
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn connect(self: &Rc<Self>, stream: TcpStream, address: SocketAddr, gate: &Rc<Gate>) {
        let entrance = &gate.entrance();
        let is_last = self.guests == Guests::Strangers && self.the_last().include(&stream);
        if is_last {
            return self.turn_away(stream, address, Shed::Descriptors, entrance);
        }
        match &entrance.announcers {
            None => {
                let permit = self.permits.take(address.ip());
                self.admit(stream, address, permit, entrance, gate);
            }
            Some(announcers) => {
                self.connect_announced(stream, address, announcers, entrance, gate);
            }
        }
    }

    /// Lets a connection in that has its permit, or turns it away.
    pub(super) fn admit(
        self: &Rc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        permit: Result<Permit, Refused>,
        entrance: &Entrance,
        gate: &Gate,
    ) {
        match permit {
            Ok(permit) => self.welcome(stream, address, permit, entrance, gate),
            Err(refused) => self.turn_away(stream, address, refused.into(), entrance),
        }
    }

    /// An operator may change the limit while we run; asking for each connection is a system call.
    fn the_last(&self) -> TheLast {
        if self.until_asked.get() == 0 {
            self.the_last.set(TheLast::of_now());
            self.until_asked.set(ASK_EVERY);
        }
        self.until_asked.set(self.until_asked.get() - 1);
        self.the_last.get()
    }

    fn welcome(
        self: &Rc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        permit: Permit,
        entrance: &Entrance,
        gate: &Gate,
    ) {
        let door = Rc::clone(self);
        let drained = self.drain.join().by(&gate.drain);
        let id = entrance.id;
        self.current.now().settings.accepted(entrance.scheme());
        // Two tasks of their own size: one without TLS is much smaller.
        match entrance.tls.clone() {
            None => self.spawn(async move {
                let peer = Peer::new(address, Scheme::Http, Timer::new()).by(id);
                connection::serve(stream, permit, peer, Rc::clone(&door.current), drained).await;
            }),
            Some(terms) => self.spawn(async move {
                let peer = Peer::new(address, Scheme::Https, Timer::new()).by(id);
                door.serve_secured(stream, permit, peer, &terms, drained)
                    .await;
            }),
        }
    }

    async fn serve_secured(
        &self,
        stream: TcpStream,
        permit: Permit,
        mut peer: Peer,
        terms: &Arc<Terms>,
        mut drained: Drained,
    ) {
        let limit = self.current.now().settings.handshake();
        // Boxed, both: nothing of the one is left when the other begins, and a client that says nothing
        // keeps no room for requests.
        let shaking = handshake::shake(stream, peer.address.ip(), terms, limit, &mut drained);
        let stream = match Box::pin(shaking).await {
            Ok(agreed) => {
                self.metrics.tls.ended(agreed.outcome());
                let Agreed { stream, secured } = agreed;
                peer.secured = Some(secured);
                stream
            }
            Err(failed) => {
                self.metrics.tls.ended(failed.outcome());
                if let Failed::Plain(stream) = failed {
                    Box::pin(self.see_off_plain(stream, &peer)).await;
                }
                return;
            }
        };
        let current = Rc::clone(&self.current);
        // Boxed, so that a handshake keeps no room for either, and neither for the other.
        if stream.terms().alpn_protocol() == Some(HTTP2) {
            let serving = http2::serve(stream, permit, peer, current, drained);
            Box::pin(serving).await;
        } else {
            let serving = connection::serve(stream, permit, peer, current, drained);
            Box::pin(serving).await;
        }
    }

    /// Runs what serves one connection, whose descriptor it gives back.
    pub(super) fn spawn(self: &Rc<Self>, serving: impl Future<Output = ()> + 'static) {
        let door = Rc::clone(self);
        // A panic is one connection's misfortune: its client sees the cut.
        let serving = AssertUnwindSafe(serving)
            .catch_unwind()
            .map(move |outcome| {
                if outcome.is_err() {
                    door.metrics.panics.inc();
                }
                door.reserve.borrow_mut().refill();
            });
        self.tasks.spawn_local(serving);
    }

    /// There is no descriptor for whoever waits in the queue but those in reserve.
    fn accept_from_reserve(self: &Rc<Self>, listener: &TcpListener, gate: &Rc<Gate>) {
        for _ in 0..AT_ONE_GO {
            if !self.reserve.borrow_mut().release() {
                return;
            }
            let accepted = listener.accept().now_or_never();
            match (accepted, self.guests) {
                (Some(Ok((stream, address))), Guests::Strangers) => {
                    self.turn_away(stream, address, Shed::Descriptors, &gate.entrance());
                }
                (Some(Ok((stream, address))), Guests::Operator) => {
                    self.connect(stream, address, gate);
                }
                // Nobody waits any more, or somebody was quicker to take what was given up.
                (Some(Err(_)) | None, _) => {
                    self.reserve.borrow_mut().refill();
                    return;
                }
            }
            self.reserve.borrow_mut().refill();
        }
    }

    fn warn(&self, error: &io::Error) {
        if self.warned.is_due() {
            tracing::warn!(%error, "cannot accept connections; trying again in a moment");
        }
    }
}

/// Errors of the connection that was to be accepted, not of accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
