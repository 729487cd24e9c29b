//! How an error is told: as JSON in the M3O shape, or as a small page.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::page::{self, Message};
use super::route::is_of_the_api;
use crate::id::RequestId;
use crate::telemetry::metrics::RouteKind;
use crate::upstream::messages::ErrorMessage;
use crate::wire::{Body, Response};

/// How whoever asked reads best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The M3O shape.
    Json,
    /// A small page.
    Html,
}

impl Form {
    /// A page for browsers, JSON for everybody else.
    pub(super) fn accepted_by(headers: &HeaderMap) -> Self {
        let html = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(takes_html);
        if html { Self::Html } else { Self::Json }
    }

    /// The same, but JSON for whoever calls the API, also where there is no such endpoint. The paths
    /// of an app are its own.
    pub(super) fn on(self, route: RouteKind, path: &str) -> Self {
        match route {
            RouteKind::App | RouteKind::Function => self,
            RouteKind::Api => Self::Json,
            RouteKind::Link
            | RouteKind::Verify
            | RouteKind::Index
            | RouteKind::Proof
            | RouteKind::Unknown => {
                if is_of_the_api(path) {
                    Self::Json
                } else {
                    self
                }
            }
        }
    }

    /// The answer with `status` that says `text`.
    pub(super) fn render(
        self,
        status: StatusCode,
        text: &str,
        route: RouteKind,
        id: &RequestId,
    ) -> Response {
        match self {
            Self::Json => json(status, text, route),
            Self::Html => page::respond(
                status,
                &Message {
                    status: status.as_u16(),
                    title: status.canonical_reason().unwrap_or("Error"),
                    text,
                    link: None,
                    request_id: id.as_str(),
                },
            ),
        }
    }
}

/// Whether a range of `Accept` is HTML, and not refused by a weight of zero (RFC 9110, 12.4.2).
fn takes_html(range: &str) -> bool {
    let (kind, weight) = range.split_once(';').unwrap_or((range, ""));
    let refused = weight
        .trim()
        .strip_prefix("q=")
        .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
    kind.trim().eq_ignore_ascii_case("text/html") && !refused
}

fn json(status: StatusCode, text: &str, route: RouteKind) -> Response {
    let id = match route {
        RouteKind::Unknown => "ingress".to_owned(),
        kind => format!("ingress.{}", kind.as_str()),
    };
    let message = ErrorMessage::new(&id, status, text).to_json();
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_everybody_else_json() {
        let check = |accept: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::accepted_by(&headers), expected, "{accept}");
        };
        check("text/html,application/xhtml+xml,*/*;q=0.8", Form::Html);
        check("application/json, Text/HTML ; q=0.5", Form::Html);
        check("*/*", Form::Json);
        check("application/json", Form::Json);
        check("text/html;q=0, */*", Form::Json);
        check("text/html; q=0.0", Form::Json);
        assert_eq!(Form::accepted_by(&HeaderMap::new()), Form::Json);
    }

    #[test]
    fn the_api_speaks_json_to_browsers_too_and_an_app_has_paths_of_its_own() {
        assert_eq!(Form::Html.on(RouteKind::Api, "/api/a/b"), Form::Json);
        assert_eq!(Form::Html.on(RouteKind::Unknown, "/v1/a"), Form::Json);
        assert_eq!(Form::Html.on(RouteKind::Unknown, "/"), Form::Html);
        assert_eq!(Form::Html.on(RouteKind::App, "/api/a/b"), Form::Html);
        assert_eq!(Form::Json.on(RouteKind::App, "/"), Form::Json);
    }
}
