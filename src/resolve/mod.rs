//! From an app or function to its backend.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::WorkloadId;
use crate::telemetry::metrics::AppKind;
use crate::units;
use crate::upstream::{self, Upstream};

mod backend;
pub mod cached;
mod freshness;

pub use backend::{Backend, BadBackend};
pub use cached::{Cache, Cached, Entry};

/// An app or a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Which of the two.
    pub kind: WorkloadKind,
    /// Its id.
    pub id: WorkloadId,
}

/// App or function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// An app.
    App,
    /// A function.
    Function,
}

impl WorkloadKind {
    /// `app` or `function`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Function => "function",
        }
    }
}

impl From<WorkloadKind> for AppKind {
    fn from(kind: WorkloadKind) -> Self {
        match kind {
            WorkloadKind::App => Self::App,
            WorkloadKind::Function => Self::Function,
        }
    }
}

/// Why there is no backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API says that there is no such app or function.
    #[error("no such app or function")]
    Unknown,
    /// The API gave no usable answer.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The API gave a URL that is no backend.
    #[error("the API gave a backend that cannot be used")]
    BadBackend(#[from] BadBackend),
    /// The API is being asked about too many others.
    #[error("too many questions to the API at once")]
    Busy,
    /// The thread that asked is gone.
    #[error("the call ended without an answer")]
    Abandoned,
}

/// Finds backends. The cache and its tests both need it.
pub trait Resolve {
    /// Rises with every write that can change an answer.
    fn generation(&self) -> u64;

    /// Whether answers come from this process. What that is asked costs no call, and is not bounded.
    fn is_local(&self) -> bool;

    /// Asks for the backend of `workload`.
    fn resolve(&self, workload: Workload) -> impl Future<Output = Result<Backend, Error>>;
}

impl Resolve for Upstream {
    fn generation(&self) -> u64 {
        self.generation()
    }

    fn is_local(&self) -> bool {
        self.is_local()
    }

    async fn resolve(&self, workload: Workload) -> Result<Backend, Error> {
        let resolved = match workload.kind {
            WorkloadKind::App => self.resolve_app(&workload.id).await,
            WorkloadKind::Function => self.resolve_function(&workload.id).await,
        };
        let backend = match resolved {
            Ok(resolved) => Backend::parse(&resolved.url)
                .map(|backend| backend.closed_as(resolved.closed))
                .map_err(Error::from),
            Err(
                upstream::Error::NotFound
                | upstream::Error::Rejected(http::StatusCode::BAD_REQUEST),
            ) => Err(Error::Unknown),
            Err(error) => Err(error.into()),
        };
        backend.inspect_err(|error| warn_of(workload, error))
    }
}

/// Says once a call what somebody must act on; an API that is down says so itself.
fn warn_of(workload: Workload, error: &Error) {
    let cause = match error {
        Error::BadBackend(cause) => cause.to_string(),
        Error::Upstream(
            error @ (upstream::Error::TokenRefused(_)
            | upstream::Error::Unexpected(_)
            | upstream::Error::Garbage { .. }),
        ) => error.to_string(),
        Error::Unknown | Error::Upstream(_) | Error::Busy | Error::Abandoned => return,
    };
    tracing::warn!(workload = %workload.id, "cannot resolve {}: {cause}", workload.id);
}

/// `[cache]`: how long resolved backends are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Served without asking.
    #[serde(with = "units::duration")]
    pub fresh: Duration,
    /// Then served while one request asks again in the background.
    #[serde(with = "units::duration")]
    pub stale: Duration,
    /// While the API is down or failing, an entry is served this long.
    #[serde(with = "units::duration")]
    pub error: Duration,
    /// How long "no such app" is remembered.
    #[serde(with = "units::duration")]
    pub negative: Duration,
    /// Entries held at most.
    pub capacity: u64,
    /// Questions to a remote API at once about what is not known; as many again may refresh what is.
    pub lookups: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(60),
            stale: Duration::from_secs(600),
            error: Duration::from_secs(24 * 3600),
            negative: Duration::from_secs(5),
            capacity: 100_000,
            lookups: 256,
        }
    }
}
