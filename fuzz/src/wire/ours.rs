//! What we read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use http::{HeaderMap, Method, StatusCode};
use m3o_ingress::wire::body::{Body, Error as BodyError};
use m3o_ingress::wire::client::{Client, Error};
use m3o_ingress::wire::head::HeadLimits;
use m3o_ingress::wire::server::{After, Next, Presence, Server};
use tokio::io::DuplexStream;

use super::{End, Message, Reading, pieces};

/// What a client's heads and trailers are held to.
pub const LIMITS: HeadLimits = HeadLimits {
    bytes: 8 << 10,
    fields: 64,
};

/// What is done with the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// It is read to its end, and then comes the answer.
    Read,
    /// It is left alone, and the answer comes at once.
    Dropped,
}

/// The requests in the bytes of one connection.
#[must_use]
pub fn requests(pieces: &[&[u8]], bodies: Bodies) -> Reading {
    let seen = RefCell::default();
    let end = pieces::read(pieces, |stream| serve(stream, bodies, &seen));
    Reading {
        messages: seen.into_inner(),
        end: end.expect("our server waits for nothing after the end of the stream"),
    }
}

async fn serve(stream: DuplexStream, bodies: Bodies, seen: &RefCell<Vec<Message>>) -> End {
    let mut server = Server::new(stream, LIMITS);
    loop {
        let mut message = match poll_fn(|context| server.poll_next(context)).await {
            Next::Request(request) => Message::of_request(&request),
            Next::Http2 => return End::Refused("it is HTTP/2".to_owned()),
            Next::Closed => return End::Bytes,
            Next::Refused(bad) => return End::Refused(bad.to_string()),
        };
        let ended = match bodies {
            Bodies::Read => receive(&server, &mut message).await,
            Bodies::Dropped => Ok(()),
        };
        message.whole = bodies == Bodies::Read && ended.is_ok();
        seen.borrow_mut().push(message);
        let after = answer(&mut server).await;
        if let Err(end) = ended {
            assert_ne!(after, After::Open, "the body has no end: {end:?}");
            return end;
        }
        if after != After::Open {
            return End::Connection;
        }
    }
}

async fn receive(server: &Server<DuplexStream>, message: &mut Message) -> Result<(), End> {
    let Some(mut body) = server.body() else {
        return Ok(());
    };
    loop {
        // As whoever serves a connection does: it looks after a client that leaves.
        let frame = poll_fn(|context| match body.poll_frame(context) {
            Poll::Pending => match server.presence(context) {
                Presence::Gone => Poll::Ready(Err(End::Bytes)),
                Presence::Here | Presence::Silent => Poll::Pending,
            },
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        });
        match frame.await? {
            Some(Ok(frame)) => message.add(frame),
            Some(Err(error)) => return Err(end(&error)),
            None => return Ok(()),
        }
    }
}

async fn answer(server: &mut Server<DuplexStream>) -> After {
    let mut response = http::Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NOT_FOUND;
    let mut encoder = server.begin(&mut response, false);
    let mut body = response.into_body();
    poll_fn(|context| server.poll_answer(&mut body, &mut encoder, context))
        .await
        .expect("everything that is written is taken");
    server.after()
}

/// The responses in the bytes of one connection, to one request of each of `methods` in their order,
/// as far as the connection carries them.
#[must_use]
pub fn responses(pieces: &[&[u8]], methods: &[Method]) -> Reading {
    let seen = RefCell::default();
    let end = pieces::read(pieces, |stream| ask(stream, methods, &seen));
    Reading {
        messages: seen.into_inner(),
        end: end.expect("our client waits for nothing after the end of the stream"),
    }
}

async fn ask(stream: DuplexStream, methods: &[Method], seen: &RefCell<Vec<Message>>) -> End {
    let mut client = Client::new(stream);
    for method in methods {
        let mut request = http::Request::new(Body::Empty);
        *request.method_mut() = method.clone();
        client.begin(&mut request);
        let mut spare = HeaderMap::new();
        let mut message = match client.response(*method == Method::HEAD, &mut spare).await {
            Ok(response) => Message::of_response(&response),
            Err(Error::Malformed(bad)) => return End::Refused(bad.to_string()),
            Err(Error::BrokenOff(_) | Error::RequestBody(_)) => return End::Bytes,
        };
        let ended = loop {
            match poll_fn(|context| client.poll_frame(context)).await {
                Some(Ok(frame)) => message.add(frame),
                Some(Err(error)) => break Err(end(&error)),
                None => break Ok(()),
            }
        };
        message.whole = ended.is_ok();
        seen.borrow_mut().push(message);
        if let Err(end) = ended {
            assert!(!client.is_free(), "the body has no end: {end:?}");
            return end;
        }
        if !client.is_free() {
            return End::Connection;
        }
    }
    End::Connection
}

fn end(error: &BodyError) -> End {
    match error {
        BodyError::Malformed(what) => End::Refused((*what).to_owned()),
        BodyError::TooLarge { .. } | BodyError::Stalled | BodyError::Broken(_) => End::Bytes,
    }
}
