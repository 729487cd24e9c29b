//! The custom domains of apps: which host is whose, and which proofs are still awaited. Does no I/O, and
//! keeps nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::id::WorkloadId;

/// What is known of custom domains. A clone is another view of the same ones.
///
/// Reading takes no lock and allocates nothing, so it may stand on the path of a request. Whoever may
/// prove a domain is the only one to change it; where there is nobody, it stays empty.
#[derive(Debug, Clone, Default)]
pub struct Domains(Arc<ArcSwap<HashMap<Box<str>, Standing>>>);

/// What is known of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// An app has proven it.
    Proven(WorkloadId),
    /// One app alone claims it: who finds this token below [`PROOF_PATH`] knows that the domain leads
    /// here.
    Awaited(Box<str>),
}

/// Before the token, in the path of a proof over HTTP (RFC 8615: a well-known URI).
pub const PROOF_PATH: &str = "/.well-known/m3o-domain-verification/";

impl Domains {
    /// The app of `host`: lower case, A-labels, no port, no trailing dot.
    #[must_use]
    pub fn app_of(&self, host: &str) -> Option<WorkloadId> {
        match self.0.load().get(host) {
            Some(Standing::Proven(app)) => Some(*app),
            Some(Standing::Awaited(_)) | None => None,
        }
    }

    /// Whether `token` at `host` is a proof that is awaited.
    #[must_use]
    pub fn awaits(&self, host: &str, token: &str) -> bool {
        match self.0.load().get(host) {
            Some(Standing::Awaited(awaited)) => **awaited == *token,
            Some(Standing::Proven(_)) | None => false,
        }
    }

    /// Says of each domain in `changed` how it stands now, all at once: the next one who asks sees it.
    /// One thread alone may call this.
    pub fn apply(&self, changed: impl IntoIterator<Item = (Box<str>, Option<Standing>)>) {
        let mut changed = changed.into_iter().peekable();
        if changed.peek().is_none() {
            return;
        }
        let mut domains = HashMap::clone(&self.0.load());
        for (domain, standing) in changed {
            match standing {
                Some(standing) => domains.insert(domain, standing),
                None => domains.remove(&domain),
            };
        }
        self.0.store(Arc::new(domains));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stands_as_was_said_last_and_no_other_does() {
        let blog = WorkloadId::parse("blog").unwrap();
        let domains = Domains::default();
        let elsewhere = domains.clone();
        let check = |host, app, token| {
            assert_eq!(elsewhere.app_of(host), app, "{host}");
            assert_eq!(elsewhere.awaits(host, "t0ken"), token, "{host}");
        };
        check("blog.example", None, false);
        domains.apply([
            ("blog.example".into(), Some(Standing::Proven(blog))),
            (
                "shop.example".into(),
                Some(Standing::Awaited("t0ken".into())),
            ),
        ]);
        check("blog.example", Some(blog), false);
        check("shop.example", None, true);
        assert!(!domains.awaits("shop.example", "t0ke"));
        for host in ["www.blog.example", "example", "og.example", ""] {
            check(host, None, false);
        }
        domains.apply([
            ("blog.example".into(), None),
            ("shop.example".into(), Some(Standing::Proven(blog))),
        ]);
        domains.apply([]);
        check("blog.example", None, false);
        check("shop.example", Some(blog), false);
    }
}
