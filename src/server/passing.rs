//! What two processes of one service say to each other while the second takes over from the first, and
//! the sockets that go with it. One packet, one word.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::inherited::{Estate, Inherited, Kind, Passed};

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// By the first: sockets, in the packet. There may be more of the same address.
    Sockets {
        /// What they are for.
        kind: Kind,
        /// The address that was asked for.
        configured: SocketAddr,
        /// The address that they are bound to.
        bound: SocketAddr,
        /// Whether workers share them.
        is_shared: bool,
    },
    /// By the first: these were all.
    Complete,
    /// By the second: all is there but what only one may have, such as the store. Let go of it.
    LetGo,
    /// By the first: it is yours.
    Yours,
    /// By the second: it serves, and accepts at these addresses.
    Ready {
        /// Those that it was given and took.
        taken: Vec<SocketAddr>,
    },
    /// By the second: it ends, for this reason.
    Failed {
        /// In words for the operator.
        why: String,
    },
}

/// One end of what two processes talk over.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// One end, for a thread with a runtime, which knows of no packets: it only says when there is one.
#[derive(Debug)]
pub struct AsyncChannel(UnixStream);

/// Sockets in one packet: the system takes 253 at most.
const AT_ONCE: usize = 64;

/// Sockets in all: more than any machine has cores, for each of many addresses.
const MOST: usize = 16_384;

/// The longest packet.
const LONGEST: usize = 64 << 10;

/// The longest reason: what is written of it.
const LONGEST_REASON: usize = 8 << 10;

impl Word {
    /// Why the second one ends; what is too long is cut.
    #[must_use]
    pub fn failed(why: &str) -> Self {
        let end = why.floor_char_boundary(LONGEST_REASON);
        let why = why[..end].to_owned();
        Self::Failed { why }
    }
}

impl Channel {
    /// Both ends; the second one is for the process to be started.
    ///
    /// # Errors
    /// When the system has none.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self(ours.into()), theirs.into()))
    }

    /// The end that this process was given as its standard input, which is empty afterwards.
    ///
    /// # Errors
    /// When it is no such end.
    pub fn from_standard_input() -> io::Result<Self> {
        let input = rustix::stdio::stdin();
        let is_ours = sockopt::socket_domain(input)
            .is_ok_and(|domain| domain == AddressFamily::UNIX)
            && sockopt::socket_type(input).is_ok_and(|kind| kind == SocketType::SEQPACKET);
        if !is_ours {
            return Err(io::Error::other(
                "the standard input is no socket of an ingress",
            ));
        }
        let own = rustix::io::fcntl_dupfd_cloexec(input, 3)?;
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(Self(own))
    }

    /// A handle of the same end.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Gives up on the other side where it is silent, or takes nothing, for longer.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience.max(Duration::from_millis(1)));
        SockRef::from(&self.0).set_read_timeout(patience)?;
        SockRef::from(&self.0).set_write_timeout(patience)
    }

    /// Says `word`, and waits until there is room for it.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        send(&self.0, word, &[]).map_err(late)
    }

    /// The next word; `None` at the end.
    ///
    /// # Errors
    /// When none comes in time, or what came is none.
    pub fn hear(&self) -> io::Result<Option<Word>> {
        let received = receive(&self.0).map_err(late)?;
        Ok(received.map(|(word, _)| word))
    }

    /// All sockets of the process before.
    ///
    /// # Errors
    /// When they do not come, or something else does.
    pub fn hear_sockets(&self) -> io::Result<Inherited> {
        let mut all: Vec<Passed> = Vec::new();
        let mut count = 0;
        loop {
            let received = receive(&self.0).map_err(late)?;
            let (word, sockets) = received.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (kind, configured, bound, is_shared) = match word {
                Word::Complete => return Ok(Inherited(all)),
                Word::Sockets {
                    kind,
                    configured,
                    bound,
                    is_shared,
                } => (kind, configured, bound, is_shared),
                Word::LetGo | Word::Yours | Word::Ready { .. } | Word::Failed { .. } => {
                    return Err(unexpected(&word));
                }
            };
            count += sockets.len();
            if count > MOST {
                return Err(invalid("too many sockets"));
            }
            let sockets = sockets.into_iter().map(|socket| listener(socket, bound));
            let sockets: Vec<TcpListener> = sockets.collect::<io::Result<_>>()?;
            match all.iter_mut().find(|passed| passed.bound == bound) {
                Some(passed) => passed.sockets.extend(sockets),
                None if sockets.is_empty() => return Err(invalid("an address without a socket")),
                None => all.push(Passed {
                    kind: Some(kind),
                    configured: Some(configured),
                    bound,
                    is_shared,
                    name: None,
                    sockets,
                }),
            }
        }
    }
}

impl AsyncChannel {
    /// The same end.
    ///
    /// # Errors
    /// When the runtime does not take it.
    pub fn new(channel: Channel) -> io::Result<Self> {
        SockRef::from(&channel.0).set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(channel.0.into())?))
    }

    /// Says `word`, and waits until there is room for it.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn say(&self, word: &Word) -> io::Result<()> {
        self.send(word, &[]).await
    }

    /// The next word; `None` at the end.
    ///
    /// # Errors
    /// When what came is none.
    pub async fn hear(&self) -> io::Result<Option<Word>> {
        let receiving = || receive(&self.0);
        let received = self.0.async_io(Interest::READABLE, receiving).await;
        Ok(received?.map(|(word, _)| word))
    }

    /// Passes on all sockets of `estate`.
    ///
    /// # Errors
    /// When nobody takes them.
    pub async fn pass(&self, estate: &Estate) -> io::Result<()> {
        for passed in estate.passed() {
            // Both are known of what is kept.
            let (Some(kind), Some(configured)) = (passed.kind, passed.configured) else {
                continue;
            };
            let word = Word::Sockets {
                kind,
                configured,
                bound: passed.bound,
                is_shared: passed.is_shared,
            };
            for sockets in passed.sockets.chunks(AT_ONCE) {
                let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
                self.send(&word, &sockets).await?;
            }
        }
        self.say(&Word::Complete).await
    }

    /// Waits until the other side is gone, whatever it says before.
    pub async fn closed(&self) {
        while let Ok(Some(_)) = self.hear().await {}
    }

    async fn send(&self, word: &Word, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sending = || send(&self.0, word, sockets);
        self.0.async_io(Interest::WRITABLE, sending).await
    }
}

fn send(end: impl AsFd, word: &Word, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(word)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(invalid("too many sockets for one packet"));
    }
    loop {
        let sent = sendmsg(
            &end,
            &[IoSlice::new(&bytes)],
            &mut rights,
            SendFlags::NOSIGNAL,
        );
        match sent {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

fn receive(end: impl AsFd) -> io::Result<Option<(Word, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&end, &mut into, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(received) => break received,
        }
    };
    let mut sockets = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(invalid("a packet was cut off"));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let word = serde_json::from_slice(&bytes[..received.bytes])
        .map_err(|_| invalid("a word that this version does not know"))?;
    Ok(Some((word, sockets)))
}

/// A socket as what it is said to be.
fn listener(socket: OwnedFd, bound: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::from(socket);
    let listens = SockRef::from(&socket).is_listener()?;
    if !listens || socket.local_addr()? != bound {
        return Err(invalid("a socket that is not what it is said to be"));
    }
    Ok(socket)
}

/// Something else was to be said.
#[must_use]
pub fn unexpected(word: &Word) -> io::Error {
    match word {
        Word::Failed { why } => io::Error::other(why.clone()),
        Word::Sockets { .. } | Word::Complete | Word::LetGo | Word::Yours | Word::Ready { .. } => {
            invalid("it says what was not its turn to say")
        }
    }
}

/// What the system calls the end of the patience.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(
            io::ErrorKind::TimedOut,
            "the other process says nothing, or takes nothing, for longer than timeouts.upgrade",
        ),
        _ => error,
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::super::listener;
    use super::*;

    fn both() -> (Channel, Channel) {
        let (first, second) = Channel::pair().unwrap();
        let second = Channel(second);
        second.set_patience(Duration::from_secs(20)).unwrap();
        (first, second)
    }

    #[tokio::test]
    async fn sockets_arrive_with_their_queues() {
        let (first, second) = both();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // More than fit into one packet.
        let many = listener::bind(any, 100).unwrap();
        let one = listener::bind(any, 1).unwrap();
        let _waits = std::net::TcpStream::connect(one.address).unwrap();
        let mut estate = Estate::default();
        estate.keep(Kind::Http, &many).unwrap();
        estate.keep(Kind::Admin, &one).unwrap();
        let taking = tokio::task::spawn_blocking(move || second.hear_sockets().unwrap());
        AsyncChannel::new(first)
            .unwrap()
            .pass(&estate)
            .await
            .unwrap();
        let Inherited(passed) = taking.await.unwrap();
        let counts: Vec<usize> = passed.iter().map(|passed| passed.sockets.len()).collect();
        assert_eq!(counts, [100, 1]);
        assert_eq!(passed[0].bound, many.address);
        assert_eq!(passed[0].configured, Some(any));
        assert_eq!(passed[1].kind, Some(Kind::Admin));
        drop((one, estate));
        assert!(passed[1].sockets[0].accept().is_ok());
    }

    #[test]
    fn what_is_no_word_is_an_error_and_the_end_is_none() {
        let (first, second) = both();
        for bytes in [&b"{"[..], b"\"dance\"", b"{\"ready\":{}}", &[0xff; 40]] {
            rustix::net::send(&first.0, bytes, SendFlags::empty()).unwrap();
            let error = second.hear().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        first.say(&Word::Yours).unwrap();
        assert_eq!(second.hear().unwrap(), Some(Word::Yours));
        first.say(&Word::LetGo).unwrap();
        assert!(second.hear_sockets().is_err(), "it was not its turn");
        drop(first);
        assert_eq!(second.hear().unwrap(), None);
        assert!(second.say(&Word::LetGo).is_err());
    }

    #[test]
    fn whoever_is_silent_for_too_long_is_said_to_be() {
        let (_first, second) = both();
        second.set_patience(Duration::ZERO).unwrap();
        for error in [
            second.hear().unwrap_err(),
            second.hear_sockets().unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().contains("timeouts.upgrade"), "{error}");
        }
    }

    #[test]
    fn a_socket_that_is_another_one_is_refused() {
        let (first, second) = both();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let word = Word::Sockets {
            kind: Kind::Http,
            configured: SocketAddr::from(([127, 0, 0, 1], 1)),
            bound: SocketAddr::from(([127, 0, 0, 1], 1)),
            is_shared: false,
        };
        send(&first.0, &word, &[socket.as_fd()]).unwrap();
        assert!(second.hear_sockets().is_err());
        let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        send(&first.0, &word, &[datagram.as_fd()]).unwrap();
        assert!(second.hear_sockets().is_err());
    }

    #[test]
    fn a_long_reason_is_cut_where_a_letter_ends() {
        let Word::Failed { why } = Word::failed(&"ü".repeat(LONGEST_REASON)) else {
            unreachable!()
        };
        assert_eq!(why.len(), LONGEST_REASON);
        let (first, second) = both();
        first.say(&Word::failed(&why)).unwrap();
        assert_eq!(second.hear().unwrap(), Some(Word::Failed { why }));
    }
}
