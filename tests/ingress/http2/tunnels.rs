//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT becomes an upgrade of HTTP/1.1.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use m3o_ingress::server::shutdown::Stage;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::harness::backend::ok;
use crate::harness::front::{BLOG, Front};
use crate::harness::http2::{
    self, CANCEL, DATA, END_HEADERS, Frames, HEADERS, RST_STREAM, SETTINGS, block, connect,
    is_over, request, run, send_all, whole,
};
use crate::harness::{Answering, TestIngress, eventually};

/// Answers a handshake as it must be.
fn accept_their_key(answering: &mut Answering) {
    let key = answering
        .head
        .field("Sec-WebSocket-Key")
        .unwrap()
        .to_owned();
    accept(answering, &derive_accept_key(key.as_bytes()));
}

/// Answers a handshake as it must be, and then says everything again.
fn echo(answering: &mut Answering) {
    accept_their_key(answering);
    loop {
        let bytes = answering.some();
        if bytes.is_empty() {
            return answering.close();
        }
        answering.write(&bytes);
    }
}

fn accept(answering: &mut Answering, accept: &str) {
    answering.write(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    ));
}

fn handshake(host: &str, path: &str, protocol: &'static str) -> http::Request<()> {
    http::Request::builder()
        .method("CONNECT")
        .uri(format!("http://{host}{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

fn raw_handshake() -> Vec<u8> {
    let mut fields = request("CONNECT", BLOG, "/ws");
    fields.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    block(&fields)
}

#[test]
fn a_websocket_over_http2_reaches_a_backend_that_speaks_http1() {
    let front = Front::scripted(echo);
    run(async {
        let mut client = connect(front.ingress.address).await;
        let asked = handshake(BLOG, "/ws?a=b", "websocket");
        let (answer, mut stream) = client.send_request(asked, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        for gone in [
            "sec-websocket-accept",
            "upgrade",
            "connection",
            "content-length",
        ] {
            assert!(!answer.headers().contains_key(gone), "{gone}");
        }
        let mut incoming = answer.into_body();
        let sent = vec![b'x'; 200_000];
        send_all(&mut stream, &sent, false).await.unwrap();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let data = incoming.data().await.unwrap().unwrap();
            incoming
                .flow_control()
                .release_capacity(data.len())
                .unwrap();
            got.extend_from_slice(&data);
        }
        assert!(got == sent);
        stream.send_data(Bytes::new(), true).unwrap();
        assert!(is_over(&mut incoming).await);
    });
    let seen = front.backend.only();
    assert_eq!(seen.head.first, "GET /ws?a=b HTTP/1.1");
    assert_eq!(seen.field("Upgrade"), Some("websocket"));
    assert_eq!(seen.field("Connection"), Some("Upgrade"));
    assert_eq!(seen.field("Via"), Some("2 m3o-ingress"));
    front.serves_others();
}

/// A WebSocket over a pipe, whose other end is the stream.
async fn websocket(
    mut incoming: RecvStream,
    mut stream: SendStream<Bytes>,
) -> WebSocketStream<DuplexStream> {
    let (ours, pipe) = tokio::io::duplex(1 << 16);
    let (mut from, mut to) = tokio::io::split(pipe);
    tokio::spawn(async move {
        while let Some(Ok(data)) = incoming.data().await {
            to.write_all(&data).await.unwrap();
        }
        to.shutdown().await.unwrap();
    });
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..read]);
            stream.send_data(data, false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    WebSocketStream::from_raw_socket(ours, Role::Client, None).await
}

#[test]
fn a_websocket_over_http2_is_told_that_we_go_away() {
    let mut front = Front::scripted(|answering| {
        accept_their_key(answering);
        // From a client, a frame that closes: one of eight octets.
        assert_eq!(answering.some()[..2], [0x88, 0x82]);
        answering.close();
    });
    run(async {
        let mut client = connect(front.ingress.address).await;
        let asked = handshake(BLOG, "/ws", "websocket");
        let (answer, stream) = client.send_request(asked, false).unwrap();
        let mut socket = websocket(answer.await.unwrap().into_body(), stream).await;
        front.ingress.advance(Stage::Draining);
        let message = socket.next().await.unwrap().unwrap();
        let Message::Close(Some(frame)) = message else {
            panic!("{message}");
        };
        assert_eq!(u16::from(frame.code), 1001);
        // What the client answers closes the backend's end, and then ours is over too.
        assert!(socket.next().await.is_none());
    });
    front.ingress.join().unwrap();
}

#[test]
fn a_stream_of_the_platform_is_a_websocket_over_http2_too() {
    let ingress = TestIngress::embedded();
    run(async {
        let mut client = connect(ingress.address).await;
        let mut asked = handshake("localhost", "/v1/helloworld/Stream", "websocket");
        let headers = asked.headers_mut();
        headers.remove("sec-websocket-protocol");
        headers.insert("authorization", "Bearer dev".parse().unwrap());
        let (answer, stream) = client.send_request(asked, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut socket = websocket(answer.into_body(), stream).await;
        let first = Message::text(r#"{"name":"Ann","messages":2}"#);
        socket.send(first).await.unwrap();
        for _ in 0..2 {
            let message: Message = socket.next().await.unwrap().unwrap();
            assert!(
                message.to_text().unwrap().contains("Hello Ann"),
                "{message}"
            );
        }
    });
}

#[test]
fn a_handshake_over_http2_that_is_not_granted_is_no_success() {
    let front = Front::scripted(|answering| match &*answering.target() {
        "/wrong-key" => {
            accept(answering, &derive_accept_key(b"of somebody else"));
            answering.close();
        }
        "/no-key" => {
            answering.write(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            answering.close();
        }
        // Over HTTP/2 this would be taken for a tunnel.
        "/page" => answering.write(ok("a page")),
        _ => answering.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
    });
    run(async {
        let client = connect(front.ingress.address).await;
        for (path, protocol, status) in [
            ("/wrong-key", "websocket", 502),
            ("/no-key", "websocket", 502),
            ("/page", "websocket", 502),
            ("/forbidden", "websocket", 403),
            ("/udp", "connect-udp", 501),
        ] {
            let mut client = client.clone().ready().await.unwrap();
            let asked = handshake(BLOG, path, protocol);
            let (answer, _stream) = client.send_request(asked, false).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            let _its_rest_may_be_reset = whole(answer).await;
        }
    });
    front.serves_others();
}

#[test]
fn connect_is_offered_as_an_extended_one() {
    let front = Front::new();
    let mut frames = Frames::connect(front.ingress.address);
    let settings = frames.until(SETTINGS, 0).payload;
    let offers = |id: u16, value: u32| {
        let wanted = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        settings.chunks(6).any(|setting| setting == wanted)
    };
    assert!(offers(8, 1), "extended CONNECT: {settings:?}");
    assert!(offers(3, 128), "streams: {settings:?}");
    assert!(offers(6, 32 << 10), "the list of fields: {settings:?}");
}

#[test]
fn each_end_of_a_tunnel_over_http2_takes_the_other_along() {
    let front = Front::scripted(|answering| {
        if answering.target() == "/close" {
            return echo_once(answering);
        }
        echo(answering);
    });
    // The client resets it.
    let mut frames = Frames::connect(front.ingress.address);
    frames.send(HEADERS, END_HEADERS, 1, &raw_handshake());
    assert_eq!(frames.status(1), 200);
    frames.send(DATA, 0, 1, b"hello");
    assert_eq!(frames.until(DATA, 1).payload, b"hello");
    frames.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    eventually("the backend is let go", || front.backend.closed() == 1);
    frames.is_alive();
    // The backend closes it.
    let mut fields = request("CONNECT", BLOG, "/close");
    fields.push((":protocol", "websocket"));
    frames.send(HEADERS, END_HEADERS, 3, &block(&fields));
    assert_eq!(frames.status(3), 200);
    frames.send(DATA, 0, 3, b"bye");
    let mut said = Vec::new();
    loop {
        let frame = frames.until(DATA, 3);
        said.extend_from_slice(&frame.payload);
        if frame.ends() {
            break;
        }
    }
    assert_eq!(said, b"bye");
    frames.send(DATA, http2::END_STREAM, 3, b"");
    frames.is_alive();
}

fn echo_once(answering: &mut Answering) {
    accept_their_key(answering);
    let bytes = answering.some();
    answering.write(&bytes);
    answering.close();
}
