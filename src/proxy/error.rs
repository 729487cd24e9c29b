//! The one table from an error to an answer. Nothing else in the proxy gives an error a status, but for
//! the page of a verification link that is not good, which offers a link to go on by.

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::form::Form;
use crate::id::RequestId;
use crate::pool::{self, DialError};
use crate::rates::Exceeded;
use crate::resolve::{self, WorkloadKind};
use crate::server::descriptors;
use crate::telemetry::metrics::{ErrorType, RouteKind};
use crate::upstream;
use crate::wire::{Response, body};
pub(super) use cause::{Error, of_backend, of_body, of_upstream};

mod cause;

/// An error as it is told.
struct Told {
    status: StatusCode,
    kind: ErrorType,
    text: String,
}

/// What is put into `Retry-After`, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

impl Error {
    /// The answer, in the words of `form`.
    pub(super) fn to_response(&self, form: Form, route: RouteKind, id: &RequestId) -> Response {
        let told = self.told();
        let mut response = form.render(told.status, &told.text, route, id);
        let headers = response.headers_mut();
        headers.insert(PROXY_STATUS, proxy_status(told.kind));
        if told.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let Self::Closed(_, closed) = self {
            headers.insert(header::RETRY_AFTER, closed.retry_after().into());
        }
        if let Self::Exceeded(Exceeded(standing)) = self {
            headers.insert(header::RETRY_AFTER, standing.reset.into());
        }
        if let Self::Method { allow } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::NoKey = self {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.leaves_body_unread() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The error type of `Proxy-Status`, which the log names too.
    pub(super) fn kind(&self) -> ErrorType {
        self.told().kind
    }

    /// Whether what went wrong is worth a cause in the log: not what clients do wrong every day.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            // What is closed is so on purpose.
            Self::MethodUnknown | Self::Closed(..) => false,
            // Which rate it was stands nowhere else.
            Self::Exceeded(_) => true,
            error => error.told().status.is_server_error(),
        }
    }

    fn leaves_body_unread(&self) -> bool {
        matches!(self, Self::BodyTooLarge | Self::ClientBody(_))
    }

    fn told(&self) -> Told {
        let told = |status, kind, text: &str| Told {
            status,
            kind,
            text: text.to_owned(),
        };
        let wrong = |status, text: &str| told(status, ErrorType::Request, text);
        let bad = |text: &str| wrong(StatusCode::BAD_REQUEST, text);
        let gateway = |kind, text: &str| told(StatusCode::BAD_GATEWAY, kind, text);
        let late = |text: &str| {
            told(
                StatusCode::GATEWAY_TIMEOUT,
                ErrorType::ResponseTimedOut,
                text,
            )
        };
        match self {
            Self::Authority(error) => bad(&error.to_string()),
            Self::Target => bad("the target of the request cannot be used"),
            Self::Malformed(what) => bad(what),
            Self::Misdirected => misdirected(),
            Self::Unknown => not_found("there is nothing here"),
            Self::NoSuchLink => not_found("there is no such short link"),
            Self::NoSuchEndpoint => not_found("there is no such endpoint"),
            Self::Method { allow } => wrong(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("use one of {allow}"),
            ),
            Self::MethodUnknown => {
                wrong(StatusCode::NOT_IMPLEMENTED, "this method is not supported")
            }
            Self::NoKey => told(
                StatusCode::UNAUTHORIZED,
                ErrorType::Denied,
                "an API key is needed: send it as `Authorization: Bearer KEY` or as the parameter api_key",
            ),
            Self::BadKey => bad("the API key has characters that no key has"),
            Self::UriTooLong => wrong(
                StatusCode::URI_TOO_LONG,
                "the URI is longer than this server takes",
            ),
            Self::BodyTooLarge => wrong(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than this server takes",
            ),
            Self::CompressedForm => wrong(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a form must not be compressed: send it without Content-Encoding",
            ),
            Self::Form(error) => bad(&error.to_string()),
            Self::ClientBody(error) => client_body(error),
            Self::Expectation => wrong(
                StatusCode::EXPECTATION_FAILED,
                "the only expectation that is met is 100-continue",
            ),
            Self::Loop => told(
                StatusCode::LOOP_DETECTED,
                ErrorType::Loop,
                "this request came back to where it started",
            ),
            Self::Busy => busy(),
            Self::Exceeded(Exceeded(standing)) => exceeded(standing.reset),
            Self::Resolve(kind, error) => resolve_error(*kind, error),
            Self::Closed(kind, closed) => closed_for_now(&closed.told(kind.as_str())),
            Self::Upstream(error) => upstream_error(error),
            Self::NotVerifiable(_) => gateway(
                ErrorType::Unavailable,
                "this link cannot be checked right now; try again later",
            ),
            Self::UpstreamBroken(_) => gateway(
                ErrorType::Protocol,
                "the API broke off or gave an answer that makes no sense",
            ),
            Self::UpstreamTimedOut => late("the API did not answer in time"),
            Self::Destination(_) => gateway(
                ErrorType::Incomplete,
                "this short link leads to something that is no web address",
            ),
            Self::Redirect(parameter, error) => bad(&format!("{parameter}: {error}")),
            Self::RedirectHost(parameter) => bad(&format!(
                "{parameter}: redirects to this host are not allowed"
            )),
            Self::NoToken => bad("the link has no token; open the link of the mail as it is"),
            Self::Backend(error) => backend_error(error),
            Self::BackendTimedOut => late("the app did not answer in time"),
            Self::BackendUpgrade => gateway(
                ErrorType::Upgrade,
                "the app gave an answer that makes no sense",
            ),
            Self::Panicked => told(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorType::Internal,
                "something went wrong here, and was noted",
            ),
        }
    }
}

fn misdirected() -> Told {
    Told {
        status: StatusCode::MISDIRECTED_REQUEST,
        kind: ErrorType::Request,
        text: "this connection is for another host: ask over one of its own".to_owned(),
    }
}

fn busy() -> Told {
    Told {
        status: StatusCode::SERVICE_UNAVAILABLE,
        kind: ErrorType::NoRoom,
        text: "too many requests at once; try again in a moment".to_owned(),
    }
}

fn closed_for_now(text: &str) -> Told {
    Told {
        status: StatusCode::SERVICE_UNAVAILABLE,
        kind: ErrorType::Unavailable,
        text: text.to_owned(),
    }
}

/// Until one request may come again it takes so many `seconds`.
fn exceeded(seconds: u32) -> Told {
    let when = match seconds {
        1 => "a second".to_owned(),
        more => format!("{more} seconds"),
    };
    Told {
        status: StatusCode::TOO_MANY_REQUESTS,
        kind: ErrorType::Denied,
        text: format!("too many requests; try again in {when}"),
    }
}

fn not_found(text: &str) -> Told {
    Told {
        status: StatusCode::NOT_FOUND,
        kind: ErrorType::NotFound,
        text: text.to_owned(),
    }
}

fn client_body(error: &body::Error) -> Told {
    let (status, text) = match error {
        body::Error::TooLarge { .. } => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than this server takes",
        ),
        body::Error::Stalled => (
            StatusCode::REQUEST_TIMEOUT,
            "the body of the request did not arrive in time",
        ),
        body::Error::Broken(_) | body::Error::Malformed(_) => (
            StatusCode::BAD_REQUEST,
            "the body of the request is malformed or was cut off",
        ),
    };
    Told {
        status,
        kind: ErrorType::Request,
        text: text.to_owned(),
    }
}

fn resolve_error(kind: WorkloadKind, error: &resolve::Error) -> Told {
    let name = kind.as_str();
    match error {
        resolve::Error::Unknown => not_found(&format!("there is no such {name}")),
        // Whoever waits for an app is told to try again, not that the API was slow.
        resolve::Error::Upstream(
            upstream::Error::Unavailable(_)
            | upstream::Error::Unreachable(_)
            | upstream::Error::TimedOut
            | upstream::Error::Unreadable(_),
        )
        | resolve::Error::Busy
        | resolve::Error::Abandoned => Told {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: ErrorType::Unavailable,
            text: format!("the {name} cannot be found right now; try again in a moment"),
        },
        resolve::Error::Upstream(
            upstream::Error::NotFound
            | upstream::Error::Rejected(_)
            | upstream::Error::TokenRefused(_)
            | upstream::Error::Unexpected(_)
            | upstream::Error::Garbage { .. }
            | upstream::Error::Misconfigured,
        )
        | resolve::Error::BadBackend(_) => Told {
            status: StatusCode::BAD_GATEWAY,
            kind: ErrorType::Unavailable,
            text: format!("the {name} cannot be reached"),
        },
    }
}

fn upstream_error(error: &upstream::Error) -> Told {
    let (status, kind, text) = match error {
        upstream::Error::NotFound => return not_found("the API knows no such thing"),
        upstream::Error::Unavailable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::Unavailable,
            "the API cannot answer right now; try again in a moment",
        ),
        upstream::Error::Unreachable(pool::Error::RequestBody(_)) => (
            StatusCode::BAD_REQUEST,
            ErrorType::Request,
            "the body of the request is malformed or was cut off",
        ),
        upstream::Error::Unreachable(_) | upstream::Error::Unreadable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::Unavailable,
            "the API cannot be reached right now; try again in a moment",
        ),
        upstream::Error::TimedOut => (
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::ResponseTimedOut,
            "the API did not answer in time; try again in a moment",
        ),
        upstream::Error::TokenRefused(_) => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Unavailable,
            "the ingress is not allowed to ask the API",
        ),
        upstream::Error::Rejected(_)
        | upstream::Error::Unexpected(_)
        | upstream::Error::Garbage { .. }
        | upstream::Error::Misconfigured => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Protocol,
            "the API gave an answer that makes no sense",
        ),
    };
    Told {
        status,
        kind,
        text: text.to_owned(),
    }
}

fn backend_error(error: &pool::Error) -> Told {
    let (status, kind, text) = match error {
        pool::Error::Dial(DialError::TimedOut { .. }) => (
            StatusCode::GATEWAY_TIMEOUT,
            ErrorType::ConnectionTimedOut,
            "the app did not answer in time",
        ),
        pool::Error::Dial(DialError::Name { .. }) => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Dns,
            "the app cannot be reached",
        ),
        pool::Error::Dial(DialError::Forbidden { .. }) => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Prohibited,
            "the app cannot be reached",
        ),
        pool::Error::Dial(DialError::Connect { source, .. })
            if descriptors::are_used_up(source) =>
        {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorType::NoRoom,
                "too many connections; try again in a moment",
            )
        }
        pool::Error::Dial(DialError::Connect { .. }) => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Refused,
            "the app cannot be reached",
        ),
        pool::Error::RequestBody(_) => (
            StatusCode::BAD_REQUEST,
            ErrorType::Request,
            "the body of the request is malformed or was cut off",
        ),
        pool::Error::Upgrade { .. } => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Upgrade,
            "the app speaks HTTP/2 and cannot switch to another protocol",
        ),
        pool::Error::Broken { .. } | pool::Error::Malformed { .. } => (
            StatusCode::BAD_GATEWAY,
            ErrorType::Protocol,
            "the app broke off or gave an answer that makes no sense",
        ),
    };
    Told {
        status,
        kind,
        text: text.to_owned(),
    }
}

pub(super) fn proxy_status(kind: ErrorType) -> HeaderValue {
    let (name, kind) = (super::headers::OUR_NAME, kind.as_str());
    HeaderValue::try_from(format!("{name}; error={kind}")).expect("error types are tokens")
}
