//! Who sent a request, and over what.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

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

/// A listener: its number among all that this process ever had, so that a connection names the right one
/// also after others came and went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ListenerId(pub u32);

/// What a client and we agreed on in a handshake.
#[derive(Debug, Clone)]
pub struct Secured {
    /// The host that the client wanted to speak with, in lower case. Shared by the requests over HTTP/2.
    pub sni: Option<Arc<str>>,
    /// What it was shown.
    pub certificate: Arc<dyn Covers>,
    /// The version of TLS, as logs name it.
    pub version: Option<&'static str>,
}

/// A certificate, as far as requests are concerned.
pub trait Covers: Debug + Send + Sync {
    /// Whether it speaks for `host`, a name or an address without a port.
    fn covers(&self, host: &str) -> bool;
}

/// Whether what a peer says about who is behind it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A client: its `X-Forwarded-*` are replaced.
    Stranger,
    /// A configured proxy before us: they are kept and added to.
    Proxy,
}

/// One connection of a client, as handlers see it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address at the other end, or the one that a load balancer announces.
    pub address: SocketAddr,
    /// What it speaks.
    pub scheme: Scheme,
    /// Where it came in.
    pub listener: ListenerId,
    /// The timer of whoever answers it.
    pub timer: Timer,
    /// What was agreed on in the handshake; `None` without TLS.
    pub secured: Option<Secured>,
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
            secured: None,
            address_value: HeaderValue::try_from(ip).expect("an address is visible ASCII"),
        }
    }

    /// The same, come in by `listener`.
    #[must_use]
    pub fn by(self, listener: ListenerId) -> Self {
        Self { listener, ..self }
    }

    /// Whether this connection may carry requests for `host`, a name or an address without a port.
    ///
    /// RFC 9110, 7.4: a request whose authority the certificate does not speak for came to the wrong
    /// connection. A client that named no host in its handshake cannot have been shown the right
    /// certificate, and may ask for any.
    #[must_use]
    pub fn may_ask_for(&self, host: &str) -> bool {
        match &self.secured {
            Some(secured) => secured.sni.is_none() || secured.certificate.covers(host),
            None => true,
        }
    }

    /// The same client, answered by whoever goes by `timer`.
    #[must_use]
    pub fn going_by(&self, timer: Timer) -> Self {
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
