//! Certificates and the keys to them: which are there, whom they speak for, where they come from.
//!
//! Knows nothing of connections that are served and nothing of routes.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};

pub mod certificate;
pub mod challenges;
pub mod expiry;
pub mod files;
pub mod identities;
pub mod keyring;
pub mod local;
pub mod on_demand;
pub mod terms;

/// The cryptography of connections that clients make to us.
///
/// X25519MLKEM768 comes first: what is recorded today stays secret from the machines of tomorrow.
#[must_use]
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    })
}
