//! What of a request only its line and its spans tell: kept where there is one of them.

use http::{HeaderValue, Method, Uri, Version, header};

use crate::telemetry::access::Call;
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
    /// What was asked for the answer, the last of it.
    pub(super) call: Option<Call>,
}

pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
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
            call: None,
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Line([hidden])")
    }
}
