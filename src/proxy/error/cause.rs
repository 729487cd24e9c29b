//! Why a request is answered by the ingress itself: what went wrong, and whose fault that is. Says nothing of
//! how it is told.

use std::sync::Arc;

use super::super::authority::BadAuthority;
use super::super::parameters::BadForm;
use crate::causes::with_causes;
use crate::closed::Closed;
use crate::destination::BadDestination;
use crate::pool::{self, DialError};
use crate::rates::Exceeded;
use crate::resolve::{self, WorkloadKind};
use crate::upstream;
use crate::wire::body;

/// Why a request is answered by the ingress itself, and not well.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Error {
    #[error(transparent)]
    Authority(#[from] BadAuthority),
    #[error("the target of the request cannot be used")]
    Target,
    #[error("the request is malformed")]
    Malformed(&'static str),
    #[error("the certificate of the connection does not speak for the host")]
    Misdirected,
    #[error("no route")]
    Unknown,
    #[error("no such short link")]
    NoSuchLink,
    #[error("no such endpoint")]
    NoSuchEndpoint,
    #[error("the method is not allowed here")]
    Method { allow: &'static str },
    #[error("the method is not supported")]
    MethodUnknown,
    #[error("no key")]
    NoKey,
    #[error("the key cannot stand in a header")]
    BadKey,
    #[error("the URI is longer than the limit")]
    UriTooLong,
    #[error("the body is larger than the limit")]
    BodyTooLarge,
    #[error("a form with a content coding")]
    CompressedForm,
    #[error("the form cannot be read")]
    Form(#[from] BadForm),
    #[error("the client's body failed")]
    ClientBody(#[source] body::Error),
    #[error("an expectation that is not 100-continue")]
    Expectation,
    #[error("the request has been here too often")]
    Loop,
    #[error("too many requests in flight to one workload")]
    Busy,
    #[error("the rate is used up")]
    Exceeded(#[source] Exceeded),
    #[error("cannot find the backend")]
    Resolve(WorkloadKind, #[source] Arc<resolve::Error>),
    #[error("closed by the operator: {}", .1.status())]
    Closed(WorkloadKind, Arc<Closed>),
    #[error("the upstream gave no answer")]
    Upstream(#[source] upstream::Error),
    #[error("the upstream does not say whether the link is good")]
    NotVerifiable(#[source] upstream::Error),
    #[error("the upstream broke off")]
    UpstreamBroken(#[source] pool::Error),
    #[error("the upstream did not answer in time")]
    UpstreamTimedOut,
    #[error("the upstream gave a destination that cannot be redirected to")]
    Destination(#[source] BadDestination),
    #[error("a redirect target that cannot be redirected to")]
    Redirect(&'static str, #[source] BadDestination),
    #[error("a redirect target on a host that is not allowed")]
    RedirectHost(&'static str),
    #[error("no token")]
    NoToken,
    #[error("the backend gave no response")]
    Backend(#[source] pool::Error),
    #[error("the backend did not answer in time")]
    BackendTimedOut,
    #[error("the backend switched protocols without being asked")]
    BackendUpgrade,
    #[error("the task panicked")]
    Panicked,
}

impl Error {
    /// What happened, for the log alone: addresses and the words of the system.
    pub(in crate::proxy) fn cause(&self) -> String {
        with_causes(self)
    }
}

/// An error of the pool, told apart by whose fault it is.
pub(in crate::proxy) fn of_backend(error: pool::Error) -> Error {
    match error {
        pool::Error::RequestBody(error) => of_body(error),
        error => Error::Backend(error),
    }
}

/// An error of the upstream while a client's call was passed on to it.
pub(in crate::proxy) fn of_upstream(error: upstream::Error) -> Error {
    let upstream::Error::Unreachable(error) = error else {
        return Error::Upstream(error);
    };
    match error {
        pool::Error::RequestBody(error) => of_body(error),
        error @ (pool::Error::Broken { .. }
        | pool::Error::Malformed { .. }
        | pool::Error::Upgrade { .. }) => Error::UpstreamBroken(error),
        pool::Error::Dial(DialError::TimedOut { .. }) => Error::UpstreamTimedOut,
        error @ pool::Error::Dial(_) => Error::Upstream(upstream::Error::Unreachable(error)),
    }
}

/// The body of a client's request ended before its end.
pub(in crate::proxy) fn of_body(error: body::Error) -> Error {
    match error {
        body::Error::TooLarge { .. } => Error::BodyTooLarge,
        error => Error::ClientBody(error),
    }
}
