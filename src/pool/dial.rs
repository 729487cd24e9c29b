//! Makes a connection: name, address guard, TCP, TLS. Keeps none.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::eyeballs;
use super::guard::Guard;
use super::names::{NameServer, Names, NoTexts};
use super::origin::Origin;
use super::secure::Secure;
use super::stream::Stream;
use crate::wire::Scheme;

/// What every worker dials with: one name cache, one set of authorities.
#[derive(Clone)]
pub struct Dialer {
    guard: Guard,
    timeout: Duration,
    tls: Arc<ClientConfig>,
    names: Names,
}

/// Addresses of one name that are tried at most: more would let a name send us all over the net for
/// one request.
const MOST_ADDRESSES: usize = 32;

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
    /// It took longer than `timeouts.connect`.
    #[error("connecting to {origin} took too long")]
    TimedOut {
        /// Where to.
        origin: Origin,
    },
}

/// Authorities that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("backends.ca: cannot read certificates from {path}: {reason}")]
pub struct BadAuthorities {
    path: PathBuf,
    reason: String,
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
        Ok(Self {
            guard,
            timeout,
            tls: Arc::new(tls_config(ca)?),
            names: match servers {
                [] => Names::of_system(runtime),
                servers => Names::of_servers(servers, runtime),
            },
        })
    }

    /// The TXT records of `name`. The guard has no say: nothing is dialled.
    pub(super) async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, NoTexts> {
        let texts = tokio::time::timeout(self.timeout, self.names.texts(name)).await;
        texts.unwrap_or(Err(NoTexts::TimedOut))
    }

    /// Connects to `origin` within `timeouts.connect`, name and TLS included.
    ///
    /// # Errors
    /// When no permitted address of it can be connected to.
    pub(super) async fn dial(&self, origin: &Origin) -> Result<Stream, DialError> {
        tokio::time::timeout(self.timeout, self.connect(origin))
            .await
            .unwrap_or_else(|_| {
                Err(DialError::TimedOut {
                    origin: origin.clone(),
                })
            })
    }

    async fn connect(&self, origin: &Origin) -> Result<Stream, DialError> {
        let connect_error = |source| DialError::Connect {
            origin: origin.clone(),
            source,
        };
        let tcp = self.connect_tcp(origin).await?;
        tcp.set_nodelay(true).map_err(connect_error)?;
        // A backend that vanished under a quiet tunnel is noticed.
        let probes = TcpKeepalive::new().with_time(Duration::from_secs(60));
        SockRef::from(&tcp)
            .set_tcp_keepalive(&probes)
            .map_err(connect_error)?;
        match origin.scheme() {
            Scheme::Http => Ok(Stream::Plain(tcp)),
            Scheme::Https => {
                let name = origin.host().trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|error| connect_error(io::Error::other(error)))?;
                let tls = Secure::connect(&self.tls, name, tcp).await;
                Ok(Stream::Tls(Box::new(tls.map_err(connect_error)?)))
            }
        }
    }

    /// Connects to whichever permitted address answers first.
    async fn connect_tcp(&self, origin: &Origin) -> Result<TcpStream, DialError> {
        let addresses = self.permitted(origin, self.addresses(origin).await?)?;
        let failed = |source| DialError::Connect {
            origin: origin.clone(),
            source,
        };
        match addresses.split_first() {
            Some((first, others)) => eyeballs::race(*first, others, TcpStream::connect)
                .await
                .map_err(failed),
            None => Err(failed(io::ErrorKind::AddrNotAvailable.into())),
        }
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
        let host = origin.host();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse() {
            return Ok(vec![address]);
        }
        let found = self.names.addresses(host).await;
        found.map_err(|source| DialError::Name {
            origin: origin.clone(),
            source,
        })
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Dialer")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

fn tls_config(ca: &str) -> Result<ClientConfig, BadAuthorities> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let (_, unusable) = roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        tracing::warn!(
            unusable,
            "the system has no certificate authorities; https backends need backends.ca"
        );
    }
    if !ca.is_empty() {
        for certificate in read_certificates(Path::new(ca))? {
            roots
                .add(certificate)
                .map_err(|error| bad_authorities(Path::new(ca), &error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadAuthorities> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad_authorities(path, &error))?;
    if certificates.is_empty() {
        return Err(bad_authorities(path, &"it holds none"));
    }
    Ok(certificates)
}

fn bad_authorities(path: &Path, reason: &dyn std::fmt::Display) -> BadAuthorities {
    BadAuthorities {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
