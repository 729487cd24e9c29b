//! The M3O API, as typed calls and as pass-through.

use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::pool::{Origin, Pool, Reach};
use crate::wire::{Request, Response};

pub mod messages;

/// `[api]`: a remote M3O API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its address, `https://api.m3o.com`.
    pub address: ApiAddress,
    /// The environment variable that holds the ingress's own token.
    #[serde(default = "default_token_env")]
    pub token_env: String,
}

fn default_token_env() -> String {
    "M3O_API_TOKEN".to_owned()
}

/// The address of a remote M3O API: an absolute http(s) URL without query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiAddress(url::Url);

impl ApiAddress {
    /// The URL.
    #[must_use]
    pub fn url(&self) -> &url::Url {
        &self.0
    }
}

impl TryFrom<String> for ApiAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` is no address of an API: {why}; write it like \"https://api.m3o.com\""
            )
        };
        let url = url::Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        Origin::of(&url, Reach::Operator).map_err(|error| wrong(&error.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment"));
        }
        Ok(Self(url))
    }
}

impl From<ApiAddress> for String {
    fn from(address: ApiAddress) -> Self {
        address.0.into()
    }
}

/// The embedded platform, as the ingress reaches it: in this process, on the thread that asks.
pub trait LocalApi: Send + Sync {
    /// Answers `/v1/<service>/<endpoint>`.
    ///
    /// The request is what a client of the API would send. With [`OwnCall`] in its extensions it
    /// is the ingress's own and needs no key. `pool` and `tasks` are those of this thread.
    fn call<'a>(
        &'a self,
        request: Request,
        pool: &'a Pool,
        tasks: &'a TaskTracker,
    ) -> LocalAnswer<'a>;

    /// Rises with every write that can change what an app or function resolves to.
    fn generation(&self) -> u64;
}

/// The answer of a [`LocalApi`], still being made.
pub type LocalAnswer<'a> = std::pin::Pin<Box<dyn Future<Output = Response> + 'a>>;

/// Marks a call that the ingress makes for itself. Only code in this process can set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnCall {
    /// An ordinary one.
    Ordinary,
    /// Looks a short link up without counting a hit.
    Uncounted,
}
