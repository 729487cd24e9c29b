//! Makes a connection: name, address guard, TCP, TLS. Keeps none.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::eyeballs;
use super::guard::{Guard, Verdict};
use super::names::{NameServer, Names, NoTexts};
use super::origin::{Origin, Spoken};
use super::outliers::{Attempt, Dial, Member, Outliers, Target};
use super::secure::Secure;
use super::shared::Fresh;
use super::stream::Stream;
use crate::wire::Scheme;

/// What every worker dials with: one name cache, one set of authorities.
#[derive(Clone)]
pub struct Dialer {
    guard: Guard,
    timeout: Duration,
    /// Offers HTTP/2 and HTTP/1.1.
    tls: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone.
    tls_http1: Arc<ClientConfig>,
    names: Names,
    /// `None`: addresses are tried as their name has them.
    outliers: Option<Arc<Outliers>>,
}

/// Addresses of one name that are tried at most: more would let a name send us all over the net for
/// one request.
const MOST_ADDRESSES: usize = 32;

/// A connection, by what is spoken over it.
#[derive(Debug)]
pub(super) enum Dialled {
    /// HTTP/1.1: one request at a time.
    Own(Stream, Option<Member>),
    /// HTTP/2: many at once.
    Shared(Box<Fresh>),
}

/// The names of protocols in TLS (RFC 7301, RFC 9113, 3.2).
const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name has no address.
    #[error("cannot resolve {origin}")]
    Name {
        /// Where to.
        origin: Origin,
        /// What the resolver says.
        #[source]
        source: Box<hickory_resolver::net::NetError>,
    },
    /// Every address is one that backends may not live on.
    #[error("{origin} is at {address}, which is our own or private (backends.allow_private)")]
    Forbidden {
        /// Where to.
        origin: Origin,
        /// The last address that was refused.
        address: IpAddr,
    },
    /// Nothing listens there, or TLS failed.
    #[error("cannot connect to {origin}")]
    Connect {
        /// Where to.
        origin: Origin,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It took longer than `timeouts.connect`; over HTTP/2 the server's first words belong to that.
    #[error("connecting to {origin} took too long")]
    TimedOut {
        /// Where to.
        origin: Origin,
    },
}

impl DialError {
    /// The same, for another request that waited for the same connection.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Name { origin, source } => Self::Name {
                origin: origin.clone(),
                source: source.clone(),
            },
            Self::Forbidden { origin, address } => Self::Forbidden {
                origin: origin.clone(),
                address: *address,
            },
            Self::Connect { origin, source } => Self::Connect {
                origin: origin.clone(),
                source: source.raw_os_error().map_or_else(
                    || io::Error::new(source.kind(), source.to_string()),
                    io::Error::from_raw_os_error,
                ),
            },
            Self::TimedOut { origin } => Self::TimedOut {
                origin: origin.clone(),
            },
        }
    }
}

/// Authorities that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificates from {path}: {reason}")]
pub struct BadAuthorities {
    path: PathBuf,
    reason: String,
}

/// A file of authorities, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    path: PathBuf,
    pem: Vec<u8>,
}

impl Authorities {
    /// Reads the file `ca`; `None` where that is empty. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(ca: &str) -> Result<Option<Self>, BadAuthorities> {
        if ca.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(ca);
        let pem = std::fs::read(&path).map_err(|error| bad_authorities(&path, &error))?;
        Ok(Some(Self { path, pem }))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, BadAuthorities> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.pem)
            .collect::<Result<_, _>>()
            .map_err(|error| bad_authorities(&self.path, &error))?;
        if certificates.is_empty() {
            return Err(bad_authorities(&self.path, &"it holds none"));
        }
        Ok(certificates)
    }
}

impl Dialer {
    /// Trusts the system's authorities and those in `ca`; looks names up on `runtime`, at `servers` or
    /// where there are none at those of the system.
    ///
    /// # Errors
    /// When `ca` names a file that holds no certificate.
    pub fn new(
        guard: Guard,
        timeout: Duration,
        ca: &str,
        servers: &[NameServer],
        runtime: Handle,
    ) -> Result<Self, BadAuthorities> {
        let authorities = Authorities::read(ca)?;
        Self::trusting(guard, timeout, authorities.as_ref(), servers, runtime)
    }

    /// As [`Dialer::new`], with authorities that were read.
    ///
    /// # Errors
    /// When they are none.
    pub fn trusting(
        guard: Guard,
        timeout: Duration,
        authorities: Option<&Authorities>,
        servers: &[NameServer],
        runtime: Handle,
    ) -> Result<Self, BadAuthorities> {
        // RFC 7301: the server picks; one that knows nothing of this speaks HTTP/1.1.
        let mut tls = tls_config(authorities)?;
        tls.alpn_protocols = vec![HTTP_1.to_vec()];
        let tls_http1 = Arc::new(tls.clone());
        tls.alpn_protocols.insert(0, HTTP_2.to_vec());
        Ok(Self {
            guard,
            timeout,
            tls: Arc::new(tls),
            tls_http1,
            names: match servers {
                [] => Names::of_system(runtime),
                servers => Names::of_servers(servers, runtime),
            },
            outliers: None,
        })
    }

    /// The same, which spreads connections over the addresses of a name and leaves those out that fail.
    #[must_use]
    pub fn leaving_out(self, outliers: Arc<Outliers>) -> Self {
        Self {
            outliers: Some(outliers),
            ..self
        }
    }

    /// What is left out.
    pub(super) fn outliers(&self) -> Option<&Outliers> {
        self.outliers.as_deref()
    }

    /// How long connecting may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether `other` is a clone of this one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tls, &other.tls)
    }

    /// The TXT records of `name`. The guard has no say: nothing is dialled.
    pub(super) async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, NoTexts> {
        let texts = tokio::time::timeout(self.timeout, self.names.texts(name)).await;
        texts.unwrap_or(Err(NoTexts::TimedOut))
    }

    /// Where `origin` is, and what the guard says of each address. Dials nothing.
    ///
    /// # Errors
    /// When its name has no address, or nobody says so in time.
    pub async fn look(&self, origin: &Origin) -> Result<Vec<(SocketAddr, Verdict)>, DialError> {
        let found = self.in_time(origin, self.addresses(origin)).await?;
        let judged = |ip| {
            let address = SocketAddr::new(ip, origin.port());
            (address, self.guard.verdict(address, origin.reach()))
        };
        Ok(found.into_iter().map(judged).collect())
    }

    /// Connects to `origin` within `timeouts.connect`, name, TLS and the server's first words over
    /// HTTP/2 included.
    ///
    /// # Errors
    /// When no permitted address of it can be connected to.
    pub(super) async fn dial(&self, origin: &Origin) -> Result<Dialled, DialError> {
        let dial = Dial::within(self.timeout);
        let dialled = async {
            let (stream, attempt) = self.connect(origin, &self.tls, &dial).await?;
            if origin.spoken() != Spoken::Http2 && stream.agreed() != Some(HTTP_2) {
                return Ok(Dialled::Own(stream, attempt.succeeded()));
            }
            match Fresh::greet(stream).await {
                Ok(fresh) => {
                    let fresh = fresh.at(attempt.succeeded());
                    Ok(Dialled::Shared(Box::new(fresh)))
                }
                Err(source) => {
                    attempt.failed();
                    Err(cannot_connect(origin, source))
                }
            }
        };
        self.in_time(origin, dialled).await
    }

    /// The same for a connection that one request has to itself: HTTP/1.1 is spoken over it.
    ///
    /// # Errors
    /// When no permitted address of it can be connected to.
    pub(super) async fn dial_http1(
        &self,
        origin: &Origin,
    ) -> Result<(Stream, Option<Member>), DialError> {
        let dial = Dial::within(self.timeout);
        let dialled = async {
            let (stream, attempt) = self.connect(origin, &self.tls_http1, &dial).await?;
            Ok((stream, attempt.succeeded()))
        };
        self.in_time(origin, dialled).await
    }

    async fn in_time<T>(
        &self,
        origin: &Origin,
        dialled: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        tokio::time::timeout(self.timeout, dialled)
            .await
            .unwrap_or_else(|_| {
                Err(DialError::TimedOut {
                    origin: origin.clone(),
                })
            })
    }

    /// A connection, and the attempt of `dial` that it is.
    async fn connect(
        &self,
        origin: &Origin,
        tls: &Arc<ClientConfig>,
        dial: &Dial,
    ) -> Result<(Stream, Attempt), DialError> {
        let (tcp, attempt) = self.connect_tcp(origin, dial).await?;
        match over(origin, tls, tcp).await {
            Ok(stream) => Ok((stream, attempt)),
            Err(source) => {
                attempt.failed();
                Err(cannot_connect(origin, source))
            }
        }
    }

    /// Connects to whichever permitted address answers first. Those that are left out come last, as soon
    /// as all others have failed or taken a while.
    async fn connect_tcp(
        &self,
        origin: &Origin,
        dial: &Dial,
    ) -> Result<(TcpStream, Attempt), DialError> {
        let addresses = self.permitted(origin, self.addresses(origin).await?)?;
        let targets = match &self.outliers {
            Some(outliers) => outliers.choose(origin, addresses),
            None => addresses.into_iter().map(Target::unwatched).collect(),
        };
        let connected = match targets.split_first() {
            Some((first, others)) => {
                eyeballs::race(first, others, |target| attempt(target, dial)).await
            }
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        connected.map_err(|source| cannot_connect(origin, source))
    }

    /// What may be dialled of `addresses`, checked: a name cannot change its mind in between.
    fn permitted(
        &self,
        origin: &Origin,
        addresses: Vec<IpAddr>,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let refused = addresses.last().copied();
        let permitted: Vec<SocketAddr> = addresses
            .into_iter()
            .map(|ip| SocketAddr::new(ip, origin.port()))
            .filter(|address| self.guard.permits(*address, origin.reach()))
            .take(MOST_ADDRESSES)
            .collect();
        match refused {
            Some(address) if permitted.is_empty() => Err(DialError::Forbidden {
                origin: origin.clone(),
                address,
            }),
            _ => Ok(permitted),
        }
    }

    async fn addresses(&self, origin: &Origin) -> Result<Vec<IpAddr>, DialError> {
        if let Some(address) = origin.ip() {
            return Ok(vec![address]);
        }
        let found = self.names.addresses(origin.host()).await;
        found.map_err(|source| DialError::Name {
            origin: origin.clone(),
            source,
        })
    }
}

async fn attempt(target: &Target, dial: &Dial) -> io::Result<(TcpStream, Attempt)> {
    let attempt = dial.attempt(target.member.clone());
    match TcpStream::connect(target.address).await {
        Ok(tcp) => Ok((tcp, attempt.connected())),
        Err(error) => {
            match is_ours(&error) {
                true => attempt.unknown(),
                false => attempt.failed(),
            }
            Err(error)
        }
    }
}

/// Whether no connection could be made to anybody: for want of a descriptor, of memory, of a port or a
/// route, or because this machine does not let us. That says nothing of the address.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::ADDRNOTAVAIL
                | Errno::AFNOSUPPORT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::ACCESS
                | Errno::PERM
        )
    )
}

/// What is spoken over `tcp`.
async fn over(origin: &Origin, tls: &Arc<ClientConfig>, tcp: TcpStream) -> io::Result<Stream> {
    tcp.set_nodelay(true)?;
    // A backend that vanished under a quiet tunnel is noticed.
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(60));
    SockRef::from(&tcp).set_tcp_keepalive(&probes)?;
    match origin.scheme() {
        Scheme::Http => Ok(Stream::Plain(tcp)),
        Scheme::Https => {
            let name = origin.host().trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
            let tls = Secure::connect(tls, name, tcp).await?;
            Ok(Stream::Tls(Box::new(tls)))
        }
    }
}

fn cannot_connect(origin: &Origin, source: io::Error) -> DialError {
    DialError::Connect {
        origin: origin.clone(),
        source,
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Dialer")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

fn tls_config(authorities: Option<&Authorities>) -> Result<ClientConfig, BadAuthorities> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        tracing::warn!(
            unusable,
            "the system has no certificate authorities: only those in backends.ca and tls.acme.ca are trusted"
        );
    }
    if let Some(authorities) = authorities {
        for certificate in authorities.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| bad_authorities(&authorities.path, &error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn bad_authorities(path: &Path, reason: &dyn std::fmt::Display) -> BadAuthorities {
    BadAuthorities {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
