//! HTTP messages as every part sees them, whatever protocol carried them.
//!
//! `body` is the one body type, `timer` the one timer of a connection, `io` the adapter under hyper
//! that knows the phase of a connection, `handler` what answers a request.

pub mod body;
pub mod handler;
pub mod io;
pub mod peer;
pub mod timer;

pub use body::Body;
pub use handler::Handler;
pub use peer::{Peer, Scheme};

/// A request, its body still on its way.
pub type Request = http::Request<Body>;

/// A response, its body still on its way.
pub type Response = http::Response<Body>;
