//! Certificates and the keys to them: which are there, whom they speak for, where they come from.
//!
//! Knows nothing of connections that are served and nothing of routes.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use serde::{Deserialize, Serialize};

use crate::units;

pub mod certificate;
pub mod challenges;
pub mod expiry;
pub mod files;
pub mod identities;
pub mod keyring;
pub mod local;
pub mod on_demand;
pub mod terms;

/// `[tls]`: certificates of our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A folder of `NAME.crt` and `NAME.key` pairs.
    pub certs: PathBuf,
    /// The NAME that is served where no other certificate is for what a client asks for; empty: none.
    pub default: String,
    /// Between two looks at the folder.
    #[serde(with = "units::duration")]
    pub watch: Duration,
    /// Set by `m3o-ingress dev` alone: the folder of the local authority.
    #[serde(skip)]
    pub authority: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            certs: "certs".into(),
            default: String::new(),
            watch: Duration::from_secs(5),
            authority: None,
        }
    }
}

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
