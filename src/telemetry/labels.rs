//! What labels may say: small sets, each an enum. Never a host, a path or what a client made up.

/// The kinds of route, as the label `http_route` and the log name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// `/api/…` and `/v1/…`.
    Api,
    /// `<id>.m3o.app`.
    App,
    /// `<id>.m3o.sh`.
    Function,
    /// Short links.
    Link,
    /// Verification links.
    Verify,
    /// The list of apps.
    Index,
    /// Proofs of custom domains.
    Proof,
    /// Everything that leads nowhere.
    Unknown,
}

impl RouteKind {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    pub(super) const ALL: [Self; 8] = [
        Self::Api,
        Self::App,
        Self::Function,
        Self::Link,
        Self::Verify,
        Self::Index,
        Self::Proof,
        Self::Unknown,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::App => "app",
            Self::Function => "function",
            Self::Link => "link",
            Self::Verify => "verify",
            Self::Index => "index",
            Self::Proof => "proof",
            Self::Unknown => "unknown",
        }
    }
}

/// What the resolve cache had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// An entry that needs no asking.
    Fresh,
    /// An entry that is being refreshed in the background.
    Stale,
    /// An old entry, because the upstream does not answer.
    Rescued,
    /// "No such app", remembered.
    Negative,
    /// Nothing: the upstream was asked.
    Miss,
}

impl CacheResult {
    pub(super) const ALL: [Self; 5] = [
        Self::Fresh,
        Self::Stale,
        Self::Rescued,
        Self::Negative,
        Self::Miss,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Rescued => "rescued",
            Self::Negative => "negative",
            Self::Miss => "miss",
        }
    }
}

/// The two kinds of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppKind {
    /// An app.
    App,
    /// A function.
    Function,
}

impl AppKind {
    pub(super) const ALL: [Self; 2] = [Self::App, Self::Function];

    /// The route that leads there, by whose label they are known.
    #[must_use]
    pub fn route(self) -> RouteKind {
        match self {
            Self::App => RouteKind::App,
            Self::Function => RouteKind::Function,
        }
    }
}

/// Why a request was sent once more, over a fresh connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not a byte of it had left, or the server says that it has not looked at it.
    Unsent,
    /// The kept connection broke off, and the request may arrive twice.
    BrokenOff,
}

impl Retry {
    pub(super) const ALL: [Self; 2] = [Self::Unsent, Self::BrokenOff];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::BrokenOff => "broken_off",
        }
    }
}

/// What went wrong where an answer is our own, in the words of `Proxy-Status` (RFC 9209, 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The client's request is wrong.
    Request,
    /// The client may not.
    Denied,
    /// The request has been here before.
    Loop,
    /// There is no room.
    NoRoom,
    /// There is no such thing.
    NotFound,
    /// It cannot be asked now.
    Unavailable,
    /// Its name cannot be looked up.
    Dns,
    /// Its address is none that may be asked.
    Prohibited,
    /// It takes no connection.
    Refused,
    /// A connection to it takes too long.
    ConnectionTimedOut,
    /// Its answer takes too long.
    ResponseTimedOut,
    /// Its answer is no HTTP, or broke off.
    Protocol,
    /// Its answer lacks what is needed.
    Incomplete,
    /// It did not switch protocols as it should.
    Upgrade,
    /// A bug of ours.
    Internal,
}

impl ErrorType {
    pub(super) const ALL: [Self; 15] = [
        Self::Request,
        Self::Denied,
        Self::Loop,
        Self::NoRoom,
        Self::NotFound,
        Self::Unavailable,
        Self::Dns,
        Self::Prohibited,
        Self::Refused,
        Self::ConnectionTimedOut,
        Self::ResponseTimedOut,
        Self::Protocol,
        Self::Incomplete,
        Self::Upgrade,
        Self::Internal,
    ];

    /// The label, which is the token of the field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "http_request_error",
            Self::Denied => "http_request_denied",
            Self::Loop => "proxy_loop_detected",
            Self::NoRoom => "connection_limit_reached",
            Self::NotFound => "destination_not_found",
            Self::Unavailable => "destination_unavailable",
            Self::Dns => "dns_error",
            Self::Prohibited => "destination_ip_prohibited",
            Self::Refused => "connection_refused",
            Self::ConnectionTimedOut => "connection_timeout",
            Self::ResponseTimedOut => "http_response_timeout",
            Self::Protocol => "http_protocol_error",
            Self::Incomplete => "http_response_incomplete",
            Self::Upgrade => "http_upgrade_failed",
            Self::Internal => "proxy_internal_error",
        }
    }
}

/// What there was no room for, and the request or connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// One more connection: `limits.connections` is reached.
    Connections,
    /// One more connection of this address: `limits.per_peer` is reached.
    Peer,
    /// One more descriptor: only those are left that are kept for what must go on.
    Descriptors,
    /// One more request to this workload: `limits.per_workload` is reached, tunnels included.
    Workload,
    /// One more request to this workload while a worker has more to do than it can.
    Overload,
    /// One more question to the upstream about a workload that is not known.
    Lookups,
    /// One more request of this client: its rate is used up.
    RatePeer,
    /// One more call with this key.
    RateKey,
    /// One more request to this app.
    RateApp,
}

impl Shed {
    pub(super) const ALL: [Self; 9] = [
        Self::Connections,
        Self::Peer,
        Self::Descriptors,
        Self::Workload,
        Self::Overload,
        Self::Lookups,
        Self::RatePeer,
        Self::RateKey,
        Self::RateApp,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peer => "peer",
            Self::Descriptors => "descriptors",
            Self::Workload => "workload",
            Self::Overload => "overload",
            Self::Lookups => "lookups",
            Self::RatePeer => "rate_peer",
            Self::RateKey => "rate_key",
            Self::RateApp => "rate_app",
        }
    }
}

/// Why a connection is closed for its PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    /// Its peer is not trusted to announce anybody.
    Untrusted,
    /// It begins with none, or with one that breaks off or is malformed.
    Malformed,
    /// The header did not arrive in time.
    TimedOut,
}

impl NoHeader {
    pub(super) const ALL: [Self; 3] = [Self::Untrusted, Self::Malformed, Self::TimedOut];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::TimedOut => "timed_out",
        }
    }
}
