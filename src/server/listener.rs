//! Listening sockets: one a worker on each address, new or of the process before.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::Config;
use super::inherited::{Dealt, Kind, Left, Passed};
use crate::tls::terms::Terms;
use crate::wire::Scheme;
use crate::wire::peer::ListenerId;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The sockets of one address, one a worker, so that the kernel spreads connections over them.
#[derive(Debug)]
pub struct Listeners {
    /// The address really bound, also where port 0 was asked for.
    pub address: SocketAddr,
    /// The address that was asked for.
    pub configured: SocketAddr,
    /// Whether workers share them by handles, as those of systemd, and bind none of their own.
    pub is_shared: bool,
    /// So many of them, from the first on, are sockets of their own. The others are handles of these.
    pub distinct: usize,
    /// What it is to its connections.
    pub entrance: Entrance,
    /// At least one a worker.
    pub sockets: Vec<TcpListener>,
}

/// The next worker's part of `sockets`, of `left` workers that have none yet. Moved, not shared: a worker that
/// stops accepting closes its own.
pub fn take_part(sockets: &mut Vec<TcpListener>, left: usize) -> Vec<TcpListener> {
    let rest = sockets.len().div_ceil(left.max(1));
    sockets.split_off(sockets.len() - rest)
}

/// What a listener is to the connections that come in by it.
#[derive(Debug, Clone, Default)]
pub struct Entrance {
    /// Which one it is.
    pub id: ListenerId,
    /// Where its connections begin with a PROXY header: the peers that may send one.
    pub announcers: Option<Announcers>,
    /// What its clients have to agree to; `None`: plain HTTP.
    pub tls: Option<Arc<Terms>>,
    /// Whether another process accepts there from now on.
    pub left: Left,
}

impl Entrance {
    /// What is spoken there.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match &self.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        }
    }
}

/// The load balancers whose word about clients is believed.
#[derive(Debug, Clone)]
pub struct Announcers(pub Arc<[IpNet]>);

impl Announcers {
    /// Whether `peer` is one of them.
    #[must_use]
    pub fn include(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|net| net.contains(&peer))
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has it: perhaps a second copy of ourselves.
    #[error(
        "cannot listen on {address}: the port is taken by another program, or another copy of this one; stop it or choose another port"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 need a capability.
    #[error(
        "cannot listen on {address}: no permission; ports below 1024 need CAP_NET_BIND_SERVICE"
    )]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Binds `workers` sockets to each public address, or takes those that were handed over. The peers of
/// `trusted` may announce their clients where that is asked for.
///
/// # Errors
/// When one of them cannot be listened on.
pub fn bind_public(
    config: &Config,
    trusted: &[IpNet],
    workers: usize,
    inherited: &mut Dealt,
) -> Result<Vec<Listeners>, Error> {
    let announcers = Announcers(trusted.into());
    let kinds = std::iter::repeat_n(Kind::Http, config.http.len());
    let kinds = kinds.chain(std::iter::repeat(Kind::Https));
    let addresses = (0..).map(ListenerId).zip(config.public().zip(kinds));
    let bound = addresses.map(|(id, (address, kind))| {
        let is_announced = config.proxy_protocol.contains(&address);
        let entrance = Entrance {
            id,
            announcers: is_announced.then(|| announcers.clone()),
            ..Entrance::default()
        };
        let listeners = listen(address, workers, inherited.take(kind, address))?;
        Ok(Listeners {
            entrance,
            ..listeners
        })
    });
    bound.collect()
}

/// Binds `workers` sockets to `address`.
///
/// # Errors
/// When the port is taken, not permitted, or the address is not ours.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Listeners, Error> {
    listen(address, workers, None)
}

/// Listens on `address` with at least `workers` sockets: those that were handed over, and new ones.
///
/// # Errors
/// As those of [`bind`].
pub fn listen(
    address: SocketAddr,
    workers: usize,
    inherited: Option<Passed>,
) -> Result<Listeners, Error> {
    let listening = match inherited {
        None => bind_all(address, workers),
        Some(passed) => adopt(address, workers, passed),
    };
    listening.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { address },
        io::ErrorKind::PermissionDenied => Error::Denied { address },
        _ => Error::Other { address, source },
    })
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<Listeners> {
    if address.port() != 0 {
        // With `SO_REUSEPORT` alone a second copy of ourselves would share the port in silence.
        drop(socket(address, Sharing::Alone)?);
    }
    let configured = address;
    let first = socket(address, Sharing::WithOwnWorkers)?;
    // For port 0 the kernel picks a port that nobody has, so the others follow the first.
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(address, Sharing::WithOwnWorkers)?);
    }
    Ok(Listeners {
        address,
        configured,
        is_shared: false,
        distinct: sockets.len(),
        entrance: Entrance::default(),
        sockets,
    })
}

/// Takes all sockets that were handed over: connections may wait in the queue of each. Every worker gets
/// one; a socket that is to be shared is so by handles of it.
fn adopt(configured: SocketAddr, workers: usize, passed: Passed) -> io::Result<Listeners> {
    let Passed {
        bound: address,
        is_shared,
        mut sockets,
        ..
    } = passed;
    for adopted in &sockets {
        let adopted = SockRef::from(adopted);
        prepare(&adopted)?;
        // Once more only sets how many may wait.
        adopted.listen(BACKLOG)?;
    }
    let given = sockets.len();
    for index in given..workers {
        let another = match sockets.get(index % given.max(1)) {
            Some(one) if is_shared => one.try_clone()?,
            _ => socket(address, Sharing::WithOwnWorkers)?,
        };
        sockets.push(another);
    }
    Ok(Listeners {
        address,
        configured,
        is_shared,
        distinct: match is_shared {
            true => given,
            false => sockets.len(),
        },
        entrance: Entrance::default(),
        sockets,
    })
}

/// Accepted sockets inherit both. A small answer must not wait for the acknowledgement of the one
/// before (RFC 896), and a client that vanished must not hold its place for ever (RFC 1122, 4.2.3.6).
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&probes())?;
    socket.set_nonblocking(true)
}

/// After a minute of silence, a probe each quarter of one.
fn probes() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    WithOwnWorkers,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::WithOwnWorkers {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` is two listeners, whatever the system's default.
        socket.set_only_v6(true)?;
    }
    prepare(&socket)?;
    socket.bind(&address.into())?;
    if sharing == Sharing::WithOwnWorkers {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn every_worker_has_a_socket_on_the_one_address() {
        let listeners = bind(loopback(0), 3).unwrap();
        assert_eq!(listeners.sockets.len(), 3);
        for socket in &listeners.sockets {
            assert_eq!(socket.local_addr().unwrap(), listeners.address);
        }
    }

    fn passed(sockets: Vec<TcpListener>, is_shared: bool) -> Passed {
        let bound = sockets[0].local_addr().unwrap();
        Passed {
            kind: Some(Kind::Http),
            configured: None,
            bound,
            is_shared,
            name: None,
            sockets,
        }
    }

    #[test]
    fn every_worker_accepts_whatever_number_of_sockets_there_was() {
        for workers in 1..=5 {
            let before = bind(loopback(0), 3).unwrap();
            let address = before.address;
            let inherited = passed(before.sockets, false);
            let mut after = listen(loopback(0), workers, Some(inherited)).unwrap();
            assert_eq!(after.address, address);
            assert_eq!(after.sockets.len(), workers.max(3), "none is closed");
            let parts: Vec<usize> = (0..workers)
                .map(|index| take_part(&mut after.sockets, workers - index).len())
                .collect();
            assert!(parts.iter().all(|part| *part > 0), "{parts:?}");
            assert!(after.sockets.is_empty(), "{parts:?}");
        }
    }

    #[test]
    fn workers_share_one_queue_by_handles_of_it() {
        let alone = TcpListener::bind(loopback(0)).unwrap();
        let address = alone.local_addr().unwrap();
        let shared = listen(address, 3, Some(passed(vec![alone], true))).unwrap();
        assert_eq!(shared.sockets.len(), 3);
        assert!(shared.is_shared);
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert!(shared.sockets[2].accept().is_ok());
        let nobody = shared.sockets[0].accept().unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_accepted_connection_is_probed_and_sends_at_once() {
        let listeners = bind(loopback(0), 1).unwrap();
        let _client = std::net::TcpStream::connect(listeners.address).unwrap();
        let accepted = loop {
            if let Ok((accepted, _)) = listeners.sockets[0].accept() {
                break accepted;
            }
        };
        assert!(accepted.nodelay().unwrap());
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }

    #[test]
    fn a_port_of_another_copy_of_ourselves_is_taken() {
        let first = bind(loopback(0), 2).unwrap();
        let second = bind(first.address, 2);
        assert!(matches!(second, Err(Error::Taken { .. })), "{second:?}");
    }

    #[test]
    fn a_port_of_another_program_is_taken() {
        let other = TcpListener::bind(loopback(0)).unwrap();
        let error = bind(other.local_addr().unwrap(), 1).unwrap_err();
        assert!(
            error.to_string().contains("taken by another program"),
            "{error}"
        );
    }
}
