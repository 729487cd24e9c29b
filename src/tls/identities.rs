//! Who we are to a client that begins a handshake.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::Semaphore;

use super::certificate::Certificate;
use super::challenges::Challenges;
use super::keyring::Keyring;
use super::on_demand::{Asked, OnDemand};

/// Everything that we can prove to be.
#[derive(Debug)]
pub struct Identities {
    /// The certificates that are there.
    pub keyring: Arc<Keyring>,
    /// What an authority may look for.
    pub challenges: Arc<Challenges>,
    /// Where those come from that are not there.
    pub on_demand: Option<Arc<dyn OnDemand>>,
    /// Places for handshakes that read a key which nobody has needed so far.
    readers: Arc<Semaphore>,
}

/// Keys that are read for handshakes at once.
const READERS: usize = 4;

/// The certificate for one client, with its key at hand.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What it speaks for.
    pub certificate: Arc<Certificate>,
    /// What is shown.
    pub key: Arc<CertifiedKey>,
}

impl Identities {
    /// What can be proven by these.
    #[must_use]
    pub fn new(
        keyring: Arc<Keyring>,
        challenges: Arc<Challenges>,
        on_demand: Option<Arc<dyn OnDemand>>,
    ) -> Self {
        Self {
            keyring,
            challenges,
            on_demand,
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Who we are to the client at `peer`, which came to the address `local` of ours and wants to
    /// speak with `sni`, in lower case. `None`: nobody that it could want.
    ///
    /// A certificate for the very name goes before a wildcard, one that can be had before the fallback.
    /// A client that names no host is shown a certificate for the address, or the fallback
    /// (RFC 6066, 3: a name is never an address).
    pub async fn find(&self, sni: Option<&str>, local: IpAddr, peer: IpAddr) -> Option<Identity> {
        if let Some(found) = self.named(sni, local).await {
            return Some(found);
        }
        if let Some(name) = sni
            && let Some(found) = self.asked(name, peer).await
        {
            return Some(found);
        }
        self.fallback().await
    }

    /// As [`find`](Self::find), of what is there already.
    pub async fn at_hand(&self, sni: Option<&str>, local: IpAddr) -> Option<Identity> {
        match self.named(sni, local).await {
            None => self.fallback().await,
            found => found,
        }
    }

    /// As [`find`](Self::find), where that has not to wait for anything.
    #[must_use]
    pub fn at_once(&self, sni: Option<&str>, local: IpAddr) -> Option<Identity> {
        let may_come = sni.is_some() && self.on_demand.is_some();
        let named = match sni {
            Some(name) => self.keyring.find(name),
            None => self.keyring.find(&local.to_canonical().to_string()),
        };
        let certificate = match named {
            None if may_come => return None,
            named => named.or_else(|| self.keyring.fallback())?,
        };
        if !certificate.is_read() {
            return None;
        }
        let key = certificate.key().ok().map(Arc::clone)?;
        Some(Identity { certificate, key })
    }

    async fn named(&self, sni: Option<&str>, local: IpAddr) -> Option<Identity> {
        match sni {
            Some(name) => self.known(name).await,
            None => self.known(&local.to_canonical().to_string()).await,
        }
    }

    async fn fallback(&self) -> Option<Identity> {
        self.with_key(self.keyring.fallback()?).await
    }

    async fn known(&self, name: &str) -> Option<Identity> {
        self.with_key(self.keyring.find(name)?).await
    }

    /// `None` where the key turns out to be no good, which whoever put it in finds out too.
    async fn with_key(&self, certificate: Arc<Certificate>) -> Option<Identity> {
        if !certificate.is_read() {
            self.read(&certificate).await;
        }
        let key = certificate.key().ok().map(Arc::clone)?;
        Some(Identity { certificate, key })
    }

    /// Reads the key of one that is needed for the first time: not on a worker, as its files may be on a
    /// disk that does not answer.
    async fn read(&self, certificate: &Arc<Certificate>) {
        let readers = Arc::clone(&self.readers);
        let Ok(place) = readers.acquire_owned().await else {
            return;
        };
        let certificate = Arc::clone(certificate);
        let reading = move || {
            // Given back when it is read, also where its client has left.
            let _held = place;
            certificate.key().is_ok()
        };
        let _outcome = tokio::task::spawn_blocking(reading).await;
    }

    async fn asked(&self, name: &str, peer: IpAddr) -> Option<Identity> {
        match self.on_demand.as_ref()?.ask(name, peer) {
            Asked::Unknown => None,
            Asked::Wait(ended) => {
                // Also when it ended without a word: the keyring says what came of it.
                let _outcome = ended.await;
                self.known(name).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::*;
    use crate::tls::certificate::Pair;
    use crate::tls::keyring::Source;

    fn pair(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem();
        (chain, key.serialize_pem())
    }

    fn certificate(label: &str, name: &str) -> Arc<Certificate> {
        let (chain, key) = pair(name);
        Arc::new(Certificate::from_pem(label, chain.as_bytes(), key.as_bytes()).unwrap())
    }

    fn identities(on_demand: Option<Arc<dyn OnDemand>>) -> Identities {
        let keyring = Keyring::with_fallback("fallback");
        Identities::new(keyring, Challenges::new(), on_demand)
    }

    async fn find(identities: &Identities, sni: Option<&str>) -> Option<String> {
        let local = "127.0.0.1".parse().unwrap();
        let found = identities.find(sni, local, local).await?;
        Some(found.certificate.label().to_owned())
    }

    #[tokio::test]
    async fn a_name_an_address_and_the_fallback() {
        let identities = identities(None);
        identities.keyring.put(
            Source::Files,
            vec![
                certificate("site", "a.test"),
                certificate("address", "127.0.0.1"),
            ],
        );
        assert_eq!(find(&identities, Some("a.test")).await.unwrap(), "site");
        assert_eq!(find(&identities, Some("b.test")).await, None);
        assert_eq!(find(&identities, None).await.unwrap(), "address");
        let fallback = certificate("fallback", "other.test");
        identities.keyring.put(Source::Files, vec![fallback]);
        assert_eq!(find(&identities, Some("b.test")).await.unwrap(), "fallback");
        assert_eq!(find(&identities, None).await.unwrap(), "fallback");
    }

    #[tokio::test]
    async fn a_key_is_read_when_its_name_is_first_asked_for() {
        let identities = identities(None);
        let (chain, key) = pair("a.test");
        let indexed = |label: &str, chain: &str, key: &str| {
            let pair = Pair {
                chain: chain.into(),
                key: key.into(),
            };
            let indexed = Certificate::index(label, chain.as_bytes(), || Ok(pair));
            Arc::new(indexed.unwrap())
        };
        let good = indexed("good", &chain, &key);
        let bad = indexed("bad", &pair("b.test").0, &key);
        let both = vec![Arc::clone(&good), Arc::clone(&bad)];
        identities.keyring.put(Source::Files, both);
        assert!(!good.is_read() && !bad.is_read());
        assert_eq!(find(&identities, Some("a.test")).await.unwrap(), "good");
        assert!(good.is_read() && !bad.is_read());
        assert_eq!(find(&identities, Some("b.test")).await, None);
        let fallback = certificate("fallback", "other.test");
        identities.keyring.put(Source::Files, vec![bad, fallback]);
        assert_eq!(find(&identities, Some("b.test")).await.unwrap(), "fallback");
        assert_eq!(identities.readers.available_permits(), READERS);
    }

    /// Holds who waits.
    #[derive(Debug, Default)]
    struct Slow(Mutex<Vec<oneshot::Sender<()>>>);

    impl OnDemand for Slow {
        fn ask(&self, name: &str, _peer: IpAddr) -> Asked {
            if name != "new.test" {
                return Asked::Unknown;
            }
            let (ended, wait) = oneshot::channel();
            self.0.lock().unwrap().push(ended);
            Asked::Wait(wait)
        }
    }

    #[tokio::test]
    async fn a_certificate_that_can_be_had_is_waited_for() {
        let slow = Arc::new(Slow::default());
        let identities = Arc::new(identities(Some(Arc::clone(&slow) as Arc<dyn OnDemand>)));
        assert_eq!(find(&identities, Some("other.test")).await, None);
        let waiting = Arc::clone(&identities);
        let waiting = tokio::spawn(async move { find(&waiting, Some("new.test")).await });
        while slow.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let new = certificate("new", "new.test");
        identities.keyring.put(Source::Acme, vec![new]);
        slow.0.lock().unwrap().clear();
        assert_eq!(waiting.await.unwrap().unwrap(), "new");
    }
}
