//! Why an ingress could not be built, or stopped on its own.

use std::io;

use super::BadCertificates;
use crate::platform;
use crate::pool;
use crate::server::{inherited, listener, local};
use crate::upstream;

/// Why an ingress could not be built, or stopped on its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listener::Error),
    /// A socket of systemd is for nothing.
    #[error(transparent)]
    Unmatched(#[from] inherited::Unmatched),
    /// The process before this one does not hand over.
    #[error("the process before this one does not hand over: {0}")]
    Handover(#[source] io::Error),
    /// The control socket cannot be bound.
    #[error("listen.control: {0}")]
    Control(#[from] local::Error),
    /// The embedded platform cannot be opened.
    #[error(transparent)]
    Platform(#[from] platform::OpenError),
    /// The remote API cannot be called.
    #[error("[api]: {0}")]
    Api(#[from] upstream::Error),
    /// Its authorities cannot be read any more.
    #[error("backends.ca: {0}")]
    Authorities(#[from] pool::BadAuthorities),
    /// HTTPS cannot be served.
    #[error(transparent)]
    Certificates(#[from] BadCertificates),
    /// Neither a remote API nor the embedded platform is configured.
    #[error("neither [api] nor [platform] is configured")]
    NoApi,
    /// The system refuses a thread, a socket or a runtime.
    #[error("the system refuses what is needed to run: {0}")]
    System(#[from] io::Error),
    /// A worker ended on its own.
    #[error("a worker ended on its own: {0}")]
    Worker(String),
}
