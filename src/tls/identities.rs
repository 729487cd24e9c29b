//! Who we are to a client that begins a handshake.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

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
}

/// The certificate for one client, with its key at hand.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What it speaks for.
    pub certificate: Arc<Certificate>,
    /// What is shown.
    pub key: Arc<CertifiedKey>,
}

impl Identities {
    /// Who we are to the client at `peer`, which came to the address `local` of ours and wants to
    /// speak with `sni`, in lower case. `None`: nobody that it could want.
    ///
    /// A certificate for the very name goes before a wildcard, one that can be had before the fallback.
    /// A client that names no host is shown a certificate for the address, or the fallback
    /// (RFC 6066, 3: a name is never an address).
    pub async fn find(&self, sni: Option<&str>, local: IpAddr, peer: IpAddr) -> Option<Identity> {
        let found = match (self.named(sni, local), sni) {
            (None, Some(name)) => self.asked(name, peer).await,
            (found, _) => found,
        };
        found.or_else(|| self.fallback())
    }

    /// As [`find`](Self::find), of what is there already.
    #[must_use]
    pub fn at_hand(&self, sni: Option<&str>, local: IpAddr) -> Option<Identity> {
        self.named(sni, local).or_else(|| self.fallback())
    }

    /// As [`find`](Self::find), where that has not to wait for anything.
    #[must_use]
    pub fn at_once(&self, sni: Option<&str>, local: IpAddr) -> Option<Identity> {
        let may_come = sni.is_some() && self.on_demand.is_some();
        match self.named(sni, local) {
            None if may_come => None,
            found => found.or_else(|| self.fallback()),
        }
    }

    fn named(&self, sni: Option<&str>, local: IpAddr) -> Option<Identity> {
        match sni {
            Some(name) => self.known(name),
            None => self.known(&local.to_canonical().to_string()),
        }
    }

    fn fallback(&self) -> Option<Identity> {
        self.keyring.fallback().and_then(Identity::of)
    }

    fn known(&self, name: &str) -> Option<Identity> {
        self.keyring.find(name).and_then(Identity::of)
    }

    async fn asked(&self, name: &str, peer: IpAddr) -> Option<Identity> {
        match self.on_demand.as_ref()?.ask(name, peer) {
            Asked::Unknown => None,
            Asked::Wait(ended) => {
                // Also when it ended without a word: the keyring says what came of it.
                let _outcome = ended.await;
                self.known(name)
            }
        }
    }
}

impl Identity {
    /// `None` where the key turns out to be no good, which whoever put it in finds out too.
    fn of(certificate: Arc<Certificate>) -> Option<Self> {
        let key = certificate.key().ok().map(Arc::clone)?;
        Some(Self { certificate, key })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::*;
    use crate::tls::keyring::Source;

    fn certificate(label: &str, name: &str) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        Arc::new(Certificate::from_pem(label, chain.as_bytes(), key.as_bytes()).unwrap())
    }

    fn identities(on_demand: Option<Arc<dyn OnDemand>>) -> Identities {
        Identities {
            keyring: Keyring::with_fallback("fallback"),
            challenges: Challenges::new(),
            on_demand,
        }
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
