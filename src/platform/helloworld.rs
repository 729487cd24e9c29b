//! `helloworld`: says hello, once or in a stream, over plain HTTP or a WebSocket.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::task::TaskTracker;

use super::error::Error;
use super::fields::Fields;
use crate::wire::tunnel::{self, Tunnel};
use crate::wire::{Body, Request, Response};

/// Answers `helloworld.Call {name}` → `{message}`.
pub(super) fn call(endpoint: &str, fields: &Fields) -> Result<Value, Error> {
    match endpoint {
        "Call" => Greeting::of(fields).map(|greeting| json!({ "message": greeting.message })),
        _ => Err(Error::NoEndpoint),
    }
}

/// `Stream {name, messages}` → that many messages as newline-delimited JSON.
pub(super) fn stream(fields: &Fields, tasks: &TaskTracker) -> Result<Response, Error> {
    let greeting = Greeting::of(fields)?;
    let line = Bytes::from(format!("{}\n", greeting.to_json()));
    let (sender, chunks) = mpsc::channel(16);
    tasks.spawn_local(async move {
        for _ in 0..greeting.times {
            // The client is gone: so is the reason to go on.
            if sender.send(line.clone()).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::Chunks(chunks));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    Ok(response)
}

/// The same over a WebSocket, whose first message is the request.
pub(super) fn web_socket(request: &Request, tasks: &TaskTracker) -> Result<Response, Error> {
    let accept = accept(request.headers())?;
    let (ours, theirs) = tokio::io::duplex(MAX_MESSAGE);
    tasks.spawn_local(async move {
        if let Err(error) = converse(ours).await {
            tracing::debug!(%error, "a WebSocket of helloworld ended early: {error}");
        }
    });
    let mut response = Response::new(Body::Tunnel(Tunnel::new(theirs)));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Whether a request asks for a WebSocket.
pub(super) fn wants_web_socket(request: &Request) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    request.method() == Method::GET
        && upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What is said, and how often.
struct Greeting {
    message: String,
    times: i64,
}

impl Greeting {
    fn of(fields: &Fields) -> Result<Self, Error> {
        let name = fields.text("name")?.unwrap_or_default();
        if name.len() > MAX_NAME {
            return Err(Error::field("name", "must be at most 1024 bytes"));
        }
        let times = fields.integer("messages")?.unwrap_or(1);
        if !(1..=MAX_MESSAGES).contains(&times) {
            return Err(Error::field("messages", "must be from 1 to 10000"));
        }
        Ok(Self {
            message: format!("Hello {}", name.trim()),
            times,
        })
    }

    fn to_json(&self) -> String {
        json!({ "message": self.message }).to_string()
    }
}

/// `Sec-WebSocket-Accept` for a handshake (RFC 6455, 4.2.2).
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Error> {
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Error::Handshake("Sec-WebSocket-Version must be 13"));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16))
        .ok_or(Error::Handshake(
            "Sec-WebSocket-Key must be 16 bytes in base64",
        ))?;
    Ok(tunnel::accept(key.as_bytes()))
}

/// Why a conversation ended before its end.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it broke")]
    Broken(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("nothing moved")]
    Stalled,
}

impl From<tokio_tungstenite::tungstenite::Error> for Ended {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Broken(Box::new(error))
    }
}

impl From<tokio::time::error::Elapsed> for Ended {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Stalled
    }
}

async fn converse(connection: DuplexStream) -> Result<(), Ended> {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(limits)).await;

    let Some(first) = tokio::time::timeout(PATIENCE, first_message(&mut socket)).await?? else {
        return Ok(());
    };
    let greeting = Fields::parse(&first).and_then(|fields| Greeting::of(&fields));
    let (text, times) = match &greeting {
        Ok(greeting) => (greeting.to_json(), greeting.times),
        Err(error) => (error.to_json("helloworld.Stream"), 1),
    };
    for _ in 0..times {
        let message = Message::text(text.clone());
        tokio::time::timeout(PATIENCE, socket.send(message)).await??;
    }
    tokio::time::timeout(PATIENCE, async {
        socket.close(None).await?;
        // The handshake of closing: whatever comes before the client's own close is passed over.
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    })
    .await?
}

/// The first message that carries data; `None` where the client closes instead.
async fn first_message<S>(socket: &mut WebSocketStream<S>) -> Result<Option<Bytes>, Ended>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => return Ok(Some(text.into())),
            Message::Binary(bytes) => return Ok(Some(bytes)),
            Message::Close(_) => return Ok(None),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Ok(None)
}

/// For the first message, and for each that is sent.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_MESSAGE: usize = 64 << 10;
const MAX_MESSAGES: i64 = 10_000;
const MAX_NAME: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::super::testing::{TestPlatform, check};
    use super::*;
    use crate::wire::body::Answer as _;

    #[tokio::test]
    async fn it_says_hello() {
        let platform = TestPlatform::new();
        let call = |body| platform.call("helloworld/Call", body);
        check(
            call(json!({"name": "John"})),
            200,
            json!({"message": "Hello John"}),
        )
        .await;
        check(
            call(json!({"name": " John "})),
            200,
            json!({"message": "Hello John"}),
        )
        .await;
        check(call(json!({})), 200, json!({"message": "Hello "})).await;
        let (status, error) = call(json!({"name": 5})).await;
        assert_eq!(status, 400);
        assert_eq!(error["detail"], "name: must be a string");
    }

    #[tokio::test]
    async fn a_stream_has_as_many_lines_as_were_asked_for() {
        let platform = TestPlatform::new();
        let request =
            TestPlatform::request("helloworld/stream", &json!({"name": "A", "messages": "40"}));
        let local = LocalSet::new();
        let body = local.run_until(async {
            let response = platform.send(request).await;
            assert_eq!(response.headers()["content-type"], "application/x-ndjson");
            response.into_body().collect(1 << 20).await.unwrap()
        });
        assert_eq!(body.await, "{\"message\":\"Hello A\"}\n".repeat(40));
        for messages in [0, -1, 10_001] {
            let body = json!({"messages": messages});
            let (status, _) = platform.call("helloworld/Stream", body).await;
            assert_eq!(status, 400, "{messages}");
        }
    }

    /// What a client hears after its first message, until the close.
    async fn heard(first: Message) -> Vec<Message> {
        let platform = TestPlatform::new();
        let mut request = TestPlatform::request("helloworld/stream", &json!({}));
        *request.method_mut() = Method::GET;
        for (name, value) in [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        let talk = async {
            let mut response = platform.send(request).await;
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert!(!response.headers().contains_key("sec-websocket-protocol"));
            let tunnel = response.body_mut().take_tunnel().unwrap().into_stream();
            let mut socket = WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await;
            socket.send(Message::Ping("early".into())).await.unwrap();
            socket.send(first).await.unwrap();
            let mut heard = Vec::new();
            while let Some(Ok(message)) = socket.next().await {
                heard.push(message);
            }
            heard
        };
        LocalSet::new().run_until(talk).await
    }

    #[tokio::test]
    async fn a_web_socket_streams_and_closes() {
        let heard = heard(Message::text(r#"{"name":"A","messages":3}"#)).await;
        let texts: Vec<&str> = heard
            .iter()
            .filter_map(|message| match message {
                Message::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(texts, [r#"{"message":"Hello A"}"#; 3]);
        assert!(matches!(heard.last(), Some(Message::Close(_))));
    }

    #[tokio::test]
    async fn a_bad_first_message_is_answered_and_closed() {
        for first in [
            Message::text("hello"),
            Message::binary(&b"{\"messages\":0}"[..]),
        ] {
            let heard = heard(first).await;
            let error = heard.iter().find_map(|message| match message {
                Message::Text(text) => Some(text.as_str()),
                _ => None,
            });
            let error: Value = serde_json::from_str(error.unwrap()).unwrap();
            assert_eq!(
                (&error["id"], &error["code"]),
                (&json!("helloworld.Stream"), &json!(400))
            );
            assert!(matches!(heard.last(), Some(Message::Close(_))));
        }
    }

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let mut headers = HeaderMap::new();
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        let nonce = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert("sec-websocket-key", nonce);
        // The example of RFC 6455, 1.3.
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert("sec-websocket-key", HeaderValue::from_static("short"));
        assert!(accept(&headers).is_err());
        headers.remove("sec-websocket-version");
        assert!(accept(&headers).is_err());
    }
}
