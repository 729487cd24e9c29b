use std::task::Waker;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;
use crate::wire::body::{Received, Source};
use crate::wire::timer::Timer;

/// A request body that gives these frames, one a poll.
#[derive(Debug)]
struct Scripted(Vec<Result<&'static str, body::Error>>);

impl Source for Scripted {
    fn poll_frame(
        &mut self,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let frame = self.0.remove(0);
        Poll::Ready(Some(frame.map(|data| Frame::data(Bytes::from(data)))))
    }

    fn is_ended(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn post(frames: Vec<Result<&'static str, body::Error>>) -> Request {
    let source = Box::new(Scripted(frames));
    let received = Received::new(source, 0, Duration::from_secs(9), Timer::new());
    let mut request = Request::new(Body::Received(received));
    *request.method_mut() = Method::POST;
    request
}

async fn response<S: Carrier>(
    client: &mut Client<S>,
    mut request: Request,
) -> Result<http::Response<()>, Error> {
    client.begin(&mut request);
    client.response(false, request.headers_mut()).await
}

#[tokio::test]
async fn an_upload_that_broke_never_looks_whole() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let mut client = Client::new(ours);
    let frames = vec![Ok("some"), Err(body::Error::Stalled), Ok("more")];
    let failed = response(&mut client, post(frames)).await;
    assert!(matches!(failed, Err(Error::RequestBody(_))), "{failed:?}");
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        let _progress = client.poll_upload(&mut context);
    }
    assert!(!client.is_free());
    drop(client);
    let mut seen = String::new();
    theirs.read_to_string(&mut seen).await.unwrap();
    assert!(!seen.contains("more") && !seen.contains("0\r\n"), "{seen}");
}

#[tokio::test]
async fn a_head_that_was_promised_and_not_given_is_not_asked_for_again() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let mut client = Client::new(ours);
    theirs
        .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        .await
        .unwrap();
    theirs.shutdown().await.unwrap();
    let failed = response(&mut client, Request::default()).await;
    assert!(matches!(failed, Err(Error::Malformed(_))), "{failed:?}");
}

#[tokio::test]
async fn trailers_that_are_no_fields_spoil_the_connection() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let mut client = Client::new(ours);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA : b\r\n\r\n";
    theirs.write_all(answer).await.unwrap();
    response(&mut client, Request::default()).await.unwrap();
    let frame = poll_fn(|context| client.poll_frame(context)).await;
    assert!(matches!(frame, Some(Err(body::Error::Malformed(_)))));
    assert!(!client.is_ended() && !client.is_free());
}

/// A stream to a server that takes nothing any more.
struct Deaf(DuplexStream);

impl Carrier for Deaf {}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_server_has_said_counts_although_it_takes_no_more() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let mut client = Client::new(Deaf(ours));
    let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    theirs.write_all(answer).await.unwrap();
    let head = response(&mut client, post(vec![Ok("body")])).await.unwrap();
    assert_eq!(head.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!client.is_free());
}

/// A stream that takes bytes and passes them on only at the second time of asking, as TLS does
/// over a slow connection.
struct Reluctant {
    stream: DuplexStream,
    held: Vec<u8>,
    asked: bool,
}

impl Carrier for Reluctant {}

impl AsyncRead for Reluctant {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Reluctant {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.asked, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let held = std::mem::take(&mut self.held);
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, &held))?;
        assert_eq!(written, held.len());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[tokio::test]
async fn what_the_stream_holds_back_is_flushed() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let mut client = Client::new(Reluctant {
        stream: ours,
        held: Vec::new(),
        asked: false,
    });
    let server = async {
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            theirs.read_buf(&mut seen).await.unwrap();
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        theirs.write_all(answer).await.unwrap();
    };
    let (answered, ()) = tokio::join!(response(&mut client, post(vec![Ok("body")])), server);
    answered.unwrap();
    assert!(client.is_free());
}
