//! One connection to a server, over hyper's client.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::rc::{Rc, Weak};

use http::{StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::origin::Origin;
use super::stream::Stream;
use super::{Error, Pool};
use crate::wire::body::{self, Lease, Leased};
use crate::wire::{Body, Request, Response};

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    origin: Rc<Origin>,
    sender: RefCell<SendRequest<Body>>,
    pool: Weak<Pool>,
    pub(super) idle_since: Cell<Instant>,
}

/// A request that got no response.
#[derive(Debug)]
pub(super) enum Unsent {
    /// Not a byte of it was written: here it is again.
    Returned(Box<Request>),
    /// It may have been received.
    Failed(Error),
}

impl Connection {
    pub(super) async fn start(
        stream: Stream,
        origin: &Origin,
        pool: &Rc<Pool>,
    ) -> Result<Rc<Self>, Error> {
        // hyper's own limit of 100 fields stays: told another, it allocates twice for each head.
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| Error::Broken {
                origin: origin.clone(),
                source,
            })?;
        // Ends when `sender` is dropped or the other side closes: the connection owns it that way.
        tokio::task::spawn_local(async move {
            // What breaks it is seen by the request it carries.
            let _closed = connection.with_upgrades().await;
        });
        Ok(Rc::new(Self {
            origin: Rc::new(origin.clone()),
            sender: RefCell::new(sender),
            pool: Rc::downgrade(pool),
            idle_since: Cell::new(Instant::now()),
        }))
    }

    pub(super) fn origin(&self) -> &Rc<Origin> {
        &self.origin
    }

    /// Whether it can carry a request now: open, and done with the one before.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.borrow().is_ready()
    }

    pub(super) fn send(
        self: &Rc<Self>,
        request: Request,
    ) -> impl Future<Output = Result<Response, Unsent>> {
        let sending = self.sender.borrow_mut().try_send_request(request);
        async move {
            match sending.await {
                Ok(response) => Ok(self.lease(response)),
                Err(mut failed) => Err(match failed.take_message() {
                    Some(request) => Unsent::Returned(Box::new(request)),
                    None => Unsent::Failed(self.broken(failed.into_error())),
                }),
            }
        }
    }

    fn lease(self: &Rc<Self>, response: http::Response<Incoming>) -> Response {
        let (mut head, incoming) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // The connection is a tunnel's now; hyper hands it over.
            return Response::from_parts(head, Body::Empty);
        }
        let lease: Rc<dyn Lease> = if head.headers.contains_key(header::TRANSFER_ENCODING)
            && head.headers.remove(header::CONTENT_LENGTH).is_some()
        {
            // RFC 9112, 6.3: both fields may be an attempt at smuggling, so what follows the body
            // is not trusted to be the next response.
            Rc::new(Spoilt(Rc::clone(self)))
        } else {
            Rc::clone(self) as Rc<dyn Lease>
        };
        Response::from_parts(head, Body::Leased(Leased::new(incoming, lease)))
    }

    fn broken(&self, source: hyper::Error) -> Error {
        if body_error(&source).is_some() {
            return Error::RequestBody(source);
        }
        Error::Broken {
            origin: Origin::clone(&self.origin),
            source,
        }
    }
}

impl Lease for Connection {
    fn finish(self: Rc<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.keep(self);
        }
    }
}

/// Holds a connection until its body ends, and then lets it go.
struct Spoilt(#[expect(dead_code, reason = "held, not read")] Rc<Connection>);

impl Lease for Spoilt {
    fn finish(self: Rc<Self>) {}
}

/// The error of our own request body inside an error of hyper's.
pub(super) fn body_error(error: &hyper::Error) -> Option<&body::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}
