//! What an authority looks for while it checks that a name is ours: tokens and certificates.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

/// The challenges that are open, shared by all threads. Nearly always there are none.
#[derive(Debug, Default)]
pub struct Challenges {
    /// HTTP-01 (RFC 8555, 8.3): the key authorization of each token.
    http: ArcSwap<HashMap<Box<str>, Arc<str>>>,
    /// TLS-ALPN-01 (RFC 8737, 3): the certificate of each name.
    alpn: ArcSwap<HashMap<Box<str>, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// No challenge is open.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Answers for `token` from now on.
    pub fn put_http(&self, token: &str, answer: &str) {
        let answer: Arc<str> = answer.into();
        change(&self.http, |open| {
            open.insert(token.into(), Arc::clone(&answer));
        });
    }

    /// Forgets `token`.
    pub fn remove_http(&self, token: &str) {
        change(&self.http, |open| {
            open.remove(token);
        });
    }

    /// What is asked for at `/.well-known/acme-challenge/<token>`.
    #[must_use]
    pub fn answer_http(&self, token: &str) -> Option<String> {
        let open = self.http.load();
        open.get(token).map(|answer| String::from(&**answer))
    }

    /// Shows `key` to whoever asks for `name` as `acme-tls/1` from now on. `name` is in lower case.
    pub fn put_alpn(&self, name: &str, key: &Arc<CertifiedKey>) {
        change(&self.alpn, |open| {
            open.insert(name.into(), Arc::clone(key));
        });
    }

    /// Forgets the certificate of `name`.
    pub fn remove_alpn(&self, name: &str) {
        change(&self.alpn, |open| {
            open.remove(name);
        });
    }

    /// The certificate that proves `name`.
    #[must_use]
    pub fn alpn(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.alpn.load().get(name).map(Arc::clone)
    }
}

/// Swaps a map for one that is changed.
fn change<V: Clone>(
    map: &ArcSwap<HashMap<Box<str>, V>>,
    change: impl Fn(&mut HashMap<Box<str>, V>),
) {
    map.rcu(|open| {
        let mut open = HashMap::clone(open);
        change(&mut open);
        open
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_until_it_is_removed() {
        let challenges = Challenges::new();
        assert_eq!(challenges.answer_http("token"), None);
        challenges.put_http("token", "token.thumbprint");
        challenges.put_http("other", "other.thumbprint");
        assert_eq!(
            challenges.answer_http("token").as_deref(),
            Some("token.thumbprint")
        );
        challenges.remove_http("token");
        assert_eq!(challenges.answer_http("token"), None);
        assert!(challenges.answer_http("other").is_some());
        assert!(challenges.alpn("example.com").is_none());
    }
}
