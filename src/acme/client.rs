//! Takes the requests of the ACME library to the authority, over our own pool.
//!
//! The library wants a client that any thread may use; a pool belongs to one. So requests go through a
//! queue to a [`Carrier`], which runs where the pool is.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient, Problem};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::failure::{self, shortened};
use crate::pool::{self, BadOrigin, Origin, Pool, Reach};
use crate::wire::{Body, Request, body};

/// Requests that wait for the carrier.
const QUEUE: usize = 16;

/// The largest answer that is read: a chain of certificates is a few KiB.
const LARGEST_ANSWER: u64 = 1 << 20;

type Answer = Result<BytesResponse, instant_acme::Error>;

/// One request and where its answer goes.
struct Call {
    request: http::Request<Bytes>,
    answer: oneshot::Sender<Answer>,
}

/// What the library calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(mpsc::Sender<Call>);

/// What answers the [`Client`]s.
pub(super) struct Carrier {
    calls: mpsc::Receiver<Call>,
    pool: Rc<Pool>,
    timeout: Duration,
}

/// Why there is no answer that the library could read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The authority names an address that is none.
    #[error("the authority named a URL that cannot be used")]
    Url,
    /// So it does, for a server that cannot be one.
    #[error("the authority named a URL that cannot be used: {0}")]
    Origin(#[from] BadOrigin),
    /// It took too long.
    #[error("the authority did not answer in time")]
    TimedOut,
    /// There is no connection to it, or it broke.
    #[error(transparent)]
    Unreachable(#[from] pool::Error),
    /// Its answer broke off or is too large.
    #[error("the authority's answer could not be read")]
    Unreadable(#[from] body::Error),
    /// It refuses, and says until when, or says it in words that are no problem document.
    #[error("the authority answered {status}{}", behind_colon(.detail))]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it says.
        detail: String,
        /// The type of its problem.
        problem: Option<String>,
        /// When it may be asked again.
        retry_after: Option<Duration>,
    },
    /// We are about to end.
    #[error("the ingress is about to end")]
    Stopped,
}

/// A client and its carrier.
pub(super) fn client(pool: Rc<Pool>, timeout: Duration) -> (Client, Carrier) {
    let (sender, calls) = mpsc::channel(QUEUE);
    let carrier = Carrier {
        calls,
        pool,
        timeout,
    };
    (Client(sender), carrier)
}

impl HttpClient for Client {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let calls = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let request = http::Request::from_parts(head, whole(body).await);
            let (answer, answered) = oneshot::channel();
            let stopped = || instant_acme::Error::Other(Box::new(ClientError::Stopped));
            let call = Call { request, answer };
            calls.send(call).await.map_err(|_| stopped())?;
            answered.await.unwrap_or_else(|_| Err(stopped()))
        })
    }
}

/// The library's own bodies are one piece.
async fn whole(body: BodyWrapper<Bytes>) -> Bytes {
    use http_body::Body as _;
    let mut body = std::pin::pin!(body);
    let frame = poll_fn(|context| body.as_mut().poll_frame(context)).await;
    let data = frame
        .and_then(Result::ok)
        .and_then(|frame| frame.into_data().ok());
    data.unwrap_or_default()
}

impl Carrier {
    /// Answers until every client is gone.
    pub(super) async fn run(mut self) {
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                call = self.calls.recv() => match call {
                    Some(call) => {
                        let pool = Rc::clone(&self.pool);
                        let timeout = self.timeout;
                        calls.spawn_local(async move {
                            let answer = answer(&pool, call.request, timeout).await;
                            let answer = answer
                                .map_err(|error| instant_acme::Error::Other(Box::new(error)));
                            let _given_up = call.answer.send(answer);
                        });
                    }
                    None => break,
                },
                Some(_ended) = calls.join_next() => {}
            }
        }
    }
}

async fn answer(
    pool: &Rc<Pool>,
    request: http::Request<Bytes>,
    timeout: Duration,
) -> Result<BytesResponse, ClientError> {
    let exchange = async {
        let (origin, request) = addressed(request)?;
        let (head, body) = pool.send(&origin, request).await?.into_parts();
        let body = body.collect(LARGEST_ANSWER).await?;
        Ok::<_, ClientError>((head, body))
    };
    let (head, body) = tokio::time::timeout(timeout, exchange)
        .await
        .map_err(|_| ClientError::TimedOut)??;
    if let Some(refused) = refused(head.status, &head.headers, &body) {
        return Err(refused);
    }
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = head.status;
    parts.headers = head.headers;
    Ok(BytesResponse {
        parts,
        body: Box::new(body),
    })
}

/// Where a request goes, and the request as it goes there.
fn addressed(request: http::Request<Bytes>) -> Result<(Origin, Request), ClientError> {
    let (head, body) = request.into_parts();
    let url = url::Url::parse(&head.uri.to_string()).map_err(|_| ClientError::Url)?;
    // An authority that leads us to a connection without TLS is not the one that we trust.
    if url.scheme() != "https" {
        return Err(ClientError::Origin(BadOrigin::Scheme));
    }
    let origin = Origin::of(&url, Reach::Operator)?;
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::new(match body.is_empty() {
        true => Body::Empty,
        false => Body::from(body),
    });
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::try_from(target).map_err(|_| ClientError::Url)?;
    let headers = request.headers_mut();
    *headers = head.headers;
    headers.insert(header::HOST, origin.authority().clone());
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    Ok((origin, request))
}

/// The errors that the library would not tell, or not all of it: it reads no `Retry-After` of an error.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<ClientError> {
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let retry_after = retry_after(headers, SystemTime::now());
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let problem = problem.filter(|problem| problem.r#type.is_some());
    if problem.is_some() && retry_after.is_none() {
        return None;
    }
    let detail = match &problem {
        Some(problem) => failure::told(problem),
        None => shortened(String::from_utf8_lossy(body).trim()),
    };
    Some(ClientError::Refused {
        status,
        detail,
        problem: problem.and_then(|problem| problem.r#type),
        retry_after,
    })
}

/// How long to wait (RFC 9110, 10.2.3): a number of seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn behind_colon(detail: &str) -> String {
    match detail {
        "" => String::new(),
        detail => format!(": {detail}"),
    }
}

const USER_AGENT: &str = concat!("m3o-ingress/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITED: &[u8] = br#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow"}"#;

    fn headers(retry_after: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_error_tells_how_long_to_wait() {
        let now = SystemTime::UNIX_EPOCH;
        let check = |value, expected: Option<u64>| {
            let found = retry_after(&headers(value), now).map(|wait| wait.as_secs());
            assert_eq!(found, expected, "{value:?}");
        };
        check(None, None);
        check(Some("120"), Some(120));
        check(Some(" 0 "), Some(0));
        check(Some("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60));
        check(Some("soon"), None);
        let limited = StatusCode::TOO_MANY_REQUESTS;
        let Some(ClientError::Refused {
            retry_after,
            detail,
            ..
        }) = refused(limited, &headers(Some("7")), LIMITED)
        else {
            panic!("it is no error");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
        assert!(detail.contains("slow"), "{detail}");
    }

    #[test]
    fn what_the_library_can_tell_is_left_to_it_and_garbage_is_not() {
        let bad = StatusCode::BAD_REQUEST;
        assert!(refused(bad, &headers(None), LIMITED).is_none());
        assert!(refused(StatusCode::OK, &headers(Some("7")), b"{}").is_none());
        let garbage = refused(StatusCode::BAD_GATEWAY, &headers(None), b"<html>").unwrap();
        assert!(
            garbage.to_string().contains("502 Bad Gateway: <html>"),
            "{garbage}"
        );
    }

    #[test]
    fn only_https_leads_anywhere() {
        let request = |url: &str| http::Request::get(url).body(Bytes::new()).unwrap();
        let (origin, sent) = addressed(request("https://acme.example:444/a?b=c")).unwrap();
        assert_eq!(origin.to_string(), "https://acme.example:444");
        assert_eq!(sent.uri().to_string(), "/a?b=c");
        assert_eq!(sent.headers()[header::HOST], "acme.example:444");
        for bad in ["http://acme.example/", "/directory"] {
            assert!(addressed(request(bad)).is_err(), "{bad}");
        }
    }
}
