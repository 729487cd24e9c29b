//! Certificates of an authority of the tests, and clients that trust it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::message::{Reader, Reply};

/// An authority, and the folder of what it signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(parameters, key),
            root,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Where `tls.certs` points.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A chain and a key for `names`.
    pub(crate) fn sign(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(names).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Puts a pair for `names` into the folder, and gives its certificate.
    pub(crate) fn put(&self, label: &str, names: &[&str]) -> CertificateDer<'static> {
        use rustls::pki_types::pem::PemObject as _;
        let (chain, key) = self.sign(names);
        self.write(&format!("{label}.crt"), &chain);
        self.write(&format!("{label}.key"), &key);
        CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()
    }

    /// Writes one file in place of what was there, at once.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.folder.path().join(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.folder.path().join(name)).unwrap();
    }

    /// Clients that trust it, with these versions of TLS.
    pub(crate) fn clients_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Clients {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        // As browsers do, they offer the same exchanges of keys.
        let provider = Arc::clone(m3o_ingress::tls::provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.enable_early_data = true;
        Clients(Arc::new(config))
    }

    /// A connection on which both sides agreed to speak HTTP/2.
    pub(crate) async fn http2(&self, address: SocketAddr, name: &str) -> SendRequest<Bytes> {
        let Clients(config) = self.clients_of(rustls::ALL_VERSIONS, &[b"h2", b"http/1.1"]);
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.unwrap();
        let agreed = stream.get_ref().1.alpn_protocol();
        assert_eq!(agreed, Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move {
            let _how_it_ends = connection.await;
        });
        client.ready().await.unwrap()
    }

    /// Clients that trust it.
    pub(crate) fn clients(&self) -> Clients {
        self.clients_of(rustls::ALL_VERSIONS, &[b"http/1.1"])
    }
}

/// Clients that share their sessions.
#[derive(Clone)]
pub(crate) struct Clients(pub(crate) Arc<ClientConfig>);

impl Clients {
    /// The handshake with `name`, an address or a host.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<SecureCaller> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let reader = Reader::new(stream);
        Ok(SecureCaller { reader })
    }
}

/// One connection over TLS.
pub(crate) struct SecureCaller {
    pub(crate) reader: Reader<StreamOwned<ClientConnection, TcpStream>>,
}

impl SecureCaller {
    pub(crate) fn session(&self) -> &ClientConnection {
        &self.reader.stream.conn
    }

    /// The certificate that was shown.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        self.session().peer_certificates().unwrap()[0].clone()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())?;
        self.reader.stream.flush()
    }

    pub(crate) fn try_get(&mut self, host: &str, target: &str) -> io::Result<Reply> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        self.reader.reply("GET")
    }

    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, target: &str) -> Reply {
        self.try_get(host, target).unwrap()
    }

    /// Whether the connection ends with the words that TLS has for an end.
    pub(crate) fn ends_in_order(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.stream.read_to_end(&mut rest).is_ok()
    }
}
