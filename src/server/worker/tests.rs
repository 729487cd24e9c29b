use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;
use crate::server::listener;
use crate::server::shutdown::stop_signal;
use crate::settings::{Limits, Timeouts};
use crate::wire::body::{Answer, Error};
use crate::wire::tunnel::Tunnel;
use crate::wire::{Peer, Request};

/// Panics where the path of a request says so.
struct Clumsy;

/// Gives half of an answer, and then the other half or a panic.
struct Halves {
    given: usize,
    panics: bool,
}

impl Handler for Clumsy {
    type Body = Halves;

    async fn handle(&self, request: Request, _peer: &Peer) -> http::Response<Halves> {
        assert_ne!(request.uri().path(), "/handler", "on purpose");
        http::Response::new(Halves {
            given: 0,
            panics: request.uri().path() == "/body",
        })
    }
}

impl HttpBody for Halves {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.given += 1;
        match self.given {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half"))))),
            2 if self.panics => panic!("on purpose"),
            2 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"full"))))),
            _ => Poll::Ready(None),
        }
    }
}

impl Answer for Halves {
    fn poll_upload(&mut self, _context: &mut Context<'_>) {}

    fn take_tunnel(&mut self) -> Option<Tunnel> {
        None
    }
}

/// All that comes back on a connection of its own.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn worker(
    bound: listener::Listeners,
    permits: &Arc<Permits>,
    metrics: &Arc<Metrics>,
) -> (Worker, Order<()>) {
    let worker = Worker {
        name: "test".to_owned(),
        guests: Guests::Strangers,
        permits: Arc::clone(permits),
        metrics: Arc::clone(metrics),
        pulse: Pulse::default(),
    };
    let first = Order {
        parts: (),
        settings: ConnectionSettings::new(&Timeouts::default(), &Limits::default()),
        listeners: vec![(bound.entrance, bound.sockets)],
        most: usize::MAX,
        drain: Duration::from_secs(5),
        done: None,
    };
    (worker, first)
}

#[tokio::test]
async fn who_comes_on_a_last_call_waits_and_is_served_when_that_is_taken_back() {
    let bound = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let address = bound.address;
    let (stopper, stop) = stop_signal();
    let (worker, first) = worker(bound, &Permits::new(9, 9), &Metrics::new());
    let (_orders, no_more) = mpsc::channel(1);
    // Asks on a connection that may be kept, and gives the answer.
    async fn ask(stream: &mut TcpStream) -> String {
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") {
            assert!(
                stream.read_buf(&mut answer).await.unwrap() > 0,
                "it was cut"
            );
        }
        String::from_utf8(answer).unwrap().to_ascii_lowercase()
    }
    let asking = async {
        for stage in [Stage::LastCall, Stage::Yielding] {
            let mut kept = TcpStream::connect(address).await.unwrap();
            assert!(!ask(&mut kept).await.contains("connection: close"));
            let mut idle = TcpStream::connect(address).await.unwrap();
            ask(&mut idle).await;
            stopper.advance(Stage::LastCall);
            let answer = ask(&mut kept).await;
            assert!(answer.contains("connection: close"), "{answer}");
            stopper.advance(stage);
            // It waits in the queue.
            let mut late = TcpStream::connect(address).await.unwrap();
            if stage == Stage::Yielding {
                assert_eq!(
                    idle.read(&mut [0]).await.unwrap(),
                    0,
                    "it waited for nothing"
                );
            }
            stopper.resume();
            ask(&mut late).await;
            if stage == Stage::LastCall {
                assert!(!ask(&mut idle).await.contains("connection: close"));
            }
        }
        stopper.advance(Stage::Draining);
    };
    let serving = worker.serve(first, no_more, |(), _: &Place<'_, Clumsy>| Clumsy, stop);
    let (served, ()) = LocalSet::new()
        .run_until(async { tokio::join!(serving, asking) })
        .await;
    served.unwrap();
}

#[tokio::test]
async fn a_panic_outside_the_proxy_costs_its_connection_and_is_counted() {
    let bound = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let address = bound.address;
    let metrics = Metrics::new();
    let permits = Permits::new(2, 2);
    let (stopper, stop) = stop_signal();
    let (worker, first) = worker(bound, &permits, &metrics);
    let (_orders, no_more) = mpsc::channel(1);
    let asking = async {
        for (count, path) in ["/handler", "/body", "/handler"].into_iter().enumerate() {
            let answer = get(address, path).await;
            let is_cut = answer.is_empty() || !answer.ends_with("0\r\n\r\n");
            assert!(is_cut, "{path}: {answer}");
            assert_eq!(metrics.panics.get(), count as u64 + 1, "{path}");
            assert_eq!(permits.open(), 0, "{path}: its place is free again");
        }
        let answer = get(address, "/").await;
        assert!(
            answer.ends_with("half\r\n4\r\nfull\r\n0\r\n\r\n"),
            "{answer}"
        );
        stopper.advance(Stage::Draining);
    };
    let serving = worker.serve(first, no_more, |(), _: &Place<'_, Clumsy>| Clumsy, stop);
    let (served, ()) = LocalSet::new()
        .run_until(async { tokio::join!(serving, asking) })
        .await;
    served.unwrap();
    assert_eq!(metrics.panics.get(), 3);
}
