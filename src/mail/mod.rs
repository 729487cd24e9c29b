//! Mail: what is sent, how it leaves, and the mailbox of `dev`.

use serde::{Deserialize, Serialize};

/// `[platform.mail]`: how mail leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The environment variable that holds `smtps://user:password@host:465`.
    pub smtp_url_env: String,
    /// The sender's address.
    pub from: String,
}
