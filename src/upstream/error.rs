//! Why the upstream gave no usable answer.

use http::StatusCode;

use crate::pool;
use crate::wire::body;

/// Why a call of the API failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It says that there is no such thing.
    #[error("not found")]
    NotFound,
    /// It says that the question was wrong (400 and other 4xx).
    #[error("the API refused the call with {0}")]
    Rejected(StatusCode),
    /// It refused the ingress's own token.
    #[error(
        "the API refused our own token with {0}; check the variable that `api.token_env` names"
    )]
    TokenRefused(StatusCode),
    /// It cannot answer now (429, 5xx).
    #[error("the API answered {0}")]
    Unavailable(StatusCode),
    /// A status that no API call has: a redirect, say, which is not followed.
    #[error("the API answered {0}, which is no answer to a call")]
    Unexpected(StatusCode),
    /// The answer is not the JSON that it should be. What serde says of it repeats what it found, and
    /// that may be our own token.
    #[error("the API's answer is not what it should be (at line {line}, column {column})")]
    Garbage {
        /// Where it stops making sense.
        line: usize,
        /// In that line.
        column: usize,
    },
    /// The answer broke off or is too large.
    #[error("the API's answer could not be read")]
    Unreadable(#[from] body::Error),
    /// It took too long.
    #[error("the API did not answer in time")]
    TimedOut,
    /// There is no connection to it, or it broke.
    #[error(transparent)]
    Unreachable(#[from] pool::Error),
    /// Our own configuration makes no call possible.
    #[error("the address or the token of the API cannot be used")]
    Misconfigured,
}

impl Error {
    /// What an answer says that is no success.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::TokenRefused(status),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Self::Unavailable(status)
            }
            status if status.is_client_error() => Self::Rejected(status),
            status if status.is_server_error() => Self::Unavailable(status),
            // Redirects among them: following one would carry our token elsewhere.
            status => Self::Unexpected(status),
        }
    }
}
