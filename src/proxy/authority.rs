//! The one authority of a request: what it is routed by, forwarded as, and logged under.

use http::{HeaderValue, Uri, Version, header};

use crate::host::{BadHost, Host};
use crate::wire::{Request, Scheme};

/// The authority as the client wrote it.
///
/// RFC 9112, 3.2: an absolute target wins over `Host`; a missing, double or invalid `Host` is a 400.
/// RFC 9113, 8.3.1: over HTTP/2 the two must name the same.
///
/// # Errors
/// When there is no authority, or two.
pub(super) fn authority(request: &Request) -> Result<HeaderValue, BadAuthority> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadAuthority::Double);
    }
    if let Some(authority) = request.uri().authority() {
        match host {
            Some(value) if value == authority.as_str() => {}
            Some(value) => {
                let other = self::host(value)?;
                if request.version() == Version::HTTP_2 && !names(&other, request.uri()) {
                    return Err(BadAuthority::Differs);
                }
            }
            None if request.version() == Version::HTTP_11 => return Err(BadAuthority::Missing),
            None => {}
        }
        return HeaderValue::from_str(authority.as_str())
            .map_err(|_| BadAuthority::Invalid(BadHost::Character));
    }
    host.cloned().ok_or(BadAuthority::Missing)
}

/// Whether `host` is the one in `uri`; a port that is left out is that of the scheme.
fn names(host: &Host<'_>, uri: &Uri) -> bool {
    let default = match uri.scheme_str() {
        Some("https") => Scheme::Https.default_port(),
        _ => Scheme::Http.default_port(),
    };
    let port = |host: &Host<'_>| host.port().unwrap_or(default);
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    Host::parse(authority)
        .is_ok_and(|other| other.name() == host.name() && port(&other) == port(host))
}

/// The host in an authority.
///
/// # Errors
/// When it is none.
pub(super) fn host(authority: &HeaderValue) -> Result<Host<'_>, BadAuthority> {
    let text = authority
        .to_str()
        .map_err(|_| BadAuthority::Invalid(BadHost::Character))?;
    Host::parse(text).map_err(BadAuthority::Invalid)
}

/// Why a request has no authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAuthority {
    #[error("the request names no host")]
    Missing,
    #[error("the request has more than one Host field")]
    Double,
    #[error("the request names two hosts")]
    Differs,
    #[error("the request's host is not valid: {0}")]
    Invalid(BadHost),
}
