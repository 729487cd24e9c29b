//! What the operator asks of a running ingress, and tells it, over the control socket: JSON, on the control
//! thread. Whoever may open the socket may do all of this.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::admin::Readiness;
use crate::platform::{Kind, Platform};
use crate::proxy::explain::Sources;
use crate::server::local::Caller;
use crate::server::permits::Permits;
use crate::upstream::messages::ErrorMessage;
use crate::wire::{Body, Handler, Peer, Request, Response};

mod backup;
mod closing;
mod explain;

pub use explain::{of_configuration, on_demand};

/// Takes the configuration over as it is now: what changed, or every reason why it is refused.
pub type Reload = Box<dyn Fn() -> LocalBoxFuture<'static, Result<Value, Vec<String>>>>;

/// What the answers are made of.
pub struct Control {
    /// Addresses, workers, the API. Other ones after a reload.
    pub about: RefCell<Value>,
    /// When it began.
    pub started: Instant,
    /// Whether requests are welcome.
    pub readiness: Arc<Readiness>,
    /// Counts connections.
    pub permits: Arc<Permits>,
    /// The embedded platform, where there is one.
    pub platform: Option<Arc<Platform>>,
    /// What requests are explained by. A reload puts others in their place.
    pub sources: RefCell<Option<Rc<Sources>>>,
    /// Where the configuration can be read anew.
    pub reload: Option<Reload>,
}

/// Answers one caller.
#[derive(Debug)]
pub struct Desk {
    control: Rc<Control>,
    caller: Option<Caller>,
}

/// Why there is nothing to answer.
#[derive(Debug)]
enum Refused {
    /// No such question.
    NotFound,
    /// Asked in another way than this.
    Method(&'static str),
    /// What it is about is not there.
    Missing(String),
    /// The question makes no sense.
    Wrong(String),
    /// Apps and functions are somebody else's.
    Remote,
    /// It cannot be done now.
    Unavailable(String),
    /// Nobody can read the configuration again.
    CannotReload,
    /// It was read, and is refused for all these reasons.
    Reload(Vec<String>),
}

impl Control {
    /// Answers the requests of `caller`.
    #[must_use]
    pub fn desk(self: &Rc<Self>, caller: Option<Caller>) -> Desk {
        Desk {
            control: Rc::clone(self),
            caller,
        }
    }

    fn status(&self) -> Value {
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": self.readiness.is_ready(),
            "connections": self.permits.open(),
        });
        if let (Some(status), Value::Object(about)) =
            (status.as_object_mut(), &*self.about.borrow())
        {
            status.extend(about.clone());
        }
        status
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Handler for Desk {
    type Body = Body;

    async fn handle(&self, request: Request, _peer: &Peer) -> Response {
        match self.answer(request).await {
            Ok(value) => respond(StatusCode::OK, value.to_string()),
            Err(refused) => refused.to_response(),
        }
    }
}

impl Desk {
    async fn answer(&self, request: Request) -> Result<Value, Refused> {
        let (head, body) = request.into_parts();
        let body = body.collect(LARGEST).await;
        let body = body.map_err(|error| Refused::Wrong(error.to_string()))?;
        let by = |method: Method, allow| match head.method == method {
            true => Ok(()),
            false => Err(Refused::Method(allow)),
        };
        let (get, post) = (|| by(Method::GET, "GET"), || by(Method::POST, "POST"));
        let path = head.uri.path().strip_prefix('/').unwrap_or_default();
        let (shelf, rest) = match path.split_once('/') {
            Some((shelf, rest)) => (shelf, Some(rest)),
            None => (path, None),
        };
        let kind = match shelf {
            "apps" => Some(Kind::App),
            "functions" => Some(Kind::Function),
            _ => None,
        };
        match (shelf, kind, rest) {
            ("status", _, None) => get().map(|()| self.control.status()),
            ("reload", _, None) => {
                post()?;
                self.reload().await
            }
            ("explain", _, None) => {
                post()?;
                self.explain(&body).await
            }
            ("backup", _, None) => {
                post()?;
                self.back_up(&body).await
            }
            (_, Some(kind), None) => get().and_then(|()| self.listed(kind)),
            (_, Some(kind), Some(rest)) => {
                post()?;
                self.close(kind, rest, &body).await
            }
            _ => Err(Refused::NotFound),
        }
    }

    async fn reload(&self) -> Result<Value, Refused> {
        let reload = self.control.reload.as_ref().ok_or(Refused::CannotReload)?;
        self.note("reload");
        reload().await.map_err(Refused::Reload)
    }

    /// Who did what, before it is done.
    fn note(&self, what: &str) {
        match self.caller {
            Some(caller) => tracing::info!(uid = caller.uid, "{what}, asked by {caller}"),
            None => tracing::info!("{what}, asked over the control socket"),
        }
    }
}

impl Refused {
    fn to_response(&self) -> Response {
        let (status, detail) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "there is nothing here".to_owned()),
            Self::Method(allow) => (StatusCode::METHOD_NOT_ALLOWED, format!("use {allow}")),
            Self::Missing(why) => (StatusCode::NOT_FOUND, why.clone()),
            Self::Wrong(why) => (StatusCode::BAD_REQUEST, why.clone()),
            Self::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why.clone()),
            Self::Remote => (
                StatusCode::NOT_IMPLEMENTED,
                "apps and functions are kept by the remote API of [api]: it lists them, says in its answers that one is closed, and has its own backups".to_owned(),
            ),
            Self::CannotReload => (
                StatusCode::NOT_IMPLEMENTED,
                "this process has no file to read its configuration from again".to_owned(),
            ),
            Self::Reload(problems) => (StatusCode::UNPROCESSABLE_ENTITY, problems.join("\n")),
        };
        let json = ErrorMessage::new("ingress.control", status, &detail).to_json();
        let mut response = respond(status, json);
        if let Self::Method(allow) = self {
            let allow = HeaderValue::from_static(allow);
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

/// Bytes of a question.
const LARGEST: u64 = 256 << 10;

fn respond(status: StatusCode, json: String) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(reload: Option<Reload>) -> Desk {
        let control = Control {
            about: RefCell::default(),
            started: Instant::now(),
            readiness: Arc::default(),
            permits: Permits::new(1, 1),
            platform: None,
            sources: RefCell::default(),
            reload,
        };
        Rc::new(control).desk(None)
    }

    async fn reloaded(reload: Option<Reload>) -> (u16, Value) {
        let request = http::Request::post("/reload").body(Body::Empty).unwrap();
        let response = match desk(reload).answer(request).await {
            Ok(value) => respond(StatusCode::OK, value.to_string()),
            Err(refused) => refused.to_response(),
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect(4096).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_reload_gives_its_report_or_every_reason_against_it() {
        let fine: Reload = Box::new(|| Box::pin(async { Ok(json!({ "changed": [] })) }));
        assert_eq!(reloaded(Some(fine)).await, (200, json!({ "changed": [] })));
        let bad: Reload = Box::new(|| {
            Box::pin(async {
                Err(vec![
                    "f:1:1: a: wrong".to_owned(),
                    "f:2:1: b: too".to_owned(),
                ])
            })
        });
        let (status, error) = reloaded(Some(bad)).await;
        assert_eq!(status, 422);
        assert_eq!(error["detail"], "f:1:1: a: wrong\nf:2:1: b: too");
        let (status, error) = reloaded(None).await;
        assert_eq!((status, &error["code"]), (501, &json!(501)));
    }
}
