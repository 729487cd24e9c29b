//! Large bodies that go past us in pipes arrive as if we had read and written them.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::{Frame, SizeHint};
use m3o_ingress::wire::body::{Piece, Polled, Received, Sent, Source};
use m3o_ingress::wire::client::Client;
use m3o_ingress::wire::head::HeadLimits;
use m3o_ingress::wire::server::{Next, Server};
use m3o_ingress::wire::timer::Timer;
use m3o_ingress::wire::{Body, pipe};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 8 << 10,
    fields: 64,
};

/// Bodies of this size come in pipes.
const LARGE: usize = 256 << 10;

/// A body, how it is written and read, and how many pipes there may be.
#[derive(Debug, Clone)]
struct Way {
    length: usize,
    /// The sizes of the pieces that are written, one after the other and then from the first again.
    written: Vec<usize>,
    /// Likewise those that are read.
    read: Vec<usize>,
    pipes: usize,
}

fn ways() -> impl Strategy<Value = Way> {
    let length = prop_oneof![
        0..LARGE,
        LARGE - 1..=LARGE + 1,
        LARGE..4 * LARGE,
        8 * LARGE..9 * LARGE,
    ];
    let pieces = || vec(prop_oneof![1..9_000_usize, 9_000..300_000_usize], 1..6);
    (length, pieces(), pieces(), 0..=2_usize).prop_map(|(length, written, read, pipes)| Way {
        length,
        written,
        read,
        pipes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_answer_arrives_as_it_was_sent(way in ways()) {
        let (body, piped) = run(answered(&way));
        prop_assert!(body == pattern(way.length), "{} bytes", body.len());
        check_piped(&way, piped)?;
    }

    #[test]
    fn an_upload_arrives_as_it_was_sent(way in ways()) {
        let (body, piped) = run(uploaded(&way));
        prop_assert!(body == pattern(way.length), "{} bytes", body.len());
        check_piped(&way, piped)?;
    }
}

/// What is small, or has no pipe, is read and written; of all else a part goes by.
fn check_piped(way: &Way, piped: u64) -> Result<(), TestCaseError> {
    let expected = way.length >= LARGE && way.pipes > 0;
    prop_assert_eq!(piped > 0, expected, "{} bytes in pipes", piped);
    Ok(())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// The body of an answer as its client gets it, and how much of it came in pipes.
async fn answered(way: &Way) -> (Vec<u8>, u64) {
    pipe::allow(way.pipes);
    let (to_client, mut client) = pair().await;
    let (to_backend, mut backend) = pair().await;
    let serving = async {
        skip_head(&mut backend).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", way.length);
        write(&mut backend, head, way).await;
        backend
    };
    let asking = async {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        skip_head(&mut client).await;
        read(&mut client, way).await
    };
    let piped = Rc::new(Cell::new(0));
    let passing = async {
        let mut server = Server::new(to_client, LIMITS);
        let Next::Request(head) = poll_fn(|context| server.poll_next(context)).await else {
            panic!("it asks for something");
        };
        let mut asked = head.map(|()| Body::Empty);
        let mut backend = Client::new(to_backend);
        backend.begin(&mut asked);
        let head = backend
            .response(false, &mut HeaderMap::new())
            .await
            .unwrap();
        let source = Counting::boxed(Box::new(Answered(backend)), &piped);
        let mut response = head.map(|()| Body::Sent(Sent::new(source)));
        let mut encoder = server.begin(&mut response, false);
        let mut body = response.into_body();
        let answering = poll_fn(|context| server.poll_answer(&mut body, &mut encoder, context));
        answering.await.unwrap();
        server
    };
    let (_backend, body, _server) = tokio::join!(serving, asking, passing);
    (body, piped.get())
}

/// The body of a request as its backend gets it, and how much of it came in pipes.
async fn uploaded(way: &Way) -> (Vec<u8>, u64) {
    pipe::allow(way.pipes);
    let (to_client, mut client) = pair().await;
    let (to_backend, mut backend) = pair().await;
    let serving = async {
        skip_head(&mut backend).await;
        let body = read(&mut backend, way).await;
        backend
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        (body, backend)
    };
    let asking = async {
        let head = format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            way.length
        );
        write(&mut client, head, way).await;
        client
    };
    let piped = Rc::new(Cell::new(0));
    let passing = async {
        let mut server = Server::new(to_client, LIMITS);
        let Next::Request(head) = poll_fn(|context| server.poll_next(context)).await else {
            panic!("it asks for something");
        };
        let body = server.body().map_or(Body::Empty, |source| {
            let source = Counting::boxed(source, &piped);
            Body::Received(Received::new(
                source,
                0,
                Duration::from_secs(9),
                Timer::new(),
            ))
        });
        let mut asked = head.map(|()| body);
        assert_eq!(asked.method(), Method::PUT);
        let mut backend = Client::new(to_backend);
        backend.begin(&mut asked);
        let head = backend
            .response(false, &mut HeaderMap::new())
            .await
            .unwrap();
        assert_eq!(head.status(), 204);
        (server, backend)
    };
    let ((body, _backend), _client, _halves) = tokio::join!(serving, asking, passing);
    (body, piped.get())
}

/// The body of an answer.
#[derive(Debug)]
struct Answered(Client<TcpStream>);

impl Source for Answered {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
        self.0.poll_frame(context)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        self.0.poll_piece(context)
    }

    fn is_ended(&self) -> bool {
        self.0.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Counts what comes in pipes.
#[derive(Debug)]
struct Counting {
    source: Box<dyn Source>,
    piped: Rc<Cell<u64>>,
}

impl Counting {
    fn boxed(source: Box<dyn Source>, piped: &Rc<Cell<u64>>) -> Box<dyn Source> {
        Box::new(Self {
            source,
            piped: Rc::clone(piped),
        })
    }
}

impl Source for Counting {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled<Frame<Bytes>> {
        self.source.poll_frame(context)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Polled<Piece> {
        self.source.poll_piece(context).map_ok(|piece| {
            self.piped.set(self.piped.get() + piece.piped() as u64);
            piece
        })
    }

    fn is_ended(&self) -> bool {
        self.source.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Bytes that tell where in the body they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at ^ at >> 8 ^ at >> 16) as u8)
        .collect()
}

/// Writes a head and the body behind it, as `way` says.
async fn write(stream: &mut TcpStream, head: String, way: &Way) {
    let bytes = [head.into_bytes(), pattern(way.length)].concat();
    let mut rest = &bytes[..];
    for piece in way.written.iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let (piece, after) = rest.split_at((*piece).min(rest.len()));
        stream.write_all(piece).await.unwrap();
        rest = after;
        tokio::task::yield_now().await;
    }
}

/// Reads the body, as `way` says.
async fn read(stream: &mut TcpStream, way: &Way) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in way.read.iter().cycle() {
        let left = way.length - body.len();
        if left == 0 {
            break;
        }
        let mut piece = vec![0; (*piece).min(left)];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "it is cut off after {} bytes", body.len());
        body.extend_from_slice(&piece[..read]);
        tokio::task::yield_now().await;
    }
    body
}

/// Reads a head, and nothing behind it.
async fn skip_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}
