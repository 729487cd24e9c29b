//! HTTP messages as every part sees them, and HTTP/1.1 on the wire.
//!
//! `head` and `framing` read strictly, `encode` writes into an `output`, `link` is a connection with
//! its buffers, `pipe` what goes past them. `server` is our half of a client's connection, `client` our half of one to a server,
//! `tunnel` what comes after either has switched protocols. `body` is the one body type; `h2_body` and
//! `h2_tunnel` are bodies and tunnels over the streams of HTTP/2. `timer` is the one timer of a
//! connection, `clock` the time of day, `handler` what answers a request and `peer` who sent it.

pub mod body;
pub mod client;
pub mod clock;
pub mod encode;
pub mod framing;
pub mod h2_body;
pub mod h2_tunnel;
pub mod handler;
pub mod head;
pub mod link;
pub mod output;
pub mod peer;
pub mod pipe;
pub mod server;
pub mod timer;
pub mod tunnel;

pub use body::Body;
pub use handler::Handler;
pub use peer::{Covers, Peer, Scheme, Secured, Trust};

/// A request, its body still on its way.
pub type Request = http::Request<Body>;

/// A response, its body still on its way.
pub type Response = http::Response<Body>;

/// An empty map in the memory of a request's fields, which are not needed any more: for those of its answer.
#[must_use]
pub fn emptied(fields: &mut http::HeaderMap) -> http::HeaderMap {
    let mut fields = std::mem::take(fields);
    fields.clear();
    fields
}
