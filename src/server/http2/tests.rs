use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http_body::{Body as HttpBody, Frame};
use tokio::io::DuplexStream;
use tokio::task::LocalSet;

use super::super::drain::Drain;
use super::*;
use crate::settings::{Limits, Timeouts};
use crate::wire::body::{Answer, Error};
use crate::wire::timer::Timer;
use crate::wire::tunnel::Tunnel;
use crate::wire::{Request, Scheme};

/// Answers with the path; some bodies panic, and some never come.
#[derive(Default)]
struct Paths {
    panics: Cell<usize>,
}

enum Path {
    Said(Bytes),
    Panics,
    Hangs,
}

impl HttpBody for Path {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Said(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Said(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Panics => panic!("a body that panics"),
            Self::Hangs => Poll::Pending,
        }
    }
}

impl Answer for Path {
    fn poll_upload(&mut self, _context: &mut Context<'_>) {}

    fn take_tunnel(&mut self) -> Option<Tunnel> {
        None
    }
}

impl Handler for Paths {
    type Body = Path;

    async fn handle(&self, request: Request, _peer: &Peer) -> http::Response<Path> {
        http::Response::new(match request.uri().path() {
            "/panics" => Path::Panics,
            "/hangs" => Path::Hangs,
            path => Path::Said(path.to_owned().into()),
        })
    }

    fn panicked(&self) {
        self.panics.set(self.panics.get() + 1);
    }
}

/// Serves one end of a pipe, and gives the other and what ends with the connection.
fn serving(
    drain: &Rc<Drain>,
) -> (
    DuplexStream,
    tokio::task::JoinHandle<()>,
    Rc<Current<Paths>>,
) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let settings = ConnectionSettings::new(&Timeouts::default(), &Limits::default());
    let current = Current::new(Paths::default(), settings);
    let answering = Rc::clone(&current);
    let drained = drain.join();
    let task = tokio::task::spawn_local(async move {
        let address = SocketAddr::from(([192, 0, 2, 1], 7));
        let peer = Peer::new(address, Scheme::Https, Timer::new());
        serve(ours, (), peer, answering, drained).await;
    });
    (theirs, task, current)
}

async fn connected(stream: DuplexStream) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _how_it_ends = connection.await;
    });
    client.ready().await.unwrap()
}

async fn get(client: &SendRequest<Bytes>, path: &str) -> Result<Bytes, h2::Error> {
    let mut client = client.clone().ready().await?;
    let request = http::Request::get(format!("https://blog.m3o.app{path}"));
    let (answer, _) = client.send_request(request.body(()).unwrap(), true)?;
    let mut body = answer.await?.into_body();
    let mut whole = BytesMut::new();
    while let Some(data) = body.data().await {
        whole.extend_from_slice(&data?);
    }
    Ok(whole.freeze())
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_stream_costs_that_stream_and_is_counted() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (stream, task, current) = serving(&drain);
        let client = connected(stream).await;
        assert_eq!(get(&client, "/one").await.unwrap(), "/one");
        assert!(get(&client, "/panics").await.is_err());
        assert_eq!(current.now().handler.panics.get(), 1);
        assert_eq!(get(&client, "/two").await.unwrap(), "/two");
        drop(client);
        task.await.unwrap();
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_speaks_is_not_waited_for() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (_silent, task, _) = serving(&drain);
        let began = tokio::time::Instant::now();
        task.await.unwrap();
        let took = began.elapsed();
        let header = Timeouts::default().header;
        assert!(
            (header..header + Duration::from_secs(3)).contains(&took),
            "{took:?}"
        );
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn the_drain_lets_go_of_clients_that_answer_and_of_those_that_do_not() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (stream, answers, _) = serving(&drain);
        let client = connected(stream).await;
        assert_eq!(get(&client, "/one").await.unwrap(), "/one");
        let (mut silent, says_nothing, _) = serving(&drain);
        tokio::io::AsyncWriteExt::write_all(&mut silent, crate::wire::server::PREFACE)
            .await
            .unwrap();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        tokio::io::AsyncWriteExt::write_all(&mut silent, &settings)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        drain.begin();
        let began = tokio::time::Instant::now();
        answers.await.unwrap();
        says_nothing.await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert!(get(&client, "/late").await.is_err());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_holds_its_connection_and_no_other_request() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (stream, task, _) = serving(&drain);
        let client = connected(stream).await;
        let hanging = {
            let client = client.clone();
            tokio::task::spawn_local(async move { get(&client, "/hangs").await })
        };
        // Longer than a connection without requests may last.
        tokio::time::sleep(2 * Timeouts::default().idle).await;
        assert_eq!(get(&client, "/one").await.unwrap(), "/one");
        assert!(!task.is_finished());
        hanging.abort();
        drop(client);
        task.await.unwrap();
    };
    LocalSet::new().run_until(test).await;
}
