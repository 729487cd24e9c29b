use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream as StdTcpStream};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::server::drain::Drain;
use crate::settings::{Limits, Timeouts};
use crate::wire::link::Carrier;
use crate::wire::timer::Timer;

/// Says hello, and how often it has.
#[derive(Default)]
struct Greeter(Rc<Cell<usize>>);

impl Handler for Greeter {
    type Body = Body;

    async fn handle(&self, _request: Request, _peer: &Peer) -> http::Response<Body> {
        self.0.set(self.0.get() + 1);
        http::Response::new(Body::from("hello".to_owned()))
    }
}

/// A stream that does something each time that somebody waits for it to be readable.
struct Watched<F> {
    stream: TcpStream,
    waited_for: F,
}

impl<F: FnMut() + Unpin> Carrier for Watched<F> {}

impl<F: FnMut() + Unpin> Transport for Watched<F> {
    fn has_closed(&self) -> bool {
        self.stream.has_closed()
    }

    fn has_unread(&self) -> bool {
        self.stream.has_unread()
    }

    fn poll_unread(&mut self, context: &mut Context<'_>) -> Poll<()> {
        (self.waited_for)();
        self.stream.poll_unread(context)
    }

    fn reset_on_drop(&self, reset: bool) {
        self.stream.reset_on_drop(reset);
    }
}

impl<F: Unpin> AsyncRead for Watched<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<F: Unpin> AsyncWrite for Watched<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Two ends of a connection: ours, and that of a client.
async fn connected() -> (TcpStream, StdTcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = StdTcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// Serves what comes over `stream`.
fn serving<S: Transport + 'static>(
    stream: S,
    greeted: &Rc<Cell<usize>>,
    drain: &Rc<Drain>,
) -> impl Future<Output = ()> + use<S> {
    let settings = ConnectionSettings::new(&Timeouts::default(), &Limits::default());
    let current = Current::new(Greeter(Rc::clone(greeted)), settings);
    let address = "127.0.0.1:1".parse().unwrap();
    let peer = Peer::new(address, Scheme::Http, Timer::new());
    serve(stream, (), peer, current, drain.join())
}

/// All answers that have come.
async fn answers(client: StdTcpStream) -> usize {
    client.set_nonblocking(true).unwrap();
    let mut text = String::new();
    let mut client = TcpStream::from_std(client).unwrap();
    client.read_to_string(&mut text).await.unwrap();
    text.matches("hello").count()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn what_comes_in_the_very_moment_when_a_connection_goes_to_rest_is_answered() {
    let (stream, client) = connected().await;
    let greeted = Rc::new(Cell::new(0));
    let (mut asked, counted) = (0, Rc::clone(&greeted));
    let mut asking = client.try_clone().unwrap();
    let waited_for = move || {
        if counted.get() < asked {
            return;
        }
        match asked {
            3 => asking.shutdown(Shutdown::Write).unwrap(),
            _ => asking.write_all(REQUEST).unwrap(),
        }
        asked += 1;
    };
    let watched = Watched { stream, waited_for };
    serving(watched, &greeted, &Rc::default()).await;
    assert_eq!(answers(client).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_is_ended_when_it_was_idle_for_as_long_as_it_may() {
    let (stream, mut client) = connected().await;
    let greeted = Rc::new(Cell::new(0));
    let rests = Rc::new(Cell::new(false));
    let (counted, noted) = (Rc::clone(&greeted), Rc::clone(&rests));
    let waited_for = move || noted.set(counted.get() > 0);
    client.write_all(REQUEST).unwrap();
    let start = Instant::now();
    let watched = Watched { stream, waited_for };
    serving(watched, &greeted, &Rc::default()).await;
    assert!(rests.get());
    let (idle, took) = (Timeouts::default().idle, start.elapsed());
    assert!(
        took >= idle && took < idle + Duration::from_secs(1),
        "{took:?}"
    );
    assert_eq!(answers(client).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_gives_a_connection_no_more_time() {
    let (stream, client) = connected().await;
    let mut asking = client.try_clone().unwrap();
    let start = Instant::now();
    // An empty line before a request is no part of it (RFC 9112, 2.2).
    let waited_for = move || asking.write_all(b"\r\n").unwrap_or_default();
    let watched = Watched { stream, waited_for };
    serving(watched, &Rc::default(), &Rc::default()).await;
    assert!(start.elapsed() <= Timeouts::default().idle + 2 * REST);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_leaves_as_soon_as_it_is_to() {
    let (stream, mut client) = connected().await;
    let greeted = Rc::new(Cell::new(0));
    let drain = Rc::<Drain>::default();
    let (counted, begun) = (Rc::clone(&greeted), Rc::clone(&drain));
    let waited_for = move || {
        if counted.get() > 0 {
            begun.begin();
        }
    };
    client.write_all(REQUEST).unwrap();
    let start = Instant::now();
    let watched = Watched { stream, waited_for };
    serving(watched, &greeted, &drain).await;
    assert!(start.elapsed() < REST * 2, "{:?}", start.elapsed());
    assert_eq!(answers(client).await, 1);
}

#[tokio::test]
async fn a_connection_that_rests_keeps_no_room_for_a_request() {
    let (stream, _client) = connected().await;
    let serving = serving(stream, &Rc::default(), &Rc::default());
    let room = size_of_val(&serving);
    assert!(room < 512, "{room}");
}
