//! Scheme, host and port of a server we connect to.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderValue;

use crate::wire::Scheme;

/// Where connections lead: two requests with equal origins may share one.
#[derive(Clone)]
pub struct Origin {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
    reach: Reach,
    authority: HeaderValue,
}

/// Who named an origin, and so which addresses it may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// A tenant: the address guard applies.
    Workload,
    /// A tenant, who says that it is theirs: as before, but it may be one of our own.
    Proof,
    /// The configuration: anywhere.
    Operator,
}

/// Why a URL names no server that we can connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadOrigin {
    /// Neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// No host.
    #[error("the URL has no host")]
    Host,
    /// A user name or password in the URL.
    #[error("the URL carries a user name or password")]
    UserInfo,
}

impl Origin {
    /// The origin of an absolute URL that `reach` named.
    ///
    /// # Errors
    /// When it has another scheme, no host, or user information.
    pub fn of(url: &url::Url, reach: Reach) -> Result<Self, BadOrigin> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(BadOrigin::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadOrigin::UserInfo);
        }
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(BadOrigin::Host)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            scheme,
            host: host.into(),
            port: url.port().unwrap_or_else(|| scheme.default_port()),
            reach,
            authority: HeaderValue::try_from(authority).map_err(|_| BadOrigin::Host)?,
        })
    }

    /// What is spoken there.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or address; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who named it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// What its `Host` field says: the port only where it is unusual.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port
            && self.scheme == other.scheme
            && self.reach == other.reach
            && self.host == other.host
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The scheme and who named it hardly ever tell two origins apart.
        self.port.hash(state);
        self.host.hash(state);
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}://{}:{}",
            self.scheme.as_str(),
            self.host,
            self.port
        )
    }
}
