//! What lines and spans need of a request beside what its exchange knows.

use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use tokio::time::Instant;

use crate::telemetry::access::{Asked, Side};
use crate::telemetry::log::Layout;
use crate::wire::{Peer, Request, Scheme};

/// What only lines and spans need. Clones of what the request holds anyway.
pub(super) struct Line {
    /// `None` where what arrived was no request.
    pub(super) request: Option<RequestLine>,
    pub(super) host: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    pub(super) referer: Option<HeaderValue>,
    pub(super) client: HeaderValue,
    pub(super) scheme: Scheme,
    pub(super) tls: Option<&'static str>,
    pub(super) asked: Option<Call>,
}

pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
}

/// A request on behalf of this one.
pub(super) struct Call {
    pub(super) side: Side,
    pub(super) address: HeaderValue,
    pub(super) began: Instant,
    pub(super) answered: Option<(StatusCode, Instant)>,
}

impl Line {
    pub(super) fn of(request: &Request, peer: &Peer, layout: Layout) -> Self {
        let field = |name| request.headers().get(name).cloned();
        Self {
            request: Some(RequestLine {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
            }),
            host: field(header::HOST),
            user_agent: field(header::USER_AGENT),
            referer: match layout {
                Layout::Combined => field(header::REFERER),
                Layout::Human | Layout::Json => None,
            },
            ..Self::of_none(peer)
        }
    }

    pub(super) fn of_none(peer: &Peer) -> Self {
        Self {
            request: None,
            host: None,
            user_agent: None,
            referer: None,
            client: peer.address_value().clone(),
            scheme: peer.scheme,
            tls: peer.secured.as_ref().and_then(|secured| secured.version),
            asked: None,
        }
    }
}

impl Call {
    pub(super) fn since(&self, started: Instant) -> Asked<'_> {
        let answered = self.answered.as_ref();
        Asked {
            side: self.side,
            address: &self.address,
            after: self.began.duration_since(started),
            took: answered.map(|(_, at)| at.duration_since(self.began)),
            status: answered.map(|(status, _)| *status),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Line([hidden])")
    }
}
