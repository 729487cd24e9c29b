//! What answers a request.

use http::{HeaderValue, StatusCode};

use super::body::Answer;
use super::{Peer, Request};
use crate::id::RequestId;

/// Takes a request and the peer that sent it, and always gives a response: failing is an answer too.
pub trait Handler {
    /// The body of its answers.
    type Body: Answer + 'static;

    /// Answers one request.
    fn handle(
        &self,
        request: Request,
        peer: &Peer,
    ) -> impl Future<Output = http::Response<Self::Body>>;

    /// Hears of what was no request, or not whole in time, and was answered with `status` under `id`.
    fn refused(&self, _peer: &Peer, _status: StatusCode, _id: RequestId) {}

    /// The `Strict-Transport-Security` of what answers such a thing to this peer.
    fn promise(&self, _peer: &Peer) -> Option<HeaderValue> {
        None
    }

    /// Hears of a panic that cost an answer, where the connection it was for goes on.
    fn panicked(&self) {}
}
