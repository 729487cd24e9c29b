//! Messages that we write, read by us and by hyper.

use std::future::poll_fn;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode};
use m3o_ingress::wire::client::Client;
use m3o_ingress::wire::head::HeadLimits;
use m3o_ingress::wire::server::{Next, Server};
use m3o_ingress::wire::{Body, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::checks::wire::ours::Bodies;
use crate::checks::wire::{Message, compare, ours, theirs};

/// A body of unknown length with `chunks`, or of a known one.
#[derive(Debug, Clone)]
enum Made {
    Empty,
    Full(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
}

impl Made {
    fn body(&self) -> Body {
        match self {
            Self::Empty => Body::Empty,
            Self::Full(data) => Body::from(data.clone()),
            Self::Chunks(chunks) => {
                let (sender, receiver) = mpsc::channel(chunks.len().max(1));
                for chunk in chunks {
                    sender.try_send(Bytes::from(chunk.clone())).unwrap();
                }
                Body::Chunks(receiver)
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Full(data) => data.clone(),
            Self::Chunks(chunks) => chunks.concat(),
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    let data = || vec(any::<u8>(), 0..6000);
    prop_oneof![
        Just(Made::Empty),
        data().prop_map(Made::Full),
        vec(data(), 0..4).prop_map(Made::Chunks),
    ]
}

proptest! {
    #[test]
    fn our_requests_are_read_as_they_were_meant(
        method in prop_oneof!["GET", "HEAD", "POST", "PUT", "DELETE"],
        target in "/[a-z/%?]{0,9}",
        made in vec(made(), 1..3),
    ) {
        let method: Method = method.parse().unwrap();
        let mut bytes = Vec::new();
        for made in &made {
            let mut request = Request::new(made.body());
            *request.method_mut() = method.clone();
            *request.uri_mut() = target.parse().unwrap();
            // What a client said of a body has no say in how it is framed.
            request.headers_mut().insert("transfer-encoding", HeaderValue::from_static("gzip"));
            bytes.extend(sent(request));
        }
        let ours = ours::requests(&[&bytes], Bodies::Read);
        prop_assert_eq!(compare(&ours, &theirs::requests(&[&bytes])), Ok(()));
        let bodies: Vec<_> = ours.messages.iter().map(|message| message.body.clone()).collect();
        prop_assert_eq!(bodies, made.iter().map(Made::bytes).collect::<Vec<_>>());
        prop_assert!(ours.messages.iter().all(|message| message.whole));
        let line = format!("{method} {target} HTTP/1.1");
        prop_assert!(ours.messages.iter().all(|message| message.line == line));
    }

    #[test]
    fn our_responses_are_read_as_they_were_meant(
        asked in prop_oneof![Just("GET"), Just("HEAD"), Just("POST")],
        version in prop_oneof![Just("1.0"), Just("1.1")],
        status in prop_oneof![Just(200_u16), Just(204), Just(205), Just(304), Just(404), 400..600_u16],
        made in made(),
    ) {
        let method: Method = asked.parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let request = format!("{asked} / HTTP/{version}\r\nHost: a\r\n\r\n");
        let bytes = answered(&request, status, made.body());
        let asked = [method.clone()];
        let ours = ours::responses(&[&bytes], &asked);
        prop_assert_eq!(compare(&ours, &theirs::responses(&[&bytes], &asked)), Ok(()));
        let [Message { body, whole: true, line, .. }] = &ours.messages[..] else {
            panic!("{ours:#?}");
        };
        prop_assert_eq!(line, &format!("HTTP/1.1 {}", status.as_u16()));
        let has_none = method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
        prop_assert_eq!(body, &if has_none { Vec::new() } else { made.bytes() });
    }
}

/// The bytes of `request`.
fn sent(mut request: Request) -> Vec<u8> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut client = Client::new(near);
    client.begin(&mut request);
    let sent = poll_fn(|context| client.poll_upload(context)).now_or_never();
    sent.unwrap().unwrap();
    drop(client);
    rest(far)
}

/// The bytes of the answer to `request`.
fn answered(request: &str, status: StatusCode, body: Body) -> Vec<u8> {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let sending = far.write_all(request.as_bytes()).now_or_never();
    sending.unwrap().unwrap();
    let limits = HeadLimits {
        bytes: 8 << 10,
        fields: 64,
    };
    let mut server = Server::new(near, limits);
    let next = poll_fn(|context| server.poll_next(context)).now_or_never();
    assert!(matches!(next, Some(Next::Request(_))), "{next:?}");
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let mut encoder = server.begin(&mut response, false);
    let mut body = response.into_body();
    let answering = poll_fn(|context| server.poll_answer(&mut body, &mut encoder, context));
    answering.now_or_never().unwrap().unwrap();
    drop(server);
    rest(far)
}

fn rest(mut far: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = far.read_to_end(&mut bytes).now_or_never();
    reading.unwrap().unwrap();
    bytes
}
