//! The custom domains that are proven: which host is which app's. Does no I/O, and keeps nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::id::WorkloadId;

/// Proven domains and their apps. A clone is another view of the same ones.
///
/// Reading takes no lock and allocates nothing, so it may stand on the path of a request. Whoever may
/// prove a domain is the only one to change it; where there is nobody, it stays empty.
#[derive(Debug, Clone, Default)]
pub struct Domains(Arc<ArcSwap<HashMap<Box<str>, WorkloadId>>>);

impl Domains {
    /// The app of `host`: lower case, A-labels, no port, no trailing dot.
    #[must_use]
    pub fn app_of(&self, host: &str) -> Option<WorkloadId> {
        self.0.load().get(host).copied()
    }

    /// Puts `all` in place of what is known. The next one who asks sees it.
    pub fn replace(&self, all: impl IntoIterator<Item = (Box<str>, WorkloadId)>) {
        self.0.store(Arc::new(all.into_iter().collect()));
    }

    /// Gives each of `changed` its app, or none, all at once. One thread alone may call this.
    pub fn apply(&self, changed: impl IntoIterator<Item = (Box<str>, Option<WorkloadId>)>) {
        let mut changed = changed.into_iter().peekable();
        if changed.peek().is_none() {
            return;
        }
        let mut domains = HashMap::clone(&self.0.load());
        for (domain, app) in changed {
            match app {
                Some(app) => domains.insert(domain, app),
                None => domains.remove(&domain),
            };
        }
        self.0.store(Arc::new(domains));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> WorkloadId {
        WorkloadId::parse(name).unwrap()
    }

    #[test]
    fn a_host_has_the_app_that_it_was_given_last() {
        let domains = Domains::default();
        let elsewhere = domains.clone();
        assert_eq!(domains.app_of("blog.example"), None);
        domains.replace([("blog.example".into(), app("blog"))]);
        assert_eq!(elsewhere.app_of("blog.example"), Some(app("blog")));
        assert_eq!(elsewhere.app_of("www.blog.example"), None);
        assert_eq!(elsewhere.app_of("example"), None);
        domains.apply([
            ("blog.example".into(), None),
            ("shop.example".into(), Some(app("shop"))),
        ]);
        domains.apply([]);
        assert_eq!(elsewhere.app_of("blog.example"), None);
        assert_eq!(elsewhere.app_of("shop.example"), Some(app("shop")));
    }
}
