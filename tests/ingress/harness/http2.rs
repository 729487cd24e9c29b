//! A client that speaks HTTP/2: one by `h2`, and one that writes its frames by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};

use super::PATIENCE;
use super::caller::timed_out;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
/// A whole request without a body.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection whose frames are written by hand.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
}

/// A frame of the ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    /// A connection on which both sides have said how they are set.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address);
        frames.send_bytes(PREFACE);
        frames.send(SETTINGS, 0, 0, &[]);
        frames.send(SETTINGS, ACK, 0, &[]);
        frames
    }

    /// A connection on which nothing was said.
    #[track_caller]
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_bytes(&frame(kind, flags, stream, payload));
    }

    /// Whatever is sent; whether the other side still takes it.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// A GET of `path` on `host`.
    #[track_caller]
    pub(crate) fn get(&mut self, stream: u32, host: &str, path: &str) {
        self.send(HEADERS, WHOLE, stream, &block(&request("GET", host, path)));
    }

    /// The next frame; `None` at the end of the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; length as usize];
        self.read(&mut payload)?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if timed_out(&error) => panic!("the connection stays open and silent"),
            Err(_) => None,
        }
    }

    /// The next frame of this kind on this stream, which must come before the connection ends.
    #[track_caller]
    pub(crate) fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let Some(frame) = self.next() else {
                panic!("the connection ended before a frame {kind} on stream {stream}");
            };
            if frame.kind == kind && frame.stream == stream {
                return frame;
            }
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        }
    }

    /// The status of the answer on a stream.
    #[track_caller]
    pub(crate) fn status(&mut self, stream: u32) -> u16 {
        status(&self.until(HEADERS, stream).payload)
    }

    /// With what code a stream is reset.
    #[track_caller]
    pub(crate) fn reset(&mut self, stream: u32) -> u32 {
        code(&self.until(RST_STREAM, stream).payload)
    }

    /// With what code the connection ends.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<u32> {
        let mut last = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                last = Some(code(&frame.payload[4..]));
            }
        }
        last
    }

    /// Asserts that the connection goes on.
    #[track_caller]
    pub(crate) fn is_alive(&mut self) {
        self.send(PING, 0, 0, b"alive?!?");
        while self.until(PING, 0).payload != b"alive?!?" {}
    }
}

impl Frame {
    pub(crate) fn ends(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [a, b, c, kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a request.
pub(crate) fn request<'a>(
    method: &'a str,
    host: &'a str,
    path: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", host),
        (":path", path),
    ]
}

/// Fields as literals that are never indexed (RFC 7541, 6.2.3).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            let length = text.len();
            match length {
                0..127 => block.push(length as u8),
                _ => {
                    block.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 0x80);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// The status at the beginning of a block of fields.
pub(crate) fn status(block: &[u8]) -> u16 {
    // An update of the table's size may come first.
    let block = &block[block.iter().take_while(|byte| *byte >> 5 == 1).count()..];
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => literal(&block[1..]),
    }
}

/// Three digits, as they are or by the code of Huffman (RFC 7541, B).
fn literal(value: &[u8]) -> u16 {
    let length = usize::from(value[0] & 0x7f);
    let octets = &value[1..=length];
    if value[0] & 0x80 == 0 {
        return std::str::from_utf8(octets).unwrap().parse().unwrap();
    }
    let bits: String = octets.iter().map(|octet| format!("{octet:08b}")).collect();
    let mut bits = &bits[..];
    let mut number = 0;
    for _ in 0..3 {
        let (digit, length) = match u16::from_str_radix(&bits[..5], 2).unwrap() {
            digit @ 0..=2 => (digit, 5),
            _ => (
                u16::from_str_radix(&bits[..6], 2).unwrap() - 0b01_1001 + 3,
                6,
            ),
        };
        number = number * 10 + digit;
        bits = &bits[length..];
    }
    number
}

/// Runs what a client does, on a runtime of its own.
#[track_caller]
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, client).await.unwrap() })
}

/// A connection by `h2`, which ends when the client is dropped.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    connect_with(address, &h2::client::Builder::new()).await
}

pub(crate) async fn connect_with(
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (client, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _how_it_ends = connection.await;
    });
    client.ready().await.unwrap()
}

/// A request without a body.
pub(crate) fn get(host: &str, path: &str) -> Request<()> {
    Request::get(format!("http://{host}{path}"))
        .body(())
        .unwrap()
}

pub(crate) fn post(host: &str, path: &str) -> Request<()> {
    Request::post(format!("http://{host}{path}"))
        .body(())
        .unwrap()
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Whole {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    }
}

/// Sends a request without a body, and reads its answer.
pub(crate) async fn ask(client: &SendRequest<Bytes>, request: Request<()>) -> Whole {
    let mut client = client.clone().ready().await.unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    whole(answer.await.unwrap()).await.unwrap()
}

/// Reads an answer to its end.
pub(crate) async fn whole(answer: Response<h2::RecvStream>) -> Result<Whole, h2::Error> {
    let (head, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(Whole {
        head: Response::from_parts(head, ()),
        body,
        trailers: stream.trailers().await?.unwrap_or_default(),
    })
}

/// Whether nothing more comes, but the end.
pub(crate) async fn is_over(body: &mut h2::RecvStream) -> bool {
    match body.data().await {
        Some(Ok(data)) if data.is_empty() => body.data().await.is_none(),
        Some(_) => false,
        None => true,
    }
}

/// Sends all of `body`, as the windows allow.
pub(crate) async fn send_all(
    stream: &mut h2::SendStream<Bytes>,
    body: &[u8],
    last: bool,
) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(body);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        while stream.capacity() == 0 {
            let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
            room.transpose()?;
        }
        let piece = rest.split_to(stream.capacity().min(rest.len()));
        stream.send_data(piece, last && rest.is_empty())?;
    }
    if body.is_empty() {
        stream.send_data(Bytes::new(), last)?;
    }
    Ok(())
}
