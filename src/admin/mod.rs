//! The admin address: health, metrics, and the mailbox of `dev`. Never on a public listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use askama::Template;
use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;

use crate::host::Host;
use crate::mail::Mailbox;
use crate::server::permits::Permits;
use crate::telemetry::metrics::{Metrics, TEXT_FORMAT};
use crate::tls::expiry::{self, Expiry};
use crate::tls::keyring::Keyring;
use crate::upstream::messages::ErrorMessage;
use crate::wire::{Body, Handler, Peer, Request, Response};

/// Whether new requests are welcome.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    /// From now on they are, or not.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether they are now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers on the admin address.
#[derive(Debug, Clone)]
pub struct Admin {
    metrics: Arc<Metrics>,
    permits: Arc<Permits>,
    readiness: Arc<Readiness>,
    keyring: Arc<Keyring>,
    mailbox: Option<Mailbox>,
}

#[derive(Template)]
#[template(path = "mailbox.html")]
struct MailboxPage {
    mails: Vec<Mail>,
}

struct Mail {
    to: String,
    subject: String,
    received: String,
    /// The text, cut into what is a link and what is not.
    text: Vec<Piece>,
}

enum Piece {
    Text(String),
    Link(String),
}

impl Admin {
    /// Health and metrics with the ends of the certificates in `keyring`, and with a `mailbox` its page.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        permits: Arc<Permits>,
        readiness: Arc<Readiness>,
        keyring: Arc<Keyring>,
        mailbox: Option<Mailbox>,
    ) -> Self {
        Self {
            metrics,
            permits,
            readiness,
            keyring,
            mailbox,
        }
    }

    fn answer(&self, request: &Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allow);
            return response;
        }
        if !names_this_machine(request) {
            return error(
                StatusCode::MISDIRECTED_REQUEST,
                "the admin address is called by its IP address or as localhost",
            );
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" | "/healthz" => self.ready(request.uri().query()),
            "/metrics" => self.metrics(),
            "/" | "/mail" if self.mailbox.is_some() => self.mail(),
            _ => error(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    /// Whether requests are welcome; with `verbose`, when the certificates end too.
    fn ready(&self, query: Option<&str>) -> Response {
        let (status, mut words) = if self.readiness.is_ready() {
            (StatusCode::OK, "ok\n".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
        };
        let mut keys = query.unwrap_or_default().split('&');
        if keys.any(|key| matches!(key, "verbose" | "verbose=1" | "verbose=true")) {
            let now = Timestamp::now();
            for Expiry { label, not_after } in expiry::soonest(&self.keyring.certificates()) {
                let verb = if not_after < now { "ended" } else { "ends" };
                words.push_str(&format!("certificate {label} {verb} {not_after}\n"));
            }
        }
        text(status, words)
    }

    fn metrics(&self) -> Response {
        let ends = expiry::soonest(&self.keyring.certificates());
        let ends = ends
            .iter()
            .map(|expiry| (&*expiry.label, expiry.not_after.as_second()));
        self.metrics.tls.show(ends);
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.connections.set(number(self.permits.open()));
        metrics.connections_limit.set(number(self.permits.limit()));
        typed(
            StatusCode::OK,
            TEXT_FORMAT,
            Body::from(self.metrics.to_text()),
        )
    }

    fn mail(&self) -> Response {
        let messages = self.mailbox.as_ref().map(Mailbox::messages);
        let mails = messages
            .unwrap_or_default()
            .into_iter()
            .map(|received| Mail {
                to: received.message.to,
                subject: received.message.subject,
                received: received.at.to_string(),
                text: pieces(&received.message.text),
            })
            .collect();
        let html = MailboxPage { mails }
            .render()
            .expect("our templates write to memory only");
        let mut response = typed(StatusCode::OK, "text/html; charset=utf-8", Body::from(html));
        let policy = HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
        );
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
        response
    }
}

impl Handler for Admin {
    type Body = Body;

    async fn handle(&self, request: Request, _peer: &Peer) -> Response {
        self.answer(&request)
    }
}

/// A page of a stranger that points its own name at us (DNS rebinding) is not one of ours.
fn names_this_machine(request: &Request) -> bool {
    let authority = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    let Some(Ok(host)) = authority.map(Host::parse) else {
        return false;
    };
    let name = host.name();
    name == "localhost" || name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Cuts a mail's text at its web addresses.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest
        .find("http://")
        .into_iter()
        .chain(rest.find("https://"))
        .min()
    {
        let (before, from) = rest.split_at(start);
        let end = from.find(char::is_whitespace).unwrap_or(from.len());
        let (link, after) = from.split_at(end);
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Link(link.to_owned()));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    pieces
}

fn text(status: StatusCode, words: String) -> Response {
    typed(status, "text/plain; charset=utf-8", Body::from(words))
}

fn error(status: StatusCode, detail: &str) -> Response {
    let message = ErrorMessage::new("ingress.admin", status, detail).to_json();
    typed(status, "application/json", Body::from(message))
}

fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
