//! A span as plain data: what OpenTelemetry's conventions for HTTP say, and no secret.

use std::time::SystemTime;

use super::{Context, SpanId, Trace, TraceId};
use crate::telemetry::access::{Call, Entry, Outcome, foreign, version_text};

/// One span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// What it is a part of.
    pub parent: Option<SpanId>,
    /// Whether that is somebody else's.
    pub parent_is_remote: bool,
    /// The `tracestate` of its trace.
    pub state: String,
    /// The flags of its trace.
    pub flags: u8,
    /// Which side of a request it is.
    pub kind: Kind,
    /// `{method} {route}`.
    pub name: String,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// A span in another trace that led here.
    pub link: Option<Context>,
    /// Whether it failed.
    pub failed: bool,
}

/// Which side of a request a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answering it.
    Server,
    /// Sending it.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One of our own words.
    Word(&'static str),
    /// Any text.
    Text(String),
    /// A number.
    Number(i64),
}

/// The span of a request.
pub(super) fn server(trace: &Trace, entry: &Entry<'_>) -> Span {
    let method = Known::of(entry.method);
    let mut attributes = with_method(method);
    let mut text = |key, value: Option<&str>| {
        attributes.extend(value.map(|value| (key, Value::Text(foreign(value).into_owned()))));
    };
    text("url.path", Some(&entry.path));
    text("url.query", entry.query.as_deref());
    text("server.address", entry.host.as_deref().map(without_port));
    text("client.address", entry.client.to_str().ok());
    text("user_agent.original", entry.user_agent.as_deref());
    text("m3o.app", entry.app);
    text("m3o.request_id", Some(entry.request_id));
    let mut word = |key, value: Option<&'static str>| {
        attributes.extend(value.map(|value| (key, Value::Word(value))));
    };
    word("url.scheme", Some(entry.scheme.as_str()));
    word("http.route", Some(entry.route));
    word("network.protocol.version", entry.version.map(version_text));
    word("m3o.outcome", Some(entry.outcome.as_str()));
    word("m3o.cache", entry.cache);
    let mut size = |key, octets: u64| {
        let octets = i64::try_from(octets).unwrap_or(i64::MAX);
        attributes.push((key, Value::Number(octets)));
    };
    size("http.request.body.size", entry.received);
    size("http.response.body.size", entry.sent);
    attributes.push(status(entry.status));
    let failed = entry.status >= 500 || entry.outcome == Outcome::Cut;
    if failed {
        attributes.push(("error.type", error(entry, Some(entry.status))));
    }
    Span {
        parent: trace.parent,
        parent_is_remote: trace.parent.is_some(),
        kind: Kind::Server,
        name: method.span(entry.route),
        began: trace.began,
        ended: trace.began + entry.took,
        attributes,
        link: trace.link,
        failed,
        ..empty(trace, SpanId::new())
    }
}

/// The span of what was asked for it, below the span `server`: until the head of the answer. Its URL is
/// left out, because a tenant's or an operator's may hold a key anywhere.
pub(super) fn client(
    trace: &Trace,
    server: SpanId,
    entry: &Entry<'_>,
    call: &Call,
) -> Option<Span> {
    let id = call.span?;
    let method = Known::of(call.method.as_str());
    let mut attributes = with_method(method);
    let authority = call.address.to_str().unwrap_or_default();
    let address = without_port(authority).to_owned();
    attributes.push(("server.address", Value::Text(address)));
    attributes.push(("server.port", Value::Number(call.port.into())));
    attributes.push(("m3o.side", Value::Word(call.side.as_str())));
    let answered = call.status.map(|status| status.as_u16());
    attributes.extend(answered.map(status));
    // To whoever asks, a 4xx is a failure too.
    let failed = answered.is_none_or(|status| status >= 400);
    if failed {
        attributes.push(("error.type", error(entry, answered)));
    }
    let began = trace.began + call.after;
    let until_the_end = entry.took.saturating_sub(call.after);
    Some(Span {
        parent: Some(server),
        kind: Kind::Client,
        name: method.span(entry.route),
        began,
        ended: began + call.took.unwrap_or(until_the_end),
        attributes,
        failed,
        ..empty(trace, id)
    })
}

fn empty(trace: &Trace, id: SpanId) -> Span {
    Span {
        trace: trace.id,
        id,
        parent: None,
        parent_is_remote: false,
        state: trace.state.clone().unwrap_or_default(),
        flags: trace.flags,
        kind: Kind::Server,
        name: String::new(),
        began: trace.began,
        ended: trace.began,
        attributes: Vec::new(),
        link: None,
        failed: false,
    }
}

fn with_method(method: Known<'_>) -> Vec<(&'static str, Value)> {
    let mut attributes = Vec::with_capacity(20);
    let known = method.0.unwrap_or("_OTHER");
    attributes.push(("http.request.method", Value::Text(known.to_owned())));
    attributes
}

/// A method, if it is one that is known.
#[derive(Clone, Copy)]
struct Known<'a>(Option<&'a str>);

impl<'a> Known<'a> {
    fn of(method: &'a str) -> Self {
        Self(match method {
            "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE"
            | "PATCH" | "QUERY" => Some(method),
            _ => None,
        })
    }

    /// The name of a span: what is no known method is `HTTP` there.
    fn span(self, route: &str) -> String {
        format!("{} {route}", self.0.unwrap_or("HTTP"))
    }
}

fn status(status: u16) -> (&'static str, Value) {
    ("http.response.status_code", Value::Number(status.into()))
}

/// What failed: our own word for it, else the status.
fn error(entry: &Entry<'_>, status: Option<u16>) -> Value {
    match (entry.error, status) {
        (Some(word), _) => Value::Word(word),
        (None, Some(status)) if status >= 400 => Value::Text(status.to_string()),
        (None, _) => Value::Word(entry.outcome.as_str()),
    }
}

fn without_port(authority: &str) -> &str {
    let host = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority[host..].find(':').map(|colon| host + colon);
    &authority[..port.unwrap_or(authority.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_without_its_port() {
        for (authority, address) in [
            ("m3o.app", "m3o.app"),
            ("m3o.app:8080", "m3o.app"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(authority), address);
        }
    }
}
