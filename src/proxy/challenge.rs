//! What an authority reads to see that a name is ours (RFC 8555, 8.3). Comes before any route.

use http::{HeaderValue, Method, header};

use crate::tls::challenges::Challenges;
use crate::wire::{Body, Request, Response, Scheme};

/// The proof that is asked for. `None`: this is no such question, or nobody waits for the answer.
pub(super) fn answer(
    challenges: &Challenges,
    request: &Request,
    scheme: Scheme,
) -> Option<Response> {
    let token = request
        .uri()
        .path()
        .strip_prefix("/.well-known/acme-challenge/")?;
    if scheme != Scheme::Http || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let proof = challenges.answer_http(token)?;
    let mut response = Response::new(Body::from(proof));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_token_is_answered_and_only_without_tls() {
        let challenges = Challenges::new();
        challenges.put_http("token", "token.thumb");
        let check = |method: Method, path: &str, scheme, expected: bool| {
            let request = http::Request::builder().method(method).uri(path);
            let request = request.body(Body::Empty).unwrap();
            let answered = answer(&challenges, &request, scheme).is_some();
            assert_eq!(answered, expected, "{path}");
        };
        let path = "/.well-known/acme-challenge/token";
        check(Method::GET, path, Scheme::Http, true);
        check(Method::HEAD, path, Scheme::Http, true);
        check(Method::POST, path, Scheme::Http, false);
        check(Method::GET, path, Scheme::Https, false);
        check(
            Method::GET,
            "/.well-known/acme-challenge/other",
            Scheme::Http,
            false,
        );
        check(
            Method::GET,
            "/.well-known/acme-challenge/",
            Scheme::Http,
            false,
        );
        check(Method::GET, "/token", Scheme::Http, false);
    }
}
