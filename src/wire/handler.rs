//! What answers a request.

use bytes::Bytes;

use super::{Peer, Request, body};

/// Takes a request and the peer that sent it, and always gives a response: failing is an answer too.
pub trait Handler {
    /// The body of its answers.
    type Body: http_body::Body<Data = Bytes, Error = body::Error> + Unpin + 'static;

    /// Answers one request.
    fn handle(
        &self,
        request: Request,
        peer: &Peer,
    ) -> impl Future<Output = http::Response<Self::Body>>;
}
