//! What we agree to in a handshake: versions, ciphers, protocols and tickets.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identities::Identities;
use super::provider;

/// HTTP/2, as both sides agree on it over TLS (RFC 9113, 3.2).
pub const HTTP2: &[u8] = b"h2";

/// The protocols that we speak over TLS, the preferred one first (RFC 7301, 3 and 6).
const PROTOCOLS: [&[u8]; 3] = [HTTP2, b"http/1.1", b"http/1.0"];

/// The protocol of an authority that checks whether a name is ours (RFC 8737, 3).
pub const CHALLENGE: &[u8] = b"acme-tls/1";

/// What we agree to, and who we are while we do. One for all listeners and threads.
///
/// Whatever is shown, everything else is the same for all connections, so that a ticket of one is good
/// for another. A ticket holds the name that it was made for and is refused under another.
#[derive(Debug)]
pub struct Terms {
    config: ServerConfig,
    identities: Identities,
}

impl Terms {
    /// TLS 1.2 and 1.3 with sessions that clients keep themselves, sealed by keys that change every
    /// six hours. No early data (RFC 8470): it could be sent twice. Of the ciphers that both sides know
    /// it is the first of ours.
    ///
    /// # Errors
    /// When there is no randomness for the keys of tickets.
    pub fn new(identities: Identities) -> Result<Arc<Self>, NoTerms> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        config.ticketer = Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.max_early_data_size = 0;
        config.ignore_client_order = true;
        Ok(Arc::new(Self { config, identities }))
    }

    /// Who we are.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The terms for a client that is shown `key`.
    #[must_use]
    pub fn with(&self, key: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        self.by(Arc::new(Shown(key)))
    }

    /// The terms for a client for which `resolver` finds out what it is shown.
    #[must_use]
    pub fn by(&self, resolver: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.cert_resolver = resolver;
        Arc::new(config)
    }

    /// The terms for an authority that looks for `key`: nothing is ever said over that connection.
    #[must_use]
    pub fn for_challenge(&self, key: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.cert_resolver = Arc::new(Shown(key));
        config.alpn_protocols = vec![CHALLENGE.to_vec()];
        // Terms that differ share no tickets.
        config.ticketer = Arc::new(NoTickets);
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }
}

/// There is no randomness for the keys of tickets, or no cryptography at all.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be served: {0}")]
pub struct NoTerms(#[from] rustls::Error);

/// Shows one certificate, which was chosen before.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Shows none.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Makes no ticket and takes none.
#[derive(Debug)]
struct NoTickets;

impl rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::challenges::Challenges;
    use crate::tls::keyring::Keyring;

    #[test]
    fn sessions_are_kept_by_clients_alone_and_their_keys_change() {
        let nobody = Identities::new(Keyring::new(), Challenges::new(), None);
        let terms = Terms::new(nobody).unwrap();
        assert!(!terms.config.session_storage.can_cache());
        assert!(terms.config.ticketer.enabled());
        // Two periods of the keys: those of this one and of the one before open tickets.
        assert_eq!(terms.config.ticketer.lifetime(), 12 * 60 * 60);
        assert_eq!(terms.config.max_early_data_size, 0);
        assert!(terms.config.ignore_client_order);
        let first = provider().kx_groups[0].name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
    }
}
