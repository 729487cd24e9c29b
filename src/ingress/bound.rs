//! All that an ingress listens on when it starts, bound by itself or before it.

use std::net::SocketAddr;

use super::Error;
use crate::config::Config;
use crate::server::inherited::{Estate, Inherited, Kind};
use crate::server::listener::{self, Listeners};

/// The listeners, not yet served.
#[derive(Debug)]
pub(super) struct Bound {
    /// Those of plain HTTP, then those of HTTPS.
    pub(super) public: Vec<Listeners>,
    pub(super) admin: Option<Listeners>,
    /// Handles of both, for a process that follows.
    pub(super) estate: Estate,
    /// The addresses of those that were handed over.
    pub(super) taken: Vec<SocketAddr>,
}

impl Bound {
    /// Takes the sockets that are there, and binds the rest.
    ///
    /// # Errors
    /// When an address cannot be listened on, or a socket of systemd is for none.
    pub(super) fn bind(config: &Config, workers: usize, sockets: Inherited) -> Result<Self, Error> {
        let listen = &config.listen;
        let passed = sockets.0.iter().map(|passed| passed.bound);
        let mut taken: Vec<SocketAddr> = passed.collect();
        let mut sockets = sockets.deal(listen)?;
        let trusted = &config.backends.trusted_proxies;
        let public = listener::bind_public(listen, trusted, workers, &mut sockets)?;
        let mut admin = |address| listener::listen(address, 1, sockets.take(Kind::Admin, address));
        let admin = listen.admin.map(&mut admin).transpose()?;
        let all = || public.iter().chain(&admin);
        taken.retain(|address| all().any(|bound| bound.address == *address));
        let kinds = std::iter::repeat_n(Kind::Http, listen.http.len());
        let kinds = kinds.chain(std::iter::repeat_n(Kind::Https, listen.https.len()));
        let mut estate = Estate::default();
        for (kind, listeners) in kinds.chain([Kind::Admin]).zip(all()) {
            estate.keep(kind, listeners)?;
        }
        Ok(Self {
            public,
            admin,
            estate,
            taken,
        })
    }
}
