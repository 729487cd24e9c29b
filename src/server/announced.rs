//! Connections whose load balancer says first who they are from. Not what is said then: that is read
//! by `proxy_protocol`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::door::Door;
use super::gate::Gate;
use super::listener::{Announcers, Entrance};
use super::proxy_protocol::{self, BadHeader, LONGEST, Origin};
use crate::telemetry::metrics::NoHeader;
use crate::wire::Handler;

impl<H: Handler + 'static> Door<H> {
    /// Reads the header, and then lets the connection in as one of whoever it names.
    ///
    /// The load balancer itself is one address for many clients: it has no limit of its own, so a
    /// connection counts for the client that is named, or for nobody.
    pub(super) fn connect_announced(
        self: &Rc<Self>,
        mut stream: TcpStream,
        address: SocketAddr,
        announcers: &Announcers,
        entrance: &Rc<Entrance>,
        gate: &Rc<Gate>,
    ) {
        if !announcers.include(address.ip()) {
            return self.close_for(NoHeader::Untrusted, address, None);
        }
        let permit = match self.permits.take_unnamed() {
            Ok(permit) => permit,
            Err(refused) => return self.turn_away(stream, address, refused.into(), entrance),
        };
        let (door, entrance) = (Rc::clone(self), Rc::clone(entrance));
        let gate = Rc::clone(gate);
        self.spawn(async move {
            let limit = door.current.now().settings.timeouts.header;
            match tokio::time::timeout(limit, read(&mut stream)).await {
                Ok(Ok(Origin::Client(client))) => {
                    door.admit(stream, client, permit.of(client.ip()), &entrance, &gate);
                }
                Ok(Ok(Origin::Unnamed)) => {
                    door.admit(stream, address, Ok(permit), &entrance, &gate);
                }
                Ok(Err(Ended::Unused)) => {}
                Ok(Err(Ended::Bad(bad))) => {
                    door.close_for(NoHeader::Malformed, address, Some(bad));
                }
                Ok(Err(Ended::BrokenOff)) => door.close_for(NoHeader::Malformed, address, None),
                Err(_) => door.close_for(NoHeader::TimedOut, address, None),
            }
        });
    }

    /// Says why a connection ends that nobody answers: its other end speaks no HTTP yet.
    fn close_for(&self, reason: NoHeader, address: SocketAddr, bad: Option<BadHeader>) {
        self.metrics.closed_for_header(reason);
        if !self.warned_of_header.is_due() {
            return;
        }
        let peer = address.ip().to_canonical();
        match reason {
            NoHeader::Untrusted => tracing::warn!(
                %peer,
                "closed a connection to an address of listen.proxy_protocol: its peer is not in backends.trusted_proxies"
            ),
            NoHeader::Malformed => {
                let why = bad.map_or_else(|| "it broke off".to_owned(), |bad| bad.to_string());
                tracing::warn!(%peer, %why, "closed a connection whose PROXY header cannot be read");
            }
            NoHeader::TimedOut => {
                tracing::warn!(%peer, "closed a connection whose PROXY header did not arrive in time");
            }
        }
    }
}

/// Why there is no header.
#[derive(Debug)]
enum Ended {
    /// The connection was not used: a look whether somebody listens.
    Unused,
    /// It ended in the middle.
    BrokenOff,
    /// It is malformed.
    Bad(BadHeader),
}

/// Takes the header off `stream`, and not a byte of what follows.
async fn read(stream: &mut TcpStream) -> Result<Origin, Ended> {
    let mut bytes = vec![0; LONGEST];
    let mut taken = 0;
    loop {
        let ended = |_: io::Error| match taken {
            0 => Ended::Unused,
            _ => Ended::BrokenOff,
        };
        // Looked at first: how much of it belongs to the header, only the header says.
        let seen = stream.peek(&mut bytes[taken..]).await.map_err(ended)?;
        if seen == 0 {
            return Err(ended(io::ErrorKind::UnexpectedEof.into()));
        }
        let header = proxy_protocol::parse(&bytes[..taken + seen]).map_err(Ended::Bad)?;
        let end = header.map_or(taken + seen, |header| header.length);
        stream
            .read_exact(&mut bytes[taken..end])
            .await
            .map_err(ended)?;
        taken = end;
        if let Some(header) = header {
            return Ok(header.origin);
        }
    }
}
