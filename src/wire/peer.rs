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

/// One connection of a client, as handlers see it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address at the other end.
    pub address: SocketAddr,
    /// What it speaks.
    pub scheme: Scheme,
    /// The timer of the task that answers it.
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
            timer,
            address_value: HeaderValue::try_from(ip).expect("an address is visible ASCII"),
        }
    }

    /// The same client in a task of its own, which drives `timer`.
    #[must_use]
    pub fn in_task_of(&self, timer: Timer) -> Self {
        Self {
            timer,
            ..self.clone()
        }
    }

    /// The IP address as a field value.
    #[must_use]
    pub fn address_value(&self) -> &HeaderValue {
        &self.address_value
    }
}
