//! The beginning of a connection over TLS: until both sides know who they are and what they speak.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{Error, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::drain::Drained;
use super::linger::linger;
use crate::telemetry::tls::Handshake;
use crate::tls::identities::Identity;
use crate::tls::terms::{CHALLENGE, Terms};
use crate::wire::link::Transport;
use crate::wire::{Covers, Secured};

/// A connection that is agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) secured: Secured,
}

/// Why a connection ends before it carries a request.
#[derive(Debug)]
pub(super) enum Failed {
    /// The client speaks HTTP without TLS; it is to be told so.
    Plain(TcpStream),
    /// Everything else: the client knows all that there is to know.
    Over(Handshake),
}

impl Failed {
    /// How it is counted.
    pub(super) fn outcome(&self) -> Handshake {
        match self {
            Self::Plain(_) => Handshake::NotTls,
            Self::Over(outcome) => *outcome,
        }
    }
}

impl Agreed {
    /// How it is counted.
    pub(super) fn outcome(&self) -> Handshake {
        match self.stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        }
    }
}

/// Agrees with the client at `peer` within `limit`.
///
/// A drain ends what has not begun; a client that has said its first word may finish, as one may that
/// has sent a part of a head.
pub(super) async fn shake(
    stream: TcpStream,
    peer: IpAddr,
    terms: &Terms,
    limit: Duration,
    drained: &mut Drained,
) -> Result<Agreed, Failed> {
    let agreeing = agree(stream, peer, terms, drained);
    tokio::time::timeout(limit, agreeing)
        .await
        .unwrap_or(Err(Failed::Over(Handshake::TimedOut)))
}

async fn agree(
    stream: TcpStream,
    peer: IpAddr,
    terms: &Terms,
    drained: &mut Drained,
) -> Result<Agreed, Failed> {
    let first = poll_fn(|context| poll_first(&stream, drained, context)).await?;
    // A method is made of capitals; a handshake begins with the number 22 (RFC 8446, 5.1).
    if first.is_ascii_uppercase() {
        return Err(Failed::Plain(stream));
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .map_err(|error| failed(&error))?;
    let hello = start.client_hello();
    let sni = hello.server_name().map(canonical);
    let is_challenge = hello
        .alpn()
        .is_some_and(|mut offered| offered.any(|protocol| protocol == CHALLENGE));
    let challenges = &terms.identities().challenges;
    if is_challenge
        && let Some(name) = &sni
        && let Some(key) = challenges.alpn(name)
    {
        // RFC 8737, 3: the handshake is the answer.
        let proven = start.into_stream(terms.for_challenge(key)).await;
        linger(proven.map_err(|error| failed(&error))?).await;
        return Err(Failed::Over(Handshake::Challenge));
    }
    let local = start.io.local_addr().map_err(|error| failed(&error))?;
    let identities = terms.identities();
    let found = match is_challenge {
        // An authority that looks for the proof of another order is no client to order for.
        true => identities.at_hand(sni.as_deref(), local.ip()),
        false => identities.find(sni.as_deref(), local.ip(), peer).await,
    };
    let Some(identity) = found else {
        refuse(start).await;
        return Err(Failed::Over(Handshake::UnknownName));
    };
    let Identity { certificate, key } = identity;
    let stream = start
        .into_stream(terms.with(key))
        .await
        .map_err(|error| failed(&error))?;
    let certificate: Arc<dyn Covers> = certificate;
    Ok(Agreed {
        secured: Secured {
            sni,
            certificate,
            version: version_of(stream.get_ref().1.protocol_version()),
        },
        stream,
    })
}

fn version_of(version: Option<ProtocolVersion>) -> Option<&'static str> {
    match version? {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

/// A name as we know it, in lower case. RFC 6066, 3 wants no dot at its end, which some send all the same.
fn canonical(name: &str) -> Arc<str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase().into()
}

/// The first byte that the client sends, which stays unread: until then a connection costs its socket.
fn poll_first(
    stream: &TcpStream,
    drained: &mut Drained,
    context: &mut Context<'_>,
) -> Poll<Result<u8, Failed>> {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    match stream.poll_peek(context, &mut buffer) {
        Poll::Ready(Ok(1..)) => Poll::Ready(Ok(byte[0])),
        Poll::Ready(_) => Poll::Ready(Err(Failed::Over(Handshake::Left))),
        Poll::Pending if drained.leaves(context) && !stream.has_unread() => {
            Poll::Ready(Err(Failed::Over(Handshake::Drained)))
        }
        Poll::Pending => Poll::Pending,
    }
}

/// Tells a client that there is nobody of that name (RFC 6066, 3). rustls would say that access is
/// denied.
async fn refuse(mut start: StartHandshake<TcpStream>) {
    // A client that is gone need not be told.
    let _outcome = start.io.write_all(&UNRECOGNIZED_NAME).await;
    linger(start.io).await;
}

/// A fatal alert in a record of its own (RFC 8446, 5.1 and 6), as long as there are no keys.
const fn alert(description: u8) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, description]
}

const UNRECOGNIZED_NAME: [u8; 7] = alert(112);

/// There is no room for the client; TLS has no word for "later".
pub(super) const INTERNAL_ERROR: [u8; 7] = alert(80);

fn failed(error: &io::Error) -> Failed {
    let told = error.get_ref().and_then(|error| error.downcast_ref());
    Failed::Over(match told {
        Some(Error::NoApplicationProtocol) => Handshake::NoProtocol,
        Some(_) => Handshake::Failed,
        None => Handshake::Left,
    })
}

impl Transport for TlsStream<TcpStream> {
    fn has_closed(&self) -> bool {
        self.get_ref().0.has_closed()
    }

    /// What TLS itself holds is the part of a record, at most.
    fn has_unread(&self) -> bool {
        self.get_ref().0.has_unread()
    }

    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (stream, session) = self.get_mut();
        match session.wants_read() {
            true => stream.poll_unread(context),
            // Something is left of what was read.
            false => Poll::Ready(()),
        }
    }

    fn reset_on_drop(&self, reset: bool) {
        self.get_ref().0.reset_on_drop(reset);
    }

    fn farewell(&mut self) {
        let (stream, session) = self.get_mut();
        session.send_close_notify();
        let mut words = Vec::new();
        if session.write_tls(&mut words).is_ok() {
            // A client that takes no more of it is told by the end of the connection.
            let _sent = stream.try_write(&words);
        }
    }
}

#[cfg(test)]
mod tests;
