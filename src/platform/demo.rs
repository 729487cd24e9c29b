//! The backends of `dev`: an app that shows the request it got, and a function that says hello.

use askama::Template;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::wire::{Body, Handler, Peer, Request, Response};

/// The demo app: a page with the request as it arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoApp;

/// The demo function: `{"name":"Alice"}` → `{"message":"Hello Alice"}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoFunction;

impl Handler for DemoApp {
    type Body = Body;

    async fn handle(&self, request: Request, _peer: &Peer) -> Response {
        if request.uri().path() != "/" {
            return answer(StatusCode::NOT_FOUND, TEXT, "this app has one page: /\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return refused("GET, HEAD");
        }
        let page = Page::of(&request).render();
        page.map_or_else(
            |_| answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "no page today\n"),
            |page| answer(StatusCode::OK, HTML, page),
        )
    }
}

impl Handler for DemoFunction {
    type Body = Body;

    async fn handle(&self, request: Request, _peer: &Peer) -> Response {
        let name = match *request.method() {
            Method::GET | Method::HEAD => Ok(name_in_query(request.uri().query())),
            Method::POST => name_in_body(request.into_body()).await,
            _ => return refused("GET, HEAD, POST"),
        };
        match name {
            Ok(name) => {
                let message = json!({ "message": format!("Hello {name}") });
                answer(StatusCode::OK, JSON, message.to_string())
            }
            Err(why) => {
                let error = json!({ "error": why }).to_string();
                answer(StatusCode::BAD_REQUEST, JSON, error)
            }
        }
    }
}

/// The page of the demo app.
#[derive(Template)]
#[template(path = "demo_app.html")]
struct Page {
    method: String,
    target: String,
    /// What the ingress added or set.
    forwarded: Vec<(String, String)>,
    /// The rest.
    others: Vec<(String, String)>,
}

impl Page {
    fn of(request: &Request) -> Self {
        let (forwarded, others) = fields(request.headers())
            .into_iter()
            .partition(|(name, _)| from_ingress(name));
        Self {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            forwarded,
            others,
        }
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), shown(value)))
        .collect()
}

fn from_ingress(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "host" | "via" | "cdn-loop" | "x-request-id")
}

fn name_in_query(query: Option<&str>) -> String {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "name")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

async fn name_in_body(body: Body) -> Result<String, &'static str> {
    let body = body.collect(MAX_BODY).await;
    let body = body.map_err(|_| "the body is larger than 64 KiB, or was cut off")?;
    if body.is_empty() {
        return Ok(String::new());
    }
    let object: Value = serde_json::from_slice(&body).map_err(|_| "the body is not JSON")?;
    match object.get("name") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(name)) => Ok(name.clone()),
        Some(_) => Err("name must be a string"),
    }
}

fn refused(allowed: &'static str) -> Response {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "not that method\n");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const MAX_BODY: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Scheme;
    use crate::wire::timer::Timer;

    async fn send(handler: &impl Handler<Body = Body>, request: Request) -> (u16, String) {
        let loopback = ([127, 0, 0, 1], 1).into();
        let peer = Peer::new(loopback, Scheme::Http, Timer::new());
        let response = handler.handle(request, &peer).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect(1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn get(target: &str) -> Request {
        let request = http::Request::get(target).header("x-forwarded-for", "192.0.2.1");
        let request = request.header("user-agent", "<script>alert(1)</script>");
        request.body(Body::Empty).unwrap()
    }

    #[tokio::test]
    async fn the_app_shows_the_request_escaped() {
        let (status, page) = send(&DemoApp, get("/?a=b&c")).await;
        assert_eq!(status, 200);
        assert!(page.contains("192.0.2.1"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("/?a=b&#38;c"), "{page}");
        for outside in ["http://", "https://", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(send(&DemoApp, get("/other")).await.0, 404);
    }

    #[tokio::test]
    async fn the_function_says_hello() {
        let hello = r#"{"message":"Hello Alice"}"#.to_owned();
        assert_eq!(
            send(&DemoFunction, get("/?name=Alice")).await,
            (200, hello.clone())
        );
        let post = |body: &str| {
            http::Request::post("/")
                .body(Body::from(body.to_owned()))
                .unwrap()
        };
        assert_eq!(
            send(&DemoFunction, post(r#"{"name":"Alice"}"#)).await,
            (200, hello)
        );
        assert_eq!(send(&DemoFunction, post("")).await.0, 200);
        assert_eq!(send(&DemoFunction, post("{")).await.0, 400);
        assert_eq!(send(&DemoFunction, post(r#"{"name":1}"#)).await.0, 400);
        let delete = http::Request::delete("/").body(Body::Empty).unwrap();
        assert_eq!(send(&DemoFunction, delete).await.0, 405);
    }
}
