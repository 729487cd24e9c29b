use std::rc::Rc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::*;
use crate::server::drain::Drain;
use crate::tls::challenges::Challenges;
use crate::tls::identities::Identities;
use crate::tls::keyring::{Keyring, Source};
use crate::tls::on_demand::{Asked, OnDemand};

/// A certificate that its own clients trust.
fn certificate(name: &str) -> (Arc<Certificate>, rustls::RootCertStore) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let signed = parameters.self_signed(&key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signed.der().clone()).unwrap();
    let (chain, key) = (signed.pem(), key.serialize_pem());
    let certificate = Certificate::from_pem(name, chain.as_bytes(), key.as_bytes()).unwrap();
    (Arc::new(certificate), roots)
}

fn identities(on_demand: Option<Arc<dyn OnDemand>>) -> Identities {
    Identities::new(Keyring::new(), Challenges::new(), on_demand)
}

/// Both ends of one handshake for `name`.
async fn both(
    terms: &Arc<Terms>,
    limit: Duration,
    roots: rustls::RootCertStore,
    protocols: &[&[u8]],
    name: &'static str,
) -> (Result<Agreed, Failed>, io::Result<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Arc::clone(crate::tls::provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let client = async move {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name).unwrap();
        let agreed = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let spoken = agreed.get_ref().1.alpn_protocol();
        Ok(spoken.unwrap_or_default().to_vec())
    };
    let server = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let mut drained = Rc::new(Drain::default()).join();
        shake(stream, peer.ip(), terms, limit, &mut drained).await
    };
    tokio::join!(server, client)
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_authority_sees_the_certificate_that_it_looks_for_and_nothing_else() {
    let identities = identities(None);
    let (site, site_roots) = certificate("a.test");
    identities.keyring.put(Source::Files, vec![site]);
    let (proof, proof_roots) = certificate("a.test");
    identities
        .challenges
        .put_alpn("a.test", proof.key().unwrap());
    let terms = Terms::new(identities).unwrap();

    let (served, seen) = both(&terms, PATIENCE, proof_roots, &[CHALLENGE], "a.test").await;
    assert_eq!(seen.unwrap(), CHALLENGE);
    assert_eq!(served.unwrap_err().outcome(), Handshake::Challenge);

    // Everybody else is shown what is always shown.
    let (served, seen) = both(
        &terms,
        PATIENCE,
        site_roots.clone(),
        &[b"http/1.1"],
        "a.test",
    )
    .await;
    assert_eq!(seen.unwrap(), b"http/1.1");
    assert_eq!(served.unwrap().outcome(), Handshake::Full);

    terms.identities().challenges.remove_alpn("a.test");
    let (served, seen) = both(&terms, PATIENCE, site_roots, &[CHALLENGE], "a.test").await;
    assert!(seen.is_err());
    assert_eq!(served.unwrap_err().outcome(), Handshake::NoProtocol);
}

#[test]
fn a_name_is_looked_for_in_lower_case_and_without_the_dot_at_its_end() {
    for (sent, name) in [
        ("Blog.M3O.app", "blog.m3o.app"),
        ("blog.m3o.app.", "blog.m3o.app"),
        ("blog.m3o.app..", "blog.m3o.app."),
    ] {
        assert_eq!(&*canonical(sent), name);
    }
}

#[tokio::test]
async fn an_authority_that_looks_for_the_proof_of_another_causes_no_order() {
    let slow = Arc::new(Slow::default());
    let identities = identities(Some(Arc::clone(&slow) as Arc<dyn OnDemand>));
    let terms = Terms::new(identities).unwrap();
    let (_, roots) = certificate("new.test");
    let (served, seen) = both(&terms, PATIENCE, roots, &[CHALLENGE], "new.test").await;
    assert!(seen.is_err());
    assert_eq!(served.unwrap_err().outcome(), Handshake::UnknownName);
    assert!(slow.0.lock().unwrap().is_empty());
}

/// Takes every question, and never answers one by itself.
#[derive(Debug, Default)]
struct Slow(Mutex<Vec<oneshot::Sender<()>>>);

impl OnDemand for Slow {
    fn ask(&self, _name: &str, _peer: IpAddr) -> Asked {
        let (ended, wait) = oneshot::channel();
        self.0.lock().unwrap().push(ended);
        Asked::Wait(wait)
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_come_in_time_ends_the_handshake() {
    let slow = Arc::new(Slow::default());
    let terms = Terms::new(identities(Some(slow.clone()))).unwrap();
    let limit = Duration::from_millis(50);
    let (_, roots) = certificate("a.test");
    let (served, seen) = both(&terms, limit, roots, &[], "a.test").await;
    assert_eq!(served.unwrap_err().outcome(), Handshake::TimedOut);
    assert!(seen.is_err());
    assert_eq!(slow.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_certificate_that_comes_in_time_is_shown() {
    let slow = Arc::new(Slow::default());
    let identities = identities(Some(slow.clone()));
    let keyring = Arc::clone(&identities.keyring);
    let terms = Terms::new(identities).unwrap();
    let (site, roots) = certificate("a.test");
    let coming = async {
        while slow.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        keyring.put(Source::Acme, vec![site]);
        slow.0.lock().unwrap().clear();
    };
    let agreeing = both(&terms, PATIENCE, roots, &[], "a.test");
    let ((served, seen), ()) = tokio::join!(agreeing, coming);
    assert!(seen.is_ok(), "{seen:?}");
    let agreed = served.unwrap();
    assert_eq!(agreed.secured.sni.as_deref(), Some("a.test"));
    assert!(agreed.secured.certificate.covers("a.test"));
}

#[tokio::test]
async fn a_first_message_that_comes_in_pieces_or_in_several_records_is_read_as_well() {
    let (site, roots) = certificate("a.test");
    let identities = identities(None);
    identities.keyring.put(Source::Files, vec![site]);
    let terms = Terms::new(identities).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(crate::tls::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Records of the smallest size that clients may agree on with themselves.
    config.max_fragment_size = Some(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    let server = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let mut drained = Rc::new(Drain::default()).join();
        shake(stream, peer.ip(), &terms, PATIENCE, &mut drained).await
    };
    let (served, seen) = tokio::join!(server, client);
    assert!(seen.is_ok(), "{seen:?}");
    assert_eq!(served.unwrap().secured.sni.as_deref(), Some("a.test"));
}

#[test]
fn a_first_message_is_whole_when_all_of_its_only_record_is_here() {
    let whole = [22, 3, 1, 0, 6, 1, 0, 0, 2, 7, 7];
    assert!(is_whole(&whole));
    assert!(is_whole(&[&whole[..], b"and more"].concat()));
    assert!(!is_whole(&whole[..10]) && !is_whole(&[]));
    let mut larger = whole;
    larger[8] = 3;
    assert!(!is_whole(&larger), "its end is in another record");
}
