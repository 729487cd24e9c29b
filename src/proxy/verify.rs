//! Verification links: spends the token of a mail and sends its reader on.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::error::{Error, PROXY_STATUS, proxy_status};
use super::link::redirect;
use super::page::{self, ConfirmPage, Message};
use super::{Client, Proxy};
use crate::credentials::Secret;
use crate::destination::Destination;
use crate::hosts::HostName;
use crate::telemetry::exchange::Exchange;
use crate::telemetry::metrics::ErrorType;
use crate::units;
use crate::upstream;
use crate::wire::{Body, Request, Response};

/// `[user]`: how verification links redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The only hosts that are redirected to; empty: any after a successful verification.
    #[serde(with = "units::one_or_many")]
    pub redirect_hosts: Vec<HostName>,
    /// Whether a page with a button comes before a token is spent.
    pub confirm: Confirm,
}

/// When a page with a button comes before a token is spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// The link alone spends it.
    #[default]
    Never,
    /// Always the page first.
    Always,
    /// The page, unless a person clicked (`Sec-Fetch-User: ?1`).
    Auto,
}

/// What a verification link says.
pub(super) struct Asked {
    token: Option<Secret>,
    success: Option<Destination>,
    failure: Option<Destination>,
}

/// What a method is here.
pub(super) enum Act {
    /// Spends the token.
    Spend,
    /// Shows the button.
    Ask,
    /// HEAD and OPTIONS never spend one.
    Look,
}

const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");
const SEC_FETCH_USER: HeaderName = HeaderName::from_static("sec-fetch-user");

impl Proxy {
    /// Answers a verification link; `id` is that of `/user/<id>`.
    pub(super) async fn verify(
        &self,
        id: Option<&str>,
        request: &Request,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let act = self.settings.user.act(request)?;
        if matches!(act, Act::Look) {
            return Ok(self.looked_at(request.method()));
        }
        let asked = self.settings.user.asked(request, id)?;
        let token = asked.token.as_ref().ok_or(Error::NoToken)?;
        if matches!(act, Act::Ask) {
            return Ok(page::respond(StatusCode::OK, &ConfirmPage));
        }
        match self.upstream.verify_email(token, exchange).await {
            Ok(()) => Ok(verified(&asked, client)),
            Err(upstream::Error::NotFound | upstream::Error::Rejected(_)) => {
                Ok(self.failed(&asked, client))
            }
            // Nothing is known of the mail's token, so nothing is said of it.
            Err(error @ upstream::Error::TokenRefused(_)) => Err(Error::NotVerifiable(error)),
            Err(error) => Err(Error::Upstream(error)),
        }
    }

    fn looked_at(&self, method: &Method) -> Response {
        let mut response = Response::new(Body::Empty);
        if method == Method::OPTIONS {
            *response.status_mut() = StatusCode::NO_CONTENT;
            let allow = HeaderValue::from_static(self.settings.user.allowed());
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }

    /// An unverified link must not be an open redirect: without a list of hosts its target is shown
    /// to the reader, who decides.
    fn failed(&self, asked: &Asked, client: &Client<'_>) -> Response {
        if let Some(target) = &asked.failure
            && !self.settings.user.redirect_hosts.is_empty()
        {
            return redirect(target, HeaderMap::new());
        }
        let message = Message {
            status: 400,
            title: "This link is not valid any more",
            text: match &asked.failure {
                Some(_) => "It was used before, or it is too old. You can go on here:",
                None => "It was used before, or it is too old. Ask for a new mail and try again.",
            },
            link: asked.failure.as_ref().map(Destination::as_str),
            request_id: client.id.to_str().unwrap_or_default(),
        };
        let mut response = page::respond(StatusCode::BAD_REQUEST, &message);
        let status = proxy_status(ErrorType::Denied);
        response.headers_mut().insert(PROXY_STATUS, status);
        response
    }
}

impl Config {
    fn allowed(&self) -> &'static str {
        match self.confirm {
            Confirm::Never => "GET, HEAD, OPTIONS",
            Confirm::Always | Confirm::Auto => "GET, HEAD, POST, OPTIONS",
        }
    }

    /// What `request` does by its method.
    pub(super) fn act(&self, request: &Request) -> Result<Act, Error> {
        let confirm = self.confirm;
        let clicked = request
            .headers()
            .get(SEC_FETCH_USER)
            .is_some_and(|user| user == "?1");
        Ok(match (request.method().as_str(), confirm) {
            ("HEAD" | "OPTIONS", _) => Act::Look,
            ("GET", Confirm::Never) | ("POST", Confirm::Always | Confirm::Auto) => Act::Spend,
            ("GET", Confirm::Auto) if clicked => Act::Spend,
            ("GET", Confirm::Always | Confirm::Auto) => Act::Ask,
            _ => {
                let allow = self.allowed();
                return Err(Error::Method { allow });
            }
        })
    }

    /// What a link says, its targets checked.
    pub(super) fn asked(&self, request: &Request, id: Option<&str>) -> Result<Asked, Error> {
        let asked = Asked::read(request.uri().query().unwrap_or_default(), id)?;
        for (name, target) in [
            ("redirectUrl", &asked.success),
            ("failureRedirectUrl", &asked.failure),
        ] {
            if target
                .as_ref()
                .is_some_and(|target| !target.stays_on(&self.redirect_hosts))
            {
                return Err(Error::RedirectHost(name));
            }
        }
        Ok(asked)
    }
}

/// What every answer of a verification link carries: it must not be kept, indexed, or tell anyone.
pub(super) fn seal(response: &mut Response) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (ROBOTS, "noindex"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

fn verified(asked: &Asked, client: &Client<'_>) -> Response {
    if let Some(target) = &asked.success {
        return redirect(target, HeaderMap::new());
    }
    let message = Message {
        status: 200,
        title: "Your email address is verified",
        text: "You can close this page.",
        link: None,
        request_id: client.id.to_str().unwrap_or_default(),
    };
    page::respond(StatusCode::OK, &message)
}

impl Asked {
    /// Whether there is something to spend.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Reads a query; `id` stands for a missing token.
    fn read(query: &str, id: Option<&str>) -> Result<Self, Error> {
        let mut asked = Self {
            token: None,
            success: None,
            failure: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if value.is_empty() {
                continue;
            }
            match &*name {
                "token" if asked.token.is_none() => asked.token = Some(Secret::new(value)),
                "redirectUrl" if asked.success.is_none() => {
                    asked.success = Some(target("redirectUrl", &value)?);
                }
                "failureRedirectUrl" if asked.failure.is_none() => {
                    asked.failure = Some(target("failureRedirectUrl", &value)?);
                }
                _ => {}
            }
        }
        if asked.token.is_none() {
            asked.token = id.map(|id| Secret::new(percent_decode_str(id).decode_utf8_lossy()));
        }
        Ok(asked)
    }
}

/// A redirect target, checked and then written anew by a URL parser, so that what is sent means the
/// same to everybody.
fn target(parameter: &'static str, url: &str) -> Result<Destination, Error> {
    let wrong = |error| Error::Redirect(parameter, error);
    let checked = Destination::encode(url).map_err(wrong)?;
    let parsed = url::Url::parse(checked.as_str())
        .map_err(|_| wrong(crate::destination::BadDestination::Host))?;
    Destination::parse(parsed.as_str()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, id: Option<&str>) -> (Option<String>, Option<String>, Option<String>) {
        let asked = Asked::read(query, id).unwrap();
        let url = |target: Option<Destination>| target.map(|target| target.as_str().to_owned());
        (
            asked.token.map(|token| token.expose().to_owned()),
            url(asked.success),
            url(asked.failure),
        )
    }

    #[test]
    fn a_link_says_its_token_and_its_targets() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(
                "token=t%20k&redirectUrl=https%3A%2F%2Fa.example&failureRedirectUrl=http://b.example/x?y",
                None
            ),
            (
                some("t k"),
                some("https://a.example/"),
                some("http://b.example/x?y")
            )
        );
        assert_eq!(read("", Some("i%64")), (some("id"), None, None));
        assert_eq!(read("token=t", Some("id")), (some("t"), None, None));
        assert_eq!(read("token=", Some("id")), (some("id"), None, None));
        assert_eq!(read("token=one&token=two", None), (some("one"), None, None));
        assert_eq!(read("redirectUrl=&x=y", None), (None, None, None));
    }

    #[test]
    fn a_target_that_is_no_web_address_is_refused() {
        for url in [
            "javascript:alert(1)",
            "//evil.example",
            "/path",
            "https://a@b.example",
            "https:\\\\x",
            "https://a.example/\u{1}",
            "data:text/html,x",
            " https://a.example",
            "https://",
        ] {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("redirectUrl", url)
                .finish();
            assert!(Asked::read(&query, None).is_err(), "{url}");
        }
    }
}
