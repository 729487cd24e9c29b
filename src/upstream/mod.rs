//! The M3O API, as typed calls and as pass-through. Nothing else knows how it is reached.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::credentials::{Credentials, Secret};
use crate::destination::{BadDestination, Destination};
use crate::id::{LinkId, WorkloadId};
use crate::pool::{Origin, Pool, Reach};
use crate::telemetry::client::Side;
use crate::telemetry::exchange::Exchange;
use crate::wire::{Body, Request, Response};
use messages::{AppList, ById, ByShortUrl, ByToken, LinkResolved, ListedApp, Resolved};

mod error;
pub mod messages;

pub use error::Error;

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
        // What stands before an `@` may be a password, what stands in a query a key.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let shown = shown.split(['?', '#']).next().unwrap_or_default();
        let wrong = |why: &str| {
            format!(
                "`{shown}` is no address of an API: {why}; write it like \"https://api.m3o.com\""
            )
        };
        if !text.contains("://") {
            return Err(format!(
                "`{shown}` is no address of an API: the scheme is missing; write it like \"https://{shown}\""
            ));
        }
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
        pool: &'a Rc<Pool>,
        tasks: &'a TaskTracker,
    ) -> LocalAnswer<'a>;

    /// Where a short link leads, which waits for nothing.
    ///
    /// # Errors
    /// As [`Upstream::resolve_link`].
    fn link(&self, link: &ShortLink, hit: Hit) -> Result<Destination, NoLink>;

    /// Rises with every write that can change what an app or function resolves to.
    fn generation(&self) -> u64;
}

/// The answer of a [`LocalApi`], still being made.
pub type LocalAnswer<'a> = std::pin::Pin<Box<dyn Future<Output = Response> + 'a>>;

/// Marks a call that the ingress makes for itself. Only code in this process can set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnCall;

/// How the API is reached: chosen once, at start.
#[derive(Clone)]
pub enum Via {
    /// Over the network.
    Remote(Arc<Remote>),
    /// In this process.
    Local(Arc<dyn LocalApi>),
}

/// A remote API, ready to be called.
#[derive(Debug)]
pub struct Remote {
    origin: Origin,
    /// The path of its address, without a slash at the end.
    prefix: String,
    /// Ours; sent with our own calls only.
    token: Credentials,
    timeout: Duration,
}

impl Remote {
    /// A remote API that each of our own calls may take `timeout` to ask.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn new(config: &Config, token: &Secret, timeout: Duration) -> Result<Self, Error> {
        let url = config.address.url();
        Ok(Self {
            origin: Origin::of(url, Reach::Operator).map_err(|_| Error::Misconfigured)?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            token: Credentials::bearer(token.expose()).map_err(|_| Error::Misconfigured)?,
            timeout,
        })
    }
}

/// The API, as one worker asks it.
pub struct Upstream {
    via: Via,
    pool: Rc<Pool>,
    tasks: TaskTracker,
}

/// A short link, as it was asked for. `Debug` hides it: whoever knows it, knows where it leads.
#[derive(Clone, PartialEq, Eq)]
pub enum ShortLink {
    /// `/u/<id>`.
    Id(LinkId),
    /// The whole URL, on a host of short links.
    Url(String),
}

/// Whether looking a short link up is a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// It is.
    Count,
    /// It is only looked at (HEAD), where the platform can tell.
    Peek,
}

/// Why a short link leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum NoLink {
    /// Where it leads is not known.
    #[error(transparent)]
    Upstream(#[from] Error),
    /// It leads where nobody can be sent.
    #[error(transparent)]
    Destination(#[from] BadDestination),
}

/// The largest answer to one of our own calls that is read.
const MAX_ANSWER: u64 = 8 << 20;

/// The largest error that is read for the sake of its connection.
const MAX_ERROR: u64 = 64 << 10;

impl Upstream {
    /// What is asked for the backend of an app.
    pub const RESOLVE_APP: &str = "app/Resolve";
    /// What is asked for the backend of a function.
    pub const RESOLVE_FUNCTION: &str = "function/Proxy";
    /// What is asked for where a short link leads.
    pub const RESOLVE_LINK: &str = "url/Resolve";
    /// What spends the token of a mail.
    pub const VERIFY: &str = "user/VerifyEmail";
    /// What gives all apps.
    pub const LIST_APPS: &str = "app/List";

    /// How a call of `endpoint` is made.
    #[must_use]
    pub fn call_of(endpoint: &str) -> String {
        format!("POST /v1/{endpoint}")
    }

    /// How a WebSocket to `endpoint` is asked for.
    #[must_use]
    pub fn websocket_to(endpoint: &str) -> String {
        format!("GET /v1/{endpoint}")
    }

    /// The API behind `via`, over this worker's pool.
    #[must_use]
    pub fn new(via: Via, pool: Rc<Pool>, tasks: TaskTracker) -> Self {
        Self { via, pool, tasks }
    }

    /// Rises with every write that can change what is resolved; always 0 for a remote API, which
    /// does not say.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match &self.via {
            Via::Remote(_) => 0,
            Via::Local(api) => api.generation(),
        }
    }

    /// Whether it is the embedded platform.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.via, Via::Local(_))
    }

    /// Where an app runs. Asked for all who wait for that, so it is part of no exchange.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such app; any other where that is not known.
    pub async fn resolve_app(&self, id: &WorkloadId) -> Result<Resolved, Error> {
        let id = ById {
            id: id.as_str().into(),
        };
        self.call(Self::RESOLVE_APP, &id, None).await
    }

    /// Where a function runs.
    ///
    /// # Errors
    /// As [`Upstream::resolve_app`].
    pub async fn resolve_function(&self, id: &WorkloadId) -> Result<Resolved, Error> {
        let id = ById {
            id: id.as_str().into(),
        };
        self.call(Self::RESOLVE_FUNCTION, &id, None).await
    }

    /// Where a short link leads, for whoever asks in `exchange`. A remote API is asked each time, since each is
    /// a hit there.
    ///
    /// # Errors
    /// As [`Upstream::resolve_app`], and where it leads nobody can be sent.
    pub async fn resolve_link(
        &self,
        link: &ShortLink,
        hit: Hit,
        exchange: Option<&mut Exchange>,
    ) -> Result<Destination, NoLink> {
        match &self.via {
            Via::Local(api) => api.link(link, hit),
            // Boxed, so that only a link that is asked for needs the room.
            Via::Remote(_) => Box::pin(self.ask_for_link(link, exchange)).await,
        }
    }

    async fn ask_for_link(
        &self,
        link: &ShortLink,
        exchange: Option<&mut Exchange>,
    ) -> Result<Destination, NoLink> {
        let resolved: LinkResolved = match link {
            ShortLink::Id(id) => {
                let id = ById {
                    id: id.as_str().into(),
                };
                self.call(Self::RESOLVE_LINK, &id, exchange).await?
            }
            ShortLink::Url(url) => {
                let url = ByShortUrl {
                    short_url: url.into(),
                };
                self.call(Self::RESOLVE_LINK, &url, exchange).await?
            }
        };
        // Checked when it was written, and again here: what is sent is what we answer for.
        Ok(Destination::parse(&resolved.destination_url)?)
    }

    /// Spends the token of a verification mail for whoever clicked in `exchange`. Never repeated.
    ///
    /// # Errors
    /// [`Error::Rejected`] or [`Error::NotFound`] where the token is not good; any other where that
    /// is not known.
    pub async fn verify_email(&self, token: &Secret, exchange: &mut Exchange) -> Result<(), Error> {
        let token = ByToken {
            token: token.expose().into(),
        };
        let _: serde::de::IgnoredAny = self.call(Self::VERIFY, &token, Some(exchange)).await?;
        Ok(())
    }

    /// Every app, for whoever asks in `exchange`.
    ///
    /// # Errors
    /// Whatever the call met.
    pub async fn list_apps(&self, exchange: &mut Exchange) -> Result<Vec<ListedApp>, Error> {
        let all = serde_json::json!({});
        let list: AppList = self.call(Self::LIST_APPS, &all, Some(exchange)).await?;
        Ok(list.services)
    }

    /// Passes a call on to `/v1/<endpoint>`, its query kept, on behalf of `exchange` where it is that of
    /// one client, and gives the response as soon as its head is here.
    ///
    /// # Errors
    /// When there is no response.
    pub async fn pass(
        &self,
        endpoint: &str,
        mut request: Request,
        exchange: Option<&mut Exchange>,
    ) -> Result<Response, Error> {
        let prefix = match &self.via {
            Via::Remote(remote) => remote.prefix.as_str(),
            Via::Local(_) => "",
        };
        let target = match request.uri().query() {
            Some(query) if !query.is_empty() => format!("{prefix}/v1/{endpoint}?{query}"),
            _ => format!("{prefix}/v1/{endpoint}"),
        };
        *request.uri_mut() = Uri::try_from(target).map_err(|_| Error::Misconfigured)?;
        match &self.via {
            // Boxed, so that the platform is not called with room for it.
            Via::Remote(remote) => Box::pin(self.send(remote, request, exchange)).await,
            Via::Local(api) => Ok(api.call(request, &self.pool, &self.tasks).await),
        }
    }

    async fn send(
        &self,
        remote: &Remote,
        mut request: Request,
        exchange: Option<&mut Exchange>,
    ) -> Result<Response, Error> {
        let (address, port) = (remote.origin.authority(), remote.origin.port());
        request.headers_mut().insert(header::HOST, address.clone());
        let asking = match exchange {
            Some(exchange) => exchange.asks(Side::Upstream, address, port, &mut request),
            None => self.pool.asking(Side::Upstream),
        };
        let response = self.pool.send(&remote.origin, request).await?;
        asking.answered(response.status());
        Ok(response)
    }

    /// One of our own calls.
    async fn call<A: DeserializeOwned>(
        &self,
        endpoint: &str,
        question: &impl Serialize,
        exchange: Option<&mut Exchange>,
    ) -> Result<A, Error> {
        let json = serde_json::to_vec(question).map_err(|_| Error::Misconfigured)?;
        let mut request = Request::new(Body::from(json));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let answer = match &self.via {
            Via::Remote(remote) => {
                let headers = request.headers_mut();
                headers.insert(header::AUTHORIZATION, remote.token.to_header());
                headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
                let asked = self.ask(endpoint, request, exchange);
                tokio::time::timeout(remote.timeout, asked)
                    .await
                    .map_err(|_| Error::TimedOut)??
            }
            Via::Local(_) => {
                request.extensions_mut().insert(OwnCall);
                self.ask(endpoint, request, exchange).await?
            }
        };
        serde_json::from_slice(&answer).map_err(|error| Error::Garbage {
            line: error.line(),
            column: error.column(),
        })
    }

    /// Sends one of our own calls and reads the answer of a success.
    async fn ask(
        &self,
        endpoint: &str,
        request: Request,
        exchange: Option<&mut Exchange>,
    ) -> Result<Bytes, Error> {
        let response = self.pass(endpoint, request, exchange).await?;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK {
            return Ok(body.collect(MAX_ANSWER).await?);
        }
        // What an error says is of no use, but unread it would cost its connection.
        let _unread = body.collect(MAX_ERROR).await;
        Err(Error::of(head.status))
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Upstream")
            .field("via", &self.via)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ShortLink {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("ShortLink([hidden])")
    }
}

impl std::fmt::Debug for Via {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Remote(remote) => out.debug_tuple("Remote").field(remote).finish(),
            Self::Local(_) => out.write_str("Local"),
        }
    }
}

const USER_AGENT: &str = concat!("m3o-ingress/", env!("CARGO_PKG_VERSION"));
