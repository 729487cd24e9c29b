//! The whole ingress, at an authority that knows its ports, and a client that takes any certificate.

use std::sync::{Arc, Mutex};

use m3o_ingress::config::{Config, Environment};
use m3o_ingress::ingress::{Error, Ingress, Secrets};
use m3o_ingress::server::shutdown::{Stage, Stopper, stop_signal};
use m3o_ingress::telemetry::log::Log;
use m3o_ingress::telemetry::metrics::Metrics;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, Wish};
use crate::directory::provider;
use crate::running::{eventually, free_port, loopback};

/// An ingress with ports that the authority knows.
pub(crate) struct Whole {
    pub(crate) http: u16,
    https: u16,
    stopper: Stopper,
    running: Option<std::thread::JoinHandle<Result<(), Error>>>,
    pub(crate) authority: Authority,
}

impl Whole {
    /// Runs with `parts` of the configuration, which are told the port of plain HTTP, and `more` in
    /// `[tls.acme]`.
    pub(crate) fn start(parts: impl FnOnce(u16) -> String, more: &str) -> Self {
        let (http, https) = (free_port(), free_port());
        let authority = Authority::start_with(&Wish {
            ports: Some((http, https)),
            ..Wish::default()
        });
        let text = format!(
            "[listen]\nhttp = '{}'\nhttps = '{}'\nworkers = 1\n\
             [backends]\nallow_private = true\ndns = '{}'\n{}\
             [tls]\ncerts = '{folder}/none'\n\
             [tls.acme]\ndirectory = '{}'\nca = '{}'\nagree = true\nfolder = '{folder}/acme'\n{more}",
            loopback(http),
            loopback(https),
            loopback(authority.dns),
            parts(http),
            authority.directory.url(),
            authority.certificate_file().display(),
            folder = authority.folder.path().display(),
        );
        let config = Config::parse("test", &text, &Environment::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let secrets = [("M3O_API_TOKEN", "token"), ("M3O_PLATFORM_KEY", "the-key")];
        let secrets = Secrets::from_env(&config, &secrets.into_iter().collect()).unwrap();
        let (stopper, stop) = stop_signal();
        let running = std::thread::spawn(move || {
            Ingress::bind(config, secrets, Log::discard(Metrics::new()))?.run(stop)
        });
        eventually("it listens", || {
            std::net::TcpStream::connect(loopback(http)).ok()
        });
        Self {
            http,
            https,
            stopper,
            running: Some(running),
            authority,
        }
    }

    /// What a client of `name` gets over HTTPS, as [`get`] does.
    pub(crate) fn get(
        &self,
        name: &str,
        target: &str,
    ) -> Result<(Vec<String>, String), Option<AlertDescription>> {
        get(self.https, name, target)
    }
}

/// What a client of `name` gets over HTTPS: the names of the certificate that it is shown, and the
/// answer. Else the alert, where there was one.
pub(crate) fn get(
    https: u16,
    name: &str,
    target: &str,
) -> Result<(Vec<String>, String), Option<AlertDescription>> {
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
    let host = ServerName::try_from(name.to_owned()).unwrap();
    let exchange = async {
        let stream = TcpStream::connect(loopback(https)).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(host, stream).await?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = runtime.block_on(exchange).map_err(|error| alert(&error))?;
    let names = seen.0.lock().unwrap().take();
    Ok((names.unwrap(), answer))
}

fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
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
