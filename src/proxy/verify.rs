//! Verification links.

use serde::{Deserialize, Serialize};

use crate::hosts::HostName;
use crate::units;

/// `[user]`: how verification links redirect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The only hosts that are redirected to; empty: any after a successful verification.
    #[serde(with = "units::one_or_many")]
    pub redirect_hosts: Vec<HostName>,
    /// Whether a page with a button comes before a token is spent.
    pub confirm: Confirm,
}

/// When a page with a button comes before a token is spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// The link alone spends it.
    #[default]
    Never,
    /// Always the page first.
    Always,
    /// The page, unless a person clicked (`Sec-Fetch-User: ?1`).
    Auto,
}
