//! The whole ingress: it proves its names by its own listeners, and serves what it gets.

use std::sync::{Arc, Mutex};

use m3o_ingress::config::{Config, Environment};
use m3o_ingress::ingress::{Error, Ingress, Secrets};
use m3o_ingress::server::shutdown::{Stage, Stopper, stop_signal};
use m3o_ingress::telemetry::log::Log;
use m3o_ingress::telemetry::metrics::Metrics;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, Wish};
use crate::directory::provider;
use crate::running::{eventually, free_port, loopback};

/// An ingress with ports that the authority knows.
struct Whole {
    https: u16,
    stopper: Stopper,
    running: Option<std::thread::JoinHandle<Result<(), Error>>>,
    _authority: Authority,
}

impl Whole {
    fn start(more: &str) -> Self {
        let (http, https) = (free_port(), free_port());
        let authority = Authority::start_with(&Wish {
            ports: Some((http, https)),
            ..Wish::default()
        });
        let text = format!(
            "[listen]\nhttp = '{}'\nhttps = '{}'\nworkers = 1\n\
             [api]\naddress = 'http://127.0.0.1:1'\n\
             [hosts]\nuser = 'user.ours.test'\n\
             [tls]\ncerts = '{folder}/none'\n\
             [tls.acme]\ndirectory = '{}'\nca = '{}'\nagree = true\nfolder = '{folder}/acme'\n{more}",
            loopback(http),
            loopback(https),
            authority.directory.url(),
            authority.certificate_file().display(),
            folder = authority.folder.path().display(),
        );
        let config = Config::parse("test", &text, &Environment::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let token = [("M3O_API_TOKEN", "token")].into_iter().collect();
        let secrets = Secrets::from_env(&config, &token).unwrap();
        let (stopper, stop) = stop_signal();
        let running = std::thread::spawn(move || {
            Ingress::bind(config, secrets, Log::discard(Metrics::new()))?.run(stop)
        });
        Self {
            https,
            stopper,
            running: Some(running),
            _authority: authority,
        }
    }

    /// The names of the certificate that a client of `name` is shown.
    fn shown(&self, name: &str) -> Option<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let seen = Arc::new(Seen::default());
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as _)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let handshake = async {
            let stream = TcpStream::connect(loopback(self.https)).await.ok()?;
            let connector = TlsConnector::from(Arc::new(config));
            connector.connect(name, stream).await.ok()
        };
        runtime.block_on(handshake)?;
        seen.0.lock().unwrap().take()
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.stopper.advance(Stage::Stopping);
        let ended = self.running.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Takes any certificate, and remembers its names.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<Vec<String>>>);

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let names = names.value.general_names.iter().map(ToString::to_string);
        *self.0.lock().unwrap() = Some(names.collect());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn an_ingress_proves_its_names_by_its_own_listeners_and_serves_what_it_gets() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let more = format!("challenge = '{challenge}'\nnames = [['a.ours.test', 'b.ours.test']]");
        let whole = Whole::start(&more);
        let names = eventually(challenge, || whole.shown("b.ours.test"));
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[test]
fn the_first_client_of_a_known_name_waits_for_its_certificate_and_one_of_another_name_does_not() {
    let whole = Whole::start("on_demand = true\nnames = ['a.ours.test']");
    eventually("a certificate", || whole.shown("a.ours.test"));
    assert!(whole.shown("unknown.ours.test").is_none());
    let names = whole.shown("user.ours.test").unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
}
