//! `[tls]`: what the sources of certificates are told, each by keys of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{acme, units};

/// `[tls]`: certificates of our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A folder of `NAME.crt` and `NAME.key` pairs.
    pub certs: PathBuf,
    /// The NAME that is served where no other certificate is for what a client asks for; empty: none.
    pub default: String,
    /// Between two looks at the folder.
    #[serde(with = "units::duration")]
    pub watch: Duration,
    /// Certificates from an authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<acme::Config>,
    /// Set by `m3o-ingress dev` alone: the folder of the local authority.
    #[serde(skip)]
    pub authority: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certs: "certs".into(),
            default: String::new(),
            watch: Duration::from_secs(5),
            acme: None,
            authority: None,
        }
    }
}
