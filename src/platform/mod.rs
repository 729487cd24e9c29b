//! The embedded platform: the M3O API, from one store.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::hosts::PublicScheme;
use crate::mail;

mod store;

/// `[platform]`: the embedded platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file of the store.
    pub store: PathBuf,
    /// The environment variable that holds the first API key.
    #[serde(default = "default_key_env")]
    pub key_env: String,
    /// Scheme, and port if unusual, of the public links that it makes.
    #[serde(default)]
    pub public: PublicScheme,
    /// How mail leaves; without it, what would send one is a 501.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<mail::Config>,
}

fn default_key_env() -> String {
    "M3O_PLATFORM_KEY".to_owned()
}
