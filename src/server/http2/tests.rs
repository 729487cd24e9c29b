use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http_body::{Body as HttpBody, Frame};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
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
    let (task, current) = serving_on(ours, drain);
    (theirs, task, current)
}

fn serving_on<S: Duplex + 'static>(
    ours: S,
    drain: &Rc<Drain>,
) -> (tokio::task::JoinHandle<()>, Rc<Current<Paths>>) {
    let settings = ConnectionSettings::new(&Timeouts::default(), &Limits::default());
    let current = Current::new(Paths::default(), settings);
    let answering = Rc::clone(&current);
    let drained = drain.join();
    let task = tokio::task::spawn_local(async move {
        let address = SocketAddr::from(([192, 0, 2, 1], 7));
        let peer = Peer::new(address, Scheme::Https, Timer::new());
        serve(ours, (), peer, answering, drained).await;
    });
    (task, current)
}

/// A stream that counts what is written at once.
struct Counted {
    stream: DuplexStream,
    writes: Rc<Cell<usize>>,
    /// Whether it gives little at a time, and wakes whoever reads in between.
    is_slow: bool,
    yields: bool,
}

impl Counted {
    fn new(stream: DuplexStream) -> Self {
        Self {
            stream,
            writes: Rc::default(),
            is_slow: false,
            yields: false,
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_slow {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        if std::mem::take(&mut self.yields) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut few = [0; 64];
        let mut piece = ReadBuf::new(&mut few);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        buffer.put_slice(piece.filled());
        self.yields = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
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
async fn a_lone_answer_waits_for_nothing() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (stream, _task, _) = serving(&drain);
        let client = connected(stream).await;
        // The clock stands still as long as anybody has something to do.
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            assert_eq!(get(&client, "/one").await.unwrap(), "/one");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn answers_of_one_turn_go_out_in_one_write() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        let counted = Counted::new(stream);
        let writes = Rc::clone(&counted.writes);
        let (_task, _) = serving_on(counted, &drain);
        let client = connected(theirs).await;
        let long = format!("/{}", "long".repeat(200));
        assert_eq!(get(&client, &long).await.unwrap(), long);
        let before = writes.get();
        let all = futures_util::future::join_all((0..20).map(|_| get(&client, &long))).await;
        assert!(
            all.iter()
                .all(|answer| answer.as_ref().is_ok_and(|said| *said == long))
        );
        assert_eq!(writes.get(), before + 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_asks_to_be_read_again_is() {
    let test = async {
        let drain = Rc::new(Drain::default());
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        let slow = Counted {
            is_slow: true,
            ..Counted::new(stream)
        };
        let (_task, _) = serving_on(slow, &drain);
        let client = connected(theirs).await;
        let began = tokio::time::Instant::now();
        let path = |number| format!("/{number}{}", "long".repeat(10));
        let all = (0..20).map(|number| {
            let client = client.clone();
            async move { get(&client, &path(number)).await.unwrap() == path(number) }
        });
        let all = futures_util::future::join_all(all).await;
        assert!(all.into_iter().all(|is_same| is_same));
        assert_eq!(began.elapsed(), Duration::ZERO);
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
