use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::Waker;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;

use super::*;
use crate::wire::link::{Carrier, Link};

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A pipe with what is `sent`; `None` where there is no pipe.
async fn filled(sent: &[u8]) -> Option<Pipe> {
    let (near, mut far) = pair().await;
    far.write_all(sent).await.unwrap();
    drop(far);
    let filling = poll_fn(|context| Pipe::poll_fill(&near, u64::MAX, context));
    filling.await.unwrap()
}

fn lent_and_idle() -> (usize, usize) {
    LENDER.with(|lender| (lender.lent.get(), lender.idle.borrow().len()))
}

/// So many pipes from now on, and none that another test has left.
fn allow_anew(pipes: usize) {
    allow(0);
    allow(pipes);
}

#[tokio::test]
async fn a_pipe_takes_no_more_than_it_is_told_and_sends_all_of_it() {
    allow_anew(1);
    let (near, mut far) = pair().await;
    let (mut reader, out) = pair().await;
    far.write_all(b"of this body and of the next")
        .await
        .unwrap();
    let filling = poll_fn(|context| Pipe::poll_fill(&near, 12, context));
    let mut pipe = filling.await.unwrap().unwrap();
    assert_eq!(pipe.len(), 12);
    let sent = poll_fn(|context| pipe.poll_drain(&out, context)).await;
    assert_eq!(sent.unwrap(), 12);
    assert!(pipe.is_empty());
    let mut read = [0; 12];
    reader.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"of this body");
}

#[tokio::test]
async fn the_end_of_a_stream_is_a_pipe_without_bytes() {
    allow_anew(1);
    assert!(filled(b"").await.unwrap().is_empty());
    assert_eq!(lent_and_idle(), (0, 1));
}

#[tokio::test]
async fn whoever_waits_holds_no_pipe() {
    allow_anew(1);
    let (near, _far) = pair().await;
    let mut waiting = pin!(poll_fn(|context| Pipe::poll_fill(&near, 1, context)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert_eq!(lent_and_idle().0, 0);
}

#[tokio::test]
async fn a_pipe_with_bytes_in_it_is_lent_to_nobody_again() {
    allow_anew(2);
    drop(filled(b"left").await);
    assert_eq!(lent_and_idle(), (0, 0));
    let mut out = BytesMut::new();
    filled(b"read").await.unwrap().read_out(&mut out).unwrap();
    assert_eq!(out, "read");
    assert_eq!(lent_and_idle(), (0, 1));
}

#[tokio::test]
async fn no_more_pipes_are_lent_than_are_allowed() {
    allow_anew(2);
    let first = filled(b"a").await.unwrap();
    let second = filled(b"b").await.unwrap();
    assert!(filled(b"c").await.is_none());
    drop(first);
    let third = filled(b"c").await.unwrap();
    allow(1);
    drop((second, third));
    assert!(filled(b"d").await.is_some());
    allow(0);
    assert!(filled(b"e").await.is_none());
    assert_eq!(lent_and_idle(), (0, 0));
}

/// A connection whose socket seems to be `other`, which the system joins with no pipe.
struct Refusing {
    stream: TcpStream,
    other: TcpStream,
}

impl Refusing {
    fn new(stream: TcpStream, other: OwnedFd) -> Self {
        let other = TcpStream::from_std(other.into()).unwrap();
        Self { stream, other }
    }
}

impl Carrier for Refusing {
    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.other)
    }
}

impl AsyncRead for Refusing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Refusing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_the_system_takes_from_no_pipe_is_written() {
    allow_anew(1);
    let pipe = filled(b"a body").await.unwrap();
    let (mut reader, stream) = pair().await;
    let counter = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let mut link = Link::new(Refusing::new(stream, counter));
    assert!(link.takes_pipes());
    link.output.text().extend_from_slice(b"a head and ");
    link.output.pipe(pipe);
    poll_fn(|context| link.poll_flush(context)).await.unwrap();
    assert!(link.is_flushed() && !link.takes_pipes());
    assert_eq!(link.written(), 17);
    let mut read = [0; 17];
    reader.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"a head and a body");
}

#[tokio::test]
async fn what_the_system_puts_into_no_pipe_is_read() {
    allow_anew(1);
    let (mut writer, stream) = pair().await;
    let folder = tempfile::tempdir().unwrap();
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC);
    let watch = watch.unwrap();
    inotify::add_watch(&watch, folder.path(), inotify::WatchFlags::CREATE).unwrap();
    std::fs::write(folder.path().join("seen"), "").unwrap();
    let mut link = Link::new(Refusing::new(stream, watch));
    let piped = poll_fn(|context| link.poll_pipe(context, 9)).await;
    assert!(piped.unwrap().is_none() && !link.takes_pipes());
    assert_eq!(lent_and_idle(), (0, 1));
    writer.write_all(b"a body").await.unwrap();
    let read = poll_fn(|context| link.poll_fill(context, None)).await;
    assert_eq!(read.unwrap(), 6);
}
