//! The beginning of a connection over TLS: until both sides know who they are and what they speak.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::drain::Drained;
use super::linger::linger;
use super::sealed::Sealed;
use crate::telemetry::tls::Handshake;
use crate::tls::certificate::Certificate;
use crate::tls::identities::Identity;
use crate::tls::terms::{CHALLENGE, Terms};
use crate::wire::link::Transport;
use crate::wire::{Covers, Secured};

/// A connection that is agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) stream: Sealed,
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
        match self.stream.terms().handshake_kind() {
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
    terms: &Arc<Terms>,
    limit: Duration,
    drained: &mut Drained,
) -> Result<Agreed, Failed> {
    let agreeing = agree(stream, peer, terms, drained);
    tokio::time::timeout(limit, agreeing)
        .await
        .unwrap_or(Err(Failed::Over(Handshake::TimedOut)))
}

async fn agree(
    mut stream: TcpStream,
    peer: IpAddr,
    terms: &Arc<Terms>,
    drained: &mut Drained,
) -> Result<Agreed, Failed> {
    poll_fn(|context| poll_first(&stream, drained, context)).await?;
    let bytes = more(&mut stream, Vec::new()).await?;
    // A method is made of capitals; a handshake begins with the number 22 (RFC 8446, 5.1).
    if bytes[0].is_ascii_uppercase() {
        return Err(Failed::Plain(stream));
    }
    let local = stream.local_addr().map_err(|error| failed(&error))?.ip();
    if !is_whole(&bytes) {
        return agree_late(stream, bytes, peer, local, terms).await;
    }
    let meeting = Arc::new(Meeting {
        terms: Arc::clone(terms),
        local,
        met: Mutex::new(None),
    });
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Meeting>::clone(&meeting);
    let agreeing = match Sealed::begin(stream, terms.by(resolver), bytes.clone()) {
        Ok(agreeing) => agreeing,
        Err(unheard) => match meeting.met() {
            Some(Met { shown: None, .. }) => {
                return Box::pin(agree_late(unheard.stream, bytes, peer, local, terms)).await;
            }
            _ => return Err(failed(&unheard.tell())),
        },
    };
    drop(bytes);
    let stream = agreeing.go_on().await.map_err(|error| failed(&error))?;
    match meeting.met() {
        Some(Met {
            sni,
            shown: Some(certificate),
        }) => Ok(agreed(stream, sni, certificate)),
        _ => Err(Failed::Over(Handshake::Failed)),
    }
}

/// Reads some more of what the client says first.
async fn more(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Vec<u8>, Failed> {
    bytes.reserve(USUAL);
    match stream.read_buf(&mut bytes).await {
        Ok(1..) => Ok(bytes),
        Ok(0) | Err(_) => Err(Failed::Over(Handshake::Left)),
    }
}

/// Whether the first message of a client is there, and in one record: who is not so kind is read more slowly.
fn is_whole(bytes: &[u8]) -> bool {
    // RFC 8446, 5.1 and 4: type, version and length of a record; type and length of the message in it.
    let [22, _, _, high, low, 1, first, second, third, ..] = *bytes else {
        return false;
    };
    let record = usize::from(u16::from_be_bytes([high, low]));
    let message = u32::from_be_bytes([0, first, second, third]) as usize;
    message + 4 <= record && record + 5 <= bytes.len()
}

/// Finds out who we are to a client while its first message is read.
#[derive(Debug)]
struct Meeting {
    terms: Arc<Terms>,
    /// Where it came to.
    local: IpAddr,
    met: Mutex<Option<Met>>,
}

/// Whom we have met.
#[derive(Debug, Clone)]
struct Met {
    /// Whom it wants to speak with.
    sni: Option<Arc<str>>,
    /// What it was shown; `None` where that takes more than a look.
    shown: Option<Arc<Certificate>>,
}

impl Meeting {
    fn met(&self) -> Option<Met> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.clone()
    }
}

impl ResolvesServerCert for Meeting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sni = hello.server_name().map(canonical);
        let identities = self.terms.identities();
        let found = match is_challenge(&hello) {
            true => None,
            false => identities.at_once(sni.as_deref(), self.local),
        };
        let (shown, key) = found.map(|found| (found.certificate, found.key)).unzip();
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        *met = Some(Met { sni, shown });
        key
    }
}

/// Whether an authority looks for a proof.
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let mut offered = hello.alpn().into_iter().flatten();
    offered.any(|protocol| protocol == CHALLENGE)
}

/// Agrees with a client for which that takes more than a look: its first message, of which `bytes` have
/// arrived, is read before anything is answered.
async fn agree_late(
    stream: TcpStream,
    bytes: Vec<u8>,
    peer: IpAddr,
    local: IpAddr,
    terms: &Terms,
) -> Result<Agreed, Failed> {
    let Hello {
        stream,
        bytes,
        sni,
        is_challenge,
    } = hello(stream, bytes).await?;
    let identities = terms.identities();
    if is_challenge
        && let Some(name) = &sni
        && let Some(key) = identities.challenges.alpn(name)
    {
        // RFC 8737, 3: the handshake is the answer.
        let proven = Sealed::agree(stream, terms.for_challenge(key), bytes).await;
        linger(proven.map_err(|error| failed(&error))?).await;
        return Err(Failed::Over(Handshake::Challenge));
    }
    let found = match is_challenge {
        // An authority that looks for the proof of another order is no client to order for.
        true => identities.at_hand(sni.as_deref(), local).await,
        false => identities.find(sni.as_deref(), local, peer).await,
    };
    let Some(Identity { certificate, key }) = found else {
        refuse(stream).await;
        return Err(Failed::Over(Handshake::UnknownName));
    };
    let agreeing = Sealed::agree(stream, terms.with(key), bytes);
    let stream = agreeing.await.map_err(|error| failed(&error))?;
    Ok(agreed(stream, sni, certificate))
}

fn agreed(stream: Sealed, sni: Option<Arc<str>>, certificate: Arc<dyn Covers>) -> Agreed {
    Agreed {
        secured: Secured {
            sni,
            certificate,
            version: version_of(stream.terms().protocol_version()),
        },
        stream,
    }
}

/// What a client says first.
struct Hello {
    stream: TcpStream,
    /// All that was read.
    bytes: Vec<u8>,
    /// Whom it wants to speak with.
    sni: Option<Arc<str>>,
    /// Whether it looks for a proof.
    is_challenge: bool,
}

/// Reads the first message of a client. What follows it may be in its bytes too.
async fn hello(mut stream: TcpStream, mut bytes: Vec<u8>) -> Result<Hello, Failed> {
    let mut acceptor = Acceptor::default();
    let mut known = 0;
    loop {
        let mut new = &bytes[known..];
        while !new.is_empty() {
            let read = acceptor.read_tls(&mut new);
            read.map_err(|error| failed(&error))?;
        }
        known = bytes.len();
        match acceptor.accept() {
            Ok(None) => bytes = more(&mut stream, bytes).await?,
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Ok(Hello {
                    sni: hello.server_name().map(canonical),
                    is_challenge: is_challenge(&hello),
                    stream,
                    bytes,
                });
            }
            Err((_, mut alert)) => {
                let mut words = Vec::new();
                if alert.write_all(&mut words).is_ok() {
                    // A client that takes no more of it is told by the end of the connection.
                    let _sent = stream.try_write(&words);
                }
                return Err(Failed::Over(Handshake::Failed));
            }
        }
    }
}

/// Most clients say no more at first.
const USUAL: usize = 2 << 10;

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

/// Waits for the first byte that the client sends: until then a connection costs its socket.
fn poll_first(
    stream: &TcpStream,
    drained: &mut Drained,
    context: &mut Context<'_>,
) -> Poll<Result<(), Failed>> {
    match stream.poll_read_ready(context) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(_)) => Poll::Ready(Err(Failed::Over(Handshake::Left))),
        Poll::Pending if drained.leaves(context) && !stream.has_unread() => {
            Poll::Ready(Err(Failed::Over(Handshake::Drained)))
        }
        Poll::Pending => Poll::Pending,
    }
}

/// Tells a client that there is nobody of that name (RFC 6066, 3). rustls would say that access is
/// denied.
async fn refuse(mut stream: TcpStream) {
    // A client that is gone need not be told.
    let _outcome = stream.write_all(&UNRECOGNIZED_NAME).await;
    linger(stream).await;
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

#[cfg(test)]
mod tests;
