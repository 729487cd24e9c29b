//! Scheme, host and port of a server we connect to.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use http::HeaderValue;

use crate::wire::Scheme;

/// Where connections lead: two requests with equal origins may share one.
///
/// There is one for each app that is known, so its text is there once.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The host, and behind a colon the port where it is unusual.
    authority: HeaderValue,
    port: u16,
    scheme: Scheme,
    spoken: Spoken,
    reach: Reach,
}

/// Which version of HTTP is spoken at an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Spoken {
    /// HTTP/1.1: the scheme is `http`.
    Http1,
    /// HTTP/2 without a question (RFC 9113, 3.3): the scheme is `h2c`.
    Http2,
    /// What the server picks when TLS begins: the scheme is `https`.
    Agreed,
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
    /// None of `http`, `https` and `h2c`.
    #[error("the scheme is none of http, https and h2c")]
    BackendScheme,
    /// No host.
    #[error("the URL has no host")]
    Host,
    /// A user name or password in the URL.
    #[error("the URL carries a user name or password")]
    UserInfo,
}

impl Origin {
    /// The origin of an absolute URL that `reach` named. A workload may be at an `h2c` URL: that is what
    /// `http` would be, and HTTP/2 is spoken there.
    ///
    /// # Errors
    /// When it has another scheme, no host, or user information.
    pub fn of(url: &url::Url, reach: Reach) -> Result<Self, BadOrigin> {
        let (scheme, spoken) = match (url.scheme(), reach) {
            ("http", _) => (Scheme::Http, Spoken::Http1),
            ("https", _) => (Scheme::Https, Spoken::Agreed),
            ("h2c", Reach::Workload) => {
                // Only of web URLs is the host read as one, so it is read as that of such.
                if !url.has_host() {
                    return Err(BadOrigin::Host);
                }
                let web = format!("http{}", &url.as_str()["h2c".len()..]);
                let web = url::Url::parse(&web).map_err(|_| BadOrigin::Host)?;
                let spoken = Spoken::Http2;
                return Ok(Self {
                    spoken,
                    ..Self::of(&web, reach)?
                });
            }
            (_, Reach::Workload) => return Err(BadOrigin::BackendScheme),
            (_, Reach::Proof | Reach::Operator) => return Err(BadOrigin::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadOrigin::UserInfo);
        }
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(BadOrigin::Host)?;
        let authority = match url.port() {
            Some(port) => HeaderValue::from_str(&format!("{host}:{port}")),
            None => HeaderValue::from_str(host),
        };
        Ok(Self {
            authority: authority.map_err(|_| BadOrigin::Host)?,
            port: url.port().unwrap_or_else(|| scheme.default_port()),
            scheme,
            spoken,
            reach,
        })
    }

    /// Plain or over TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether other protocols than WebSockets can be switched to there: HTTP/2 knows no other
    /// (RFC 9113, 8.6, and RFC 8441).
    #[must_use]
    pub fn switches_protocols(&self) -> bool {
        self.spoken != Spoken::Http2
    }

    /// The version of HTTP that is spoken there.
    pub(super) fn spoken(&self) -> Spoken {
        self.spoken
    }

    /// Name or address; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let authority = self.authority.to_str();
        let authority = authority.expect("the host of a URL is visible ASCII");
        match authority.rsplit_once(':') {
            Some((host, _)) if self.port != self.scheme.default_port() => host,
            _ => authority,
        }
    }

    /// The host, where it is an address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let literal = self.host().trim_start_matches('[').trim_end_matches(']');
        literal.parse().ok()
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

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The scheme and who named it hardly ever tell two origins apart.
        self.authority.hash(state);
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.spoken {
            Spoken::Http2 => "h2c",
            Spoken::Http1 | Spoken::Agreed => self.scheme.as_str(),
        };
        write!(out, "{scheme}://{}:{}", self.host(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, reach: Reach) -> Result<Origin, BadOrigin> {
        Origin::of(&url::Url::parse(url).unwrap(), reach)
    }

    #[test]
    fn h2c_is_http_where_http2_is_spoken_and_another_origin() {
        let plain = of("http://Backend.example:8080/x", Reach::Workload).unwrap();
        let h2c = of("h2c://Backend.example:8080/x", Reach::Workload).unwrap();
        assert_eq!(h2c.scheme(), Scheme::Http);
        assert_eq!(h2c.host(), plain.host());
        assert_eq!(h2c.authority(), plain.authority());
        assert_ne!(h2c, plain);
        assert_eq!(h2c.to_string(), "h2c://backend.example:8080");
        let usual = of("h2c://b:80", Reach::Workload).unwrap();
        assert_eq!(
            (usual.port(), usual.authority().as_bytes()),
            (80, &b"b"[..])
        );
    }

    #[test]
    fn host_and_port_are_those_of_the_url() {
        let check = |url: &str, host: &str, port: u16, authority: &str| {
            let origin = of(url, Reach::Workload).unwrap();
            let found = (origin.host(), origin.port(), origin.authority().as_bytes());
            assert_eq!(found, (host, port, authority.as_bytes()), "{url}");
        };
        check("http://b.example/x", "b.example", 80, "b.example");
        check("http://B.example:80", "b.example", 80, "b.example");
        check("http://b.example:443", "b.example", 443, "b.example:443");
        check("https://b.example:443/", "b.example", 443, "b.example");
        check("https://b.example:80/", "b.example", 80, "b.example:80");
        check("http://[::1]", "[::1]", 80, "[::1]");
        check("http://[::1]:81", "[::1]", 81, "[::1]:81");
        check("h2c://[::1]:80", "[::1]", 80, "[::1]");
        check("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080");
    }

    #[test]
    fn only_workloads_are_at_h2c_urls() {
        assert_eq!(of("h2c://b", Reach::Operator), Err(BadOrigin::Scheme));
        assert_eq!(
            of("ftp://b", Reach::Workload),
            Err(BadOrigin::BackendScheme)
        );
    }
}
