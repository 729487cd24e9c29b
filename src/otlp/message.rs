//! Spans as OTLP's messages: the part of `opentelemetry/proto/trace/v1` that we have something to
//! say in.

use std::time::SystemTime;

use prost::Message;

use crate::telemetry::traces::context::Context;
use crate::telemetry::traces::span::{self, Value};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// What a collector answers.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// In flags: whether it is known where the other span is, and that it is somebody else's.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A request that tells `spans` of a process with these attributes.
pub(super) fn request(resource: &[(String, String)], spans: Vec<span::Span>) -> Vec<u8> {
    let attributes = resource
        .iter()
        .map(|(key, value)| attribute(key, Any::Text(value.clone())));
    let request = Request {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes.collect(),
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(Scope {
                    name: "m3o-ingress".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }),
                spans: spans.into_iter().map(message).collect(),
            }],
        }],
    };
    request.encode_to_vec()
}

/// How many spans a collector did not take, of those of a request that it answered with `body`.
pub(super) fn rejected(body: &[u8]) -> u64 {
    let partial = Response::decode(body)
        .ok()
        .and_then(|response| response.partial_success);
    let rejected = partial.map_or(0, |partial| partial.rejected_spans);
    u64::try_from(rejected).unwrap_or(0)
}

fn message(span: span::Span) -> Span {
    let remote = match span.parent_is_remote {
        true => HAS_IS_REMOTE | IS_REMOTE,
        false => HAS_IS_REMOTE,
    };
    Span {
        trace_id: span.trace.as_bytes().to_vec(),
        span_id: span.id.as_bytes().to_vec(),
        trace_state: span.state,
        parent_span_id: span
            .parent
            .map(|parent| parent.as_bytes().to_vec())
            .unwrap_or_default(),
        name: span.name,
        kind: match span.kind {
            span::Kind::Server => SERVER,
            span::Kind::Client => CLIENT,
        },
        start_time_unix_nano: nanos(span.began),
        end_time_unix_nano: nanos(span.ended),
        attributes: span
            .attributes
            .into_iter()
            .map(|(key, value)| {
                let any = match value {
                    Value::Word(word) => Any::Text(word.to_owned()),
                    Value::Text(text) => Any::Text(text),
                    Value::Number(number) => Any::Number(number),
                };
                attribute(key, any)
            })
            .collect(),
        links: span.link.iter().map(link).collect(),
        status: span.failed.then_some(Status { code: ERROR }),
        flags: u32::from(span.flags) | remote,
    }
}

fn link(to: &Context) -> Link {
    Link {
        trace_id: to.trace.as_bytes().to_vec(),
        span_id: to.span.as_bytes().to_vec(),
        flags: u32::from(to.flags) | HAS_IS_REMOTE | IS_REMOTE,
    }
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
