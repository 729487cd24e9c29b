//! What answers a request.

use super::body::Answer;
use super::{Peer, Request};

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
}
