//! What hyper reads.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;

use super::{End, Message, Reading, pieces};

/// More fields than we take.
const FIELDS: usize = 512;

/// The requests in the bytes of one connection.
#[must_use]
pub fn requests(pieces: &[&[u8]]) -> Reading {
    let seen = RefCell::default();
    let end = pieces::read(pieces, |stream| serve(stream, &seen));
    reading(seen, end)
}

async fn serve(stream: DuplexStream, seen: &RefCell<Vec<Message>>) -> End {
    let service = service_fn(|request: http::Request<Incoming>| async move {
        seen.borrow_mut().push(Message::of_request(&request));
        receive(request.into_body(), seen).await?;
        let mut response = http::Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, hyper::Error>(response)
    });
    let served = server::Builder::new()
        .half_close(true)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    ended(served)
}

/// Reads a body to its end into the last message of `seen`.
async fn receive(mut body: Incoming, seen: &RefCell<Vec<Message>>) -> hyper::Result<()> {
    while let Some(frame) = body.frame().await.transpose()? {
        if let Some(message) = seen.borrow_mut().last_mut() {
            message.add(frame);
        }
    }
    if let Some(message) = seen.borrow_mut().last_mut() {
        message.whole = true;
    }
    Ok(())
}

/// The responses in the bytes of one connection, to one request of each of `methods` in their order,
/// as far as the connection carries them.
#[must_use]
pub fn responses(pieces: &[&[u8]], methods: &[Method]) -> Reading {
    let seen = RefCell::default();
    let end = pieces::read(pieces, |stream| ask(stream, methods, &seen));
    reading(seen, end)
}

async fn ask(stream: DuplexStream, methods: &[Method], seen: &RefCell<Vec<Message>>) -> End {
    let mut builder = client::Builder::new();
    builder.max_headers(FIELDS);
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => return ended(Err(error)),
    };
    let mut asking = pin!(async {
        for method in methods {
            sender.ready().await?;
            let mut request = http::Request::new(Empty::<Bytes>::new());
            *request.method_mut() = method.clone();
            let response = sender.send_request(request).await?;
            seen.borrow_mut().push(Message::of_response(&response));
            receive(response.into_body(), seen).await?;
        }
        Ok(())
    });
    let mut connection = pin!(connection);
    let mut connected = true;
    poll_fn(|context| {
        connected = connected && connection.as_mut().poll(context).is_pending();
        asking.as_mut().poll(context).map(ended)
    })
    .await
}

fn ended(outcome: hyper::Result<()>) -> End {
    match outcome {
        Ok(()) => End::Connection,
        Err(error) if error.is_incomplete_message() => End::Bytes,
        Err(error) => End::Refused(error.to_string()),
    }
}

fn reading(seen: RefCell<Vec<Message>>, end: Option<End>) -> Reading {
    Reading {
        messages: seen.into_inner(),
        end: end.unwrap_or(End::Bytes),
    }
}
