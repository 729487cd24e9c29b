//! Connections that are not served, and how each is told so.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::door::Door;
use super::handshake;
use super::linger::linger;
use super::listener::Entrance;
use super::permits::Refused;
use super::refusal::{self, Form, Refusal};
use crate::id::RequestId;
use crate::telemetry::metrics::Shed;
use crate::wire::timer::Timer;
use crate::wire::{Handler, Peer, Scheme};

/// Refused connections that are given the time to read why; those beyond are closed at once.
const MOST_LEAVING: usize = 64;

impl<H: Handler + 'static> Door<H> {
    /// Tells a connection that there is no room for it.
    ///
    /// Over TLS it is told so by an alert: for more there would have to be a handshake first.
    pub(super) fn turn_away(
        self: &Rc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        reason: Shed,
        entrance: &Entrance,
    ) {
        self.metrics.shed(reason);
        let id = RequestId::new();
        let in_a_hurry = reason == Shed::Descriptors || self.leaving.get() >= MOST_LEAVING;
        let scheme = entrance.scheme();
        if scheme == Scheme::Http && !in_a_hurry {
            self.see_off(stream, id.clone());
        } else if let Ok(stream) = stream.into_std() {
            match scheme {
                Scheme::Http => refusal::write_at_once(stream, Refusal::Full, &id),
                Scheme::Https => refusal::send_at_once(stream, &handshake::INTERNAL_ERROR),
            }
        }
        let peer = Peer::new(address, scheme, Timer::new());
        let handler = &self.current.now().handler;
        handler.refused(&peer, Refusal::Full.status(), id);
    }

    /// Writes the refusal and waits a moment for the client to have read it.
    fn see_off(self: &Rc<Self>, mut stream: TcpStream, id: RequestId) {
        let door = Rc::clone(self);
        self.leaving.set(self.leaving.get() + 1);
        self.tasks.spawn_local(async move {
            refusal::write(&mut stream, Refusal::Full, Form::Whole, None, &id).await;
            linger(stream).await;
            door.leaving.set(door.leaving.get() - 1);
        });
    }

    /// Tells whoever speaks plain HTTP to a listener of TLS what is wrong.
    pub(super) async fn see_off_plain(&self, mut stream: TcpStream, peer: &Peer) {
        let id = RequestId::new();
        refusal::write(&mut stream, Refusal::Plain, Form::Whole, None, &id).await;
        let handler = &self.current.now().handler;
        handler.refused(peer, Refusal::Plain.status(), id);
        linger(stream).await;
    }
}

impl From<Refused> for Shed {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Connections,
            Refused::PeerFull => Self::Peer,
        }
    }
}
