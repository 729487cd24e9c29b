//! Who sent a request, and over what.

use std::net::SocketAddr;

use super::timer::Timer;

/// The scheme a client used, as `X-Forwarded-Proto` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is left out of a URL.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// One connection of a client, as handlers see it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address at the other end.
    pub address: SocketAddr,
    /// The address that it connected to.
    pub server: SocketAddr,
    /// What it speaks.
    pub scheme: Scheme,
    /// The timer of its connection.
    pub timer: Timer,
}
