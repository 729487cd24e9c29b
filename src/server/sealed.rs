//! A connection over TLS, as a stream of plain bytes. Who we are in its handshake is for `handshake` to say.
//!
//! Records are opened and sealed in memory that all connections of a thread use in turn, so one that is idle
//! holds none. What is sealed leaves when the stream is flushed, so what belongs together leaves together: the
//! tickets after a handshake with the first answer, the last answer with the word that it was the last.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::WriteTraffic;
use rustls::{CommonState, Error, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::outgoing::{ADDED, Outgoing};
use self::turn::{Turn, exhausted};

mod outgoing;
mod stream;
mod turn;

/// A connection over TLS.
pub(super) struct Sealed {
    stream: TcpStream,
    session: UnbufferedServerConnection,
    /// The beginning of a record, or of a message, whose rest has not arrived.
    begun: Vec<u8>,
    /// What was opened and had no room where it was to go.
    opened: Vec<u8>,
    outgoing: Outgoing,
    /// Whether nothing more can be read: the client has said so, or broken the protocol.
    is_over: bool,
    /// Whether nothing more is to be sent.
    has_ended: bool,
}

thread_local! {
    /// Where records are opened. Empty while somebody has it.
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The least that is read at once: any record (RFC 8446, 5.2; RFC 5246, 6.2.3), and something more.
const LEAST: usize = 20 << 10;
/// The most that there is of records that are not opened yet. One message of a handshake must fit in.
const MOST: usize = 64 << 10;
impl Sealed {
    /// Agrees with a client of which `hello` has arrived.
    ///
    /// # Errors
    /// When there is no agreement, or no client any more.
    pub(super) async fn agree(
        stream: TcpStream,
        config: Arc<ServerConfig>,
        hello: Vec<u8>,
    ) -> io::Result<Self> {
        match Self::begin(stream, config, hello) {
            Ok(sealed) => sealed.go_on().await,
            Err(unheard) => Err(unheard.tell()),
        }
    }

    /// Reads what has arrived of a client's first message, and works out the answer.
    ///
    /// # Errors
    /// When there will be no agreement.
    pub(super) fn begin(
        stream: TcpStream,
        config: Arc<ServerConfig>,
        mut hello: Vec<u8>,
    ) -> Result<Self, Unheard> {
        let session = match UnbufferedServerConnection::new(config) {
            Ok(session) => session,
            Err(error) => {
                return Err(Unheard {
                    stream,
                    error: broken(error),
                    alert: Outgoing::default(),
                });
            }
        };
        let mut sealed = Self {
            stream,
            session,
            begun: Vec::new(),
            opened: Vec::new(),
            outgoing: Outgoing::default(),
            is_over: false,
            has_ended: false,
        };
        match sealed.open(&mut hello, None) {
            Ok(()) => Ok(sealed),
            Err(error) => Err(Unheard {
                stream: sealed.stream,
                error,
                alert: sealed.outgoing,
            }),
        }
    }

    /// Goes on until both sides have agreed.
    ///
    /// # Errors
    /// When there is no agreement, or no client any more.
    pub(super) async fn go_on(mut self) -> io::Result<Self> {
        poll_fn(|context| self.poll_agree(context)).await?;
        Ok(self)
    }

    /// What was agreed on.
    pub(super) fn terms(&self) -> &CommonState {
        &self.session
    }

    fn poll_agree(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            ready!(self.poll_send(context))?;
            if ready!(self.poll_receive(context, None))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        if self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            // What is left are tickets, which nobody waits for.
            self.outgoing.settle();
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }

    /// Reads and opens what there is, into `buffer` as far as there is room. Gives how many bytes have arrived;
    /// 0 at the end of the stream.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<usize>> {
        let begun = self.begun.len();
        if begun >= MOST {
            let error = io::Error::new(io::ErrorKind::InvalidData, "a message is too long");
            return Poll::Ready(Err(error));
        }
        let wanted = buffer.as_ref().map_or(0, |buffer| buffer.remaining());
        let end = (begun + wanted.max(LEAST)).min(MOST);
        let mut incoming = INCOMING.take();
        if incoming.is_empty() {
            incoming = vec![0; MOST];
        }
        let mut arrived = ReadBuf::new(&mut incoming[begun..end]);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut arrived);
        let arrived = arrived.filled().len();
        let outcome = match polled {
            Poll::Ready(Ok(())) if arrived > 0 => {
                incoming[..begun].copy_from_slice(&self.begun);
                let opened = self.open(&mut incoming[..begun + arrived], buffer);
                if opened.is_err() {
                    // The alert that says why, as far as the system takes it at once.
                    let _sent = self.poll_send(context);
                }
                Poll::Ready(opened.map(|()| arrived))
            }
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|()| 0)),
            Poll::Pending => Poll::Pending,
        };
        INCOMING.set(incoming);
        outcome
    }

    /// Opens the records that have `arrived`, into `buffer` as far as there is room, and keeps what has only
    /// begun.
    fn open(&mut self, arrived: &mut [u8], mut buffer: Option<&mut ReadBuf<'_>>) -> io::Result<()> {
        let opened = &mut self.opened;
        let take = |data: &[u8]| {
            let room = match &mut buffer {
                Some(buffer) if opened.is_empty() => {
                    let room = buffer.remaining().min(data.len());
                    buffer.put_slice(&data[..room]);
                    room
                }
                _ => 0,
            };
            opened.extend_from_slice(&data[room..]);
        };
        let turn = Turn {
            session: &mut self.session,
            outgoing: &mut self.outgoing,
            is_over: &mut self.is_over,
        };
        let (used, outcome) = turn.run(arrived, take, |_, _| Ok(()));
        self.begun = arrived[used..].to_vec();
        self.ended_by(outcome)
    }

    /// Seals something, by `write`.
    fn seal(
        &mut self,
        write: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut Outgoing,
        ) -> Result<(), Error>,
    ) -> io::Result<()> {
        if self.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let opened = &mut self.opened;
        let turn = Turn {
            session: &mut self.session,
            outgoing: &mut self.outgoing,
            is_over: &mut self.is_over,
        };
        let take = |data: &[u8]| opened.extend_from_slice(data);
        let (used, outcome) = turn.run(&mut self.begun, take, write);
        self.begun.drain(..used);
        self.ended_by(outcome)
    }

    /// After an error a session is good for nothing more.
    fn ended_by(&mut self, outcome: Result<(), Error>) -> io::Result<()> {
        outcome.map_err(|error| {
            self.is_over = true;
            self.has_ended = true;
            broken(error)
        })
    }

    /// Says that we send no more, when what is sealed is sent.
    fn end(&mut self) {
        // A session that is broken has no words for it.
        let _said = self.seal(|traffic, outgoing| {
            // An alert is a record of two bytes.
            let room = outgoing.room(ADDED);
            let length = traffic
                .queue_close_notify(room)
                .map_err(|error| exhausted(&error))?;
            outgoing.put(length);
            Ok(())
        });
        self.has_ended = true;
    }

    /// Sends what is sealed.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send_by(context, |stream, context, waiting| {
            Pin::new(stream).poll_write(context, waiting)
        })
    }

    fn poll_send_by(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut TcpStream, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match write(&mut self.stream, context, self.outgoing.waiting())? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(sent) => self.outgoing.advance(sent),
                Poll::Pending => {
                    self.outgoing.settle();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A client that was not told yet why there is no agreement.
#[derive(Debug)]
pub(super) struct Unheard {
    pub(super) stream: TcpStream,
    error: io::Error,
    alert: Outgoing,
}

impl Unheard {
    /// Tells it, as far as the system takes it at once.
    pub(super) fn tell(self) -> io::Error {
        // A client that takes no more of it is told by the end of the connection.
        let _sent = self.stream.try_write(self.alert.waiting());
        self.error
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sealed")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
