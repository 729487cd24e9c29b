//! The request that a client would send, made of a URL as people write it.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::settings::Limits;
use crate::wire::Scheme;
use crate::wire::head::{self, BadHead, HeadLimits, Scan};

/// What is asked about. `Debug` hides it: a URL may carry a key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The URL, `https://blog.m3o.app/`; without a scheme it is `http`.
    pub url: String,
    /// The `Host` field in place of the URL's.
    #[serde(default)]
    pub host: Option<String>,
    /// The method; `GET`.
    #[serde(default)]
    pub method: Option<String>,
    /// More fields, as they stand in a request: `Accept: text/html`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The address that it comes from; some address that nobody trusts.
    #[serde(default)]
    pub from: Option<IpAddr>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Question([hidden])")
    }
}

/// Why a question is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadQuestion {
    /// Another scheme.
    #[error("the URL begins with neither http:// nor https://")]
    Scheme,
    /// Nowhere to go.
    #[error("the URL has no host: write it like https://blog.m3o.app/")]
    Host,
    /// A user name or a password, which clients do not send in a URL.
    #[error("the URL has a user name or a password: clients send them as a field of their own")]
    UserInfo,
    /// What would be more than one line.
    #[error("there is a control character in it, which no client sends")]
    Control,
}

/// A question, read.
pub(super) struct Asked {
    pub(super) scheme: Scheme,
    pub(super) from: IpAddr,
    /// The host of the URL, without its port.
    pub(super) host: String,
    pub(super) port: u16,
    /// What is said of it where it is no request.
    pub(super) method: String,
    authority: String,
    target: String,
    headers: Vec<String>,
}

/// An address of nobody's (RFC 5737).
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

impl Asked {
    pub(super) fn read(question: &Question) -> Result<Self, BadQuestion> {
        let texts = [Some(&question.url), question.host.as_ref()];
        let texts = texts.into_iter().flatten().chain(&question.method);
        if texts
            .chain(&question.headers)
            .any(|text| text.contains(char::is_control))
        {
            return Err(BadQuestion::Control);
        }
        let url = question.url.trim();
        let (scheme, rest) = match url.split_once("://") {
            None => (Scheme::Http, url),
            Some((name, rest)) if name.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((name, rest)) if name.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some(_) => return Err(BadQuestion::Scheme),
        };
        let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(BadQuestion::Host);
        }
        if authority.contains('@') {
            return Err(BadQuestion::UserInfo);
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        let after = authority.rfind(']').map_or(0, |end| end + 1);
        let (name, port) = match authority[after..].split_once(':') {
            Some((name, port)) => (&authority[..after + name.len()], port.parse().ok()),
            None => (authority, None),
        };
        Ok(Self {
            scheme,
            from: question.from.unwrap_or(SOMEBODY),
            host: name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
            port: port.unwrap_or_else(|| scheme.default_port()),
            method: question.method.clone().unwrap_or_else(|| "GET".to_owned()),
            authority: match &question.host {
                Some(host) => host.clone(),
                // RFC 9110, 4.2.3: the usual port is left out.
                None if port == Some(scheme.default_port()) => name.to_owned(),
                None => authority.to_owned(),
            },
            target: format!("{slash}{target}"),
            headers: question.headers.clone(),
        })
    }

    /// Where the URL leads, if that is an address and no name.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let bare = self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let address: IpAddr = bare.unwrap_or(&self.host).parse().ok()?;
        Some(address.to_canonical())
    }

    /// As it is sent, and read by the reader of all requests.
    pub(super) fn request(&self, limits: &Limits) -> Result<http::Request<()>, BadHead> {
        let Self {
            method,
            target,
            authority,
            ..
        } = self;
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n");
        for field in &self.headers {
            text.push_str(field);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        let head = Bytes::from(text);
        let limits = HeadLimits::new(limits);
        let mut scan = Scan::default();
        // As it arrives: no more is read than a head may have.
        let whole = match scan.advance(&head[..head.len().min(limits.bytes)], &limits)? {
            Some(whole) => Some(whole),
            None => scan.advance(&head, &limits)?,
        };
        let whole = whole.ok_or(BadHead::Malformed("it has no end"))?;
        head::request(&head, &whole, HeaderMap::new())
    }
}
