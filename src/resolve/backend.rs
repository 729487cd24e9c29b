//! The server of an app or function: where requests go and how their targets are joined to it.

use std::sync::Arc;

use http::uri::{InvalidUri, PathAndQuery};
use http::{HeaderValue, Uri};

use crate::closed::Closed;
use crate::pool::{BadOrigin, Origin, Reach};

/// Where an app or function runs. `Debug` hides path and query: a backend may want a key there.
#[derive(Clone, PartialEq, Eq)]
pub struct Backend {
    origin: Origin,
    /// What few have: apart, because the cache holds very many backends.
    more: Option<Box<More>>,
}

#[derive(Clone, PartialEq, Eq, Default)]
struct More {
    /// Without the slash at its end.
    path: Box<str>,
    query: Box<str>,
    /// That no requests go there for now, by word of who runs the platform.
    closed: Option<Arc<Closed>>,
}

/// Why a URL is no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadBackend {
    /// No absolute URL at all.
    #[error("it is no absolute URL")]
    Url(#[from] url::ParseError),
    /// No server that we can connect to.
    #[error(transparent)]
    Origin(#[from] BadOrigin),
}

impl Backend {
    /// Takes an absolute http(s) or h2c URL without user information. A fragment is dropped.
    ///
    /// # Errors
    /// For every other text.
    pub fn parse(url: &str) -> Result<Self, BadBackend> {
        let url = url::Url::parse(url)?;
        let path = url.path();
        let more = More {
            path: path.strip_suffix('/').unwrap_or(path).into(),
            query: url.query().unwrap_or_default().into(),
            closed: None,
        };
        Ok(Self {
            origin: Origin::of(&url, Reach::Workload)?,
            more: Some(more).filter(More::is_any).map(Box::new),
        })
    }

    /// The same, which takes no requests for now where `closed` says so.
    #[must_use]
    pub fn closed_as(self, closed: Option<Closed>) -> Self {
        let mut more = self.more.unwrap_or_default();
        more.closed = closed.map(Arc::new);
        let more = Some(more).filter(|more| more.is_any());
        Self { more, ..self }
    }

    /// That no requests go there for now.
    #[must_use]
    pub fn closed(&self) -> Option<&Arc<Closed>> {
        self.more.as_ref()?.closed.as_ref()
    }

    /// Where connections lead.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What its `Host` field says.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        self.origin.authority()
    }

    /// The path that every target begins with, without the slash at its end.
    #[must_use]
    pub fn path(&self) -> &str {
        self.more.as_ref().map_or("", |more| &more.path)
    }

    fn query(&self) -> &str {
        self.more.as_ref().map_or("", |more| &more.query)
    }

    /// Whether it has a path or a query of its own, which may hold a key.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.path().is_empty() || !self.query().is_empty()
    }

    /// The target of a request there: paths joined with exactly one slash, queries with `&`,
    /// nothing else in them changed.
    ///
    /// # Errors
    /// When the two together are no target, or too long for one.
    pub fn target(&self, asked: &Uri) -> Result<PathAndQuery, InvalidUri> {
        if !self.has_more()
            && let Some(target) = asked.path_and_query()
        {
            return Ok(target.clone());
        }
        let path = match asked.path() {
            // RFC 9110, 9.3.7: the whole server, of which this is all that its app has.
            "*" => "/",
            path => path,
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let query = asked.query().unwrap_or_default();
        let (own, own_query) = (self.path(), self.query());
        let mark = if own_query.is_empty() && asked.query().is_none() {
            ""
        } else {
            "?"
        };
        let and = if own_query.is_empty() || query.is_empty() {
            ""
        } else {
            "&"
        };
        PathAndQuery::try_from(format!("{own}{slash}{path}{mark}{own_query}{and}{query}"))
    }
}

impl More {
    fn is_any(&self) -> bool {
        !self.path.is_empty() || !self.query.is_empty() || self.closed.is_some()
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Backend({}/[hidden])", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_joined_with_one_slash_and_one_ampersand_and_nothing_else_changes() {
        let check = |backend: &str, asked: &str, expected: &str| {
            let target = Backend::parse(backend)
                .unwrap()
                .target(&asked.parse().unwrap());
            assert_eq!(target.unwrap().as_str(), expected, "{backend} {asked}");
        };
        check("http://b", "/", "/");
        check(
            "http://b/",
            "/a/../b/./%2e%2E/c//d",
            "/a/../b/./%2e%2E/c//d",
        );
        check("http://b/base", "/", "/base/");
        check("http://b/base/", "/x?y", "/base/x?y");
        check("http://b/base", "//x", "/base//x");
        check("http://b/?k=v", "/x", "/x?k=v");
        check("http://b/?k=v", "/x?a=b&a=%zz", "/x?k=v&a=b&a=%zz");
        check("http://b", "/x?", "/x?");
        check("http://b/p?k=v", "/x?", "/p/x?k=v");
        check("http://b/p", "http://public.example/x", "/p/x");
        check("http://b/p#fragment", "/x", "/p/x");
        check("http://b", "*", "*");
        check("http://b/p", "*", "/p/");
        check("h2c://b", "/x?y", "/x?y");
        check("h2c://b:81/base/?k=v", "/x", "/base/x?k=v");
    }

    #[test]
    fn only_absolute_web_urls_are_backends() {
        for url in [
            "https://b:8443/x",
            "http://127.0.0.1:80",
            "http://[::1]:1/",
            "h2c://b:50051",
            "h2c://[::1]:1/x",
        ] {
            assert!(Backend::parse(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "b",
            "/x",
            "//b/x",
            "ftp://b",
            "file:///etc/passwd",
            "http://",
            "http://u@b",
            "http://u:p@b",
            "unix:/x",
            "javascript:x",
            "http://b:99999",
            "h2c:b",
            "h2c:/b",
            "h2c://",
            "h2c://u@b",
            "h2://b",
        ] {
            assert!(Backend::parse(url).is_err(), "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_joined_target_holds_what_was_asked_to_the_byte(
            base in "(/[a-z]{1,5}){0,2}/?",
            own in "([a-z]=[a-z])?",
            path in "/[!-~&&[^#?]]{0,20}",
            query in "(\\?[!-~&&[^#]]{0,20})?",
        ) {
            let mark = if own.is_empty() { "" } else { "?" };
            let backend = Backend::parse(&format!("http://b{base}{mark}{own}")).unwrap();
            if let Ok(asked) = format!("{path}{query}").parse::<Uri>() {
                let target = backend.target(&asked).unwrap();
                let expected = format!("{}{path}", base.strip_suffix('/').unwrap_or(&base));
                proptest::prop_assert_eq!(target.path(), expected);
                let joined = target.query().unwrap_or_default();
                proptest::prop_assert!(joined.starts_with(&own));
                proptest::prop_assert!(joined.ends_with(asked.query().unwrap_or_default()));
            }
        }
    }
}
