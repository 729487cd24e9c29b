//! Who sent a request, and over what.

use std::net::SocketAddr;

use http::HeaderValue;

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

/// A public listener: its place among those of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenerId(pub u16);

/// One connection of a client, as handlers see it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address at the other end, or the one that a load balancer announces.
    pub address: SocketAddr,
    /// What it speaks.
    pub scheme: Scheme,
    /// Where it came in.
    pub listener: ListenerId,
    /// The timer of its connection.
    pub timer: Timer,
    /// Made once a connection, so that no request has to.
    address_value: HeaderValue,
}

impl Peer {
    /// A client at `address`.
    #[must_use]
    pub fn new(address: SocketAddr, scheme: Scheme, timer: Timer) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let ip = address.ip().to_canonical().to_string();
        Self {
            address: SocketAddr::new(address.ip().to_canonical(), address.port()),
            scheme,
            listener: ListenerId::default(),
            timer,
            address_value: HeaderValue::try_from(ip).expect("an address is visible ASCII"),
        }
    }

    /// The same, come in by `listener`.
    #[must_use]
    pub fn by(self, listener: ListenerId) -> Self {
        Self { listener, ..self }
    }

    /// The IP address as a field value.
    #[must_use]
    pub fn address_value(&self) -> &HeaderValue {
        &self.address_value
    }
}
