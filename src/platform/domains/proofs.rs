//! Looks for the proofs of custom domains: a TXT record, or a token below the domain itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Method, StatusCode, Uri, header};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Claim, prove, txt_name, txt_value};
use crate::domains::PROOF_PATH;
use crate::platform::store::{self, Store, Table};
use crate::pool::{Origin, Pool, Reach};
use crate::wire::{Body, Request};

/// What hurries the search for proofs.
#[derive(Debug)]
pub(in crate::platform) struct Proofs {
    /// The port of a proof over HTTP.
    port: AtomicU16,
    /// Rung when there is something to look for.
    bell: Notify,
    /// Keys of the claims that somebody waits for. No more than there are claims.
    hurried: Mutex<BTreeSet<String>>,
}

/// How long to wait after a try for a claim of this age; none: it is given up.
pub(super) fn pause(age: SignedDuration) -> Option<Duration> {
    let age = age.unsigned_abs();
    (age <= PATIENCE).then(|| (age / 4).clamp(LEAST_PAUSE, MOST_PAUSE))
}

impl Proofs {
    pub(in crate::platform) fn new(port: u16) -> Self {
        Self {
            port: AtomicU16::new(port),
            bell: Notify::new(),
            hurried: Mutex::default(),
        }
    }

    pub(in crate::platform) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Proofs over HTTP are looked for at another port from now on.
    pub(in crate::platform) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Looks for the proofs of these claims next, whenever they were looked for last.
    pub(super) fn hurry(&self, keys: impl Iterator<Item = String>) {
        let mut hurried = self.hurried();
        hurried.extend(keys);
        if !hurried.is_empty() {
            self.bell.notify_one();
        }
    }

    /// Looks for proofs for ever.
    pub(in crate::platform) async fn run(&self, store: &Store, pool: &Rc<Pool>) {
        let mut tried = HashMap::new();
        let mut busy = HashSet::new();
        let mut searches = FuturesUnordered::new();
        loop {
            let wait = match pending(store) {
                Ok(pending) => {
                    tried.retain(|key, _| pending.contains_key(key));
                    let places = MOST_SEARCHES - busy.len();
                    let (due, wait) = self.due(&pending, &tried, &busy, places);
                    for key in due {
                        let token = pending[&key].token.clone();
                        busy.insert(key.clone());
                        searches.push(self.search(store, pool, key, token));
                    }
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "proofs of custom domains wait for the store: {error}");
                    FAULT_PAUSE
                }
            };
            tokio::select! {
                Some(key) = searches.next() => {
                    busy.remove(&key);
                    tried.insert(key, Instant::now());
                }
                () = self.bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The claims to look into now, those that waited for longest first, and when to come back.
    fn due(
        &self,
        pending: &HashMap<String, Claim>,
        tried: &HashMap<String, Instant>,
        busy: &HashSet<String>,
        places: usize,
    ) -> (Vec<String>, Duration) {
        let (now, today) = (Instant::now(), Timestamp::now());
        let mut hurried = self.hurried();
        hurried.retain(|key| pending.contains_key(key));
        let (mut due, mut wait) = (Vec::new(), MOST_PAUSE);
        for (key, claim) in pending.iter().filter(|(key, _)| !busy.contains(*key)) {
            let pause = match hurried.contains(key) {
                true => Some(HURRY_PAUSE),
                false => pause(claim.age(today)),
            };
            let Some(pause) = pause else { continue };
            let at = tried.get(key).map(|tried| *tried + pause);
            match at {
                Some(at) if at > now => wait = wait.min(at - now),
                at => due.push((at, key)),
            }
        }
        due.sort_unstable();
        let due: Vec<String> = due
            .into_iter()
            .take(places)
            .map(|(_, key)| key.clone())
            .collect();
        hurried.retain(|key| !due.contains(key));
        (due, wait)
    }

    /// Looks for one proof in both places; gives the key of the claim back.
    async fn search(&self, store: &Store, pool: &Rc<Pool>, key: String, token: String) -> String {
        let domain = key.split('/').next().unwrap_or_default();
        let found = async {
            has_record(domain, &token, pool).await || self.has_page(domain, &token, pool).await
        };
        let found = tokio::time::timeout(MOST_TIME, found).await;
        if !found.unwrap_or(false) {
            tracing::debug!(domain, "no proof of the custom domain {domain} yet");
            return key;
        }
        let own = key.clone();
        let written = store.write(move |tx| prove(tx, &own, &token));
        match written.await {
            Ok(true) => tracing::info!(domain, "the custom domain {domain} is proven"),
            // It was taken back, or another app was faster.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(domain, %error, "a proven domain waits for the store: {error}");
            }
        }
        key
    }

    /// Whether the domain itself answers the token, wherever it leads. No redirect is followed: it would
    /// be the word of whoever may redirect there.
    async fn has_page(&self, domain: &str, token: &str, pool: &Rc<Pool>) -> bool {
        let url = url::Url::parse(&format!("http://{domain}:{}/", self.port()));
        let origin = url.ok().and_then(|url| Origin::of(&url, Reach::Proof).ok());
        let target: Option<Uri> = format!("{PROOF_PATH}{token}").parse().ok();
        let (Some(origin), Some(target)) = (origin, target) else {
            return false;
        };
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = target;
        let headers = request.headers_mut();
        headers.insert(header::HOST, origin.authority().clone());
        let Ok(response) = pool.send(&origin, request).await else {
            return false;
        };
        if response.status() != StatusCode::OK {
            return false;
        }
        let body = response.into_body().collect(MOST_BODY).await;
        body.is_ok_and(|body| body.trim_ascii() == token.as_bytes())
    }

    fn hurried(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.hurried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the TXT record is there.
async fn has_record(domain: &str, token: &str, pool: &Rc<Pool>) -> bool {
    let expected = txt_value(token);
    let texts = pool.texts(&txt_name(domain)).await;
    texts.is_ok_and(|texts| texts.iter().any(|text| *text == expected.as_bytes()))
}

/// The claims that are not proven, to domains that nobody has proven; a damaged one is passed over.
fn pending(store: &Store) -> Result<HashMap<String, Claim>, store::Error> {
    let view = store.read()?;
    let (mut pending, mut proven) = (HashMap::new(), HashSet::new());
    for (key, claim) in view.scan_intact::<Claim>(Table::Domains)? {
        let domain = key.split('/').next().unwrap_or_default();
        match claim.is_proven() {
            true => drop(proven.insert(domain.to_owned())),
            false => drop(pending.insert(key, claim)),
        }
    }
    pending.retain(|key, _| !proven.contains(key.split('/').next().unwrap_or_default()));
    Ok(pending)
}

/// How long a proof is looked for after somebody asked.
const PATIENCE: Duration = Duration::from_secs(72 * 3600);

/// Between two looks at a claim: longer the older it is.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
const MOST_PAUSE: Duration = Duration::from_secs(3600);

/// Between two looks at a claim that somebody waits for.
const HURRY_PAUSE: Duration = Duration::from_secs(1);

/// After a fault of the store.
const FAULT_PAUSE: Duration = Duration::from_secs(5);

/// Claims that are looked into at once.
const MOST_SEARCHES: usize = 8;

/// For all of one look.
const MOST_TIME: Duration = Duration::from_secs(15);

/// Of a page that is to hold a token.
const MOST_BODY: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_looked_for_less_and_less_often_and_then_no_more() {
        let after =
            |seconds| pause(SignedDuration::from_secs(seconds)).map(|pause| pause.as_secs());
        assert_eq!(after(0), Some(10));
        assert_eq!(after(60), Some(15));
        assert_eq!(after(3600), Some(900));
        assert_eq!(after(24 * 3600), Some(3600));
        assert_eq!(after(72 * 3600), Some(3600));
        assert_eq!(after(72 * 3600 + 1), None);
        assert_eq!(after(-60), Some(15), "the clock was set back");
    }

    fn claim(age: i64) -> Claim {
        Claim {
            token: "t".to_owned(),
            asked: Timestamp::now() - SignedDuration::from_secs(age),
            proven: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_claims_come_first_and_hurried_ones_before_their_time() {
        let proofs = Proofs::new(80);
        let pending = HashMap::from([
            ("a.example/x".to_owned(), claim(24 * 3600)),
            ("b.example/x".to_owned(), claim(0)),
            ("c.example/x".to_owned(), claim(80 * 3600)),
        ]);
        let mut tried = HashMap::from([
            ("a.example/x".to_owned(), Instant::now()),
            ("c.example/x".to_owned(), Instant::now()),
        ]);
        let due = |tried: &_, places| proofs.due(&pending, tried, &HashSet::new(), places);
        let (first, wait) = due(&tried, 8);
        assert_eq!((first, wait), (vec!["b.example/x".to_owned()], MOST_PAUSE));
        tried.insert("b.example/x".to_owned(), Instant::now());
        assert_eq!(due(&tried, 8), (Vec::new(), LEAST_PAUSE));

        let given_up = ["c.example/x", "gone.example/x"].map(str::to_owned);
        proofs.hurry(given_up.into_iter());
        assert_eq!(
            due(&tried, 8),
            (Vec::new(), HURRY_PAUSE),
            "not more often than that"
        );
        tokio::time::advance(HURRY_PAUSE).await;
        assert!(due(&tried, 0).0.is_empty(), "no place is free");
        assert_eq!(due(&tried, 8).0, ["c.example/x"]);
        assert!(due(&tried, 8).0.is_empty(), "once");
        tokio::time::advance(LEAST_PAUSE).await;
        assert_eq!(due(&tried, 8).0, ["b.example/x"]);
    }
}
