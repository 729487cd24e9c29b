//! Our own pages: self-contained, escaped when compiled, without script.

use askama::Template;
use http::{HeaderValue, StatusCode, header};

use crate::wire::{Body, Response};

/// What happened, in one sentence: errors, and verification without a redirect.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message<'a> {
    pub(super) status: u16,
    pub(super) title: &'a str,
    pub(super) text: &'a str,
    /// Where the reader may go on.
    pub(super) link: Option<&'a str>,
    pub(super) request_id: &'a str,
}

/// The button before a token is spent.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage;

/// The list of apps.
#[derive(Template)]
#[template(path = "index.html")]
pub(super) struct IndexPage {
    pub(super) apps: Vec<IndexEntry>,
}

/// One app of the list.
pub(super) struct IndexEntry {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) status: String,
}

/// A page of ours, with the fields that keep it harmless.
pub(super) fn respond(status: StatusCode, page: &impl Template) -> Response {
    let html = page.render().expect("our templates write to memory only");
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
