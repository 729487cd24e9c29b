//! `[reload]`: when a configuration that has changed is taken over unasked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units;

/// `[reload]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Whether the file is looked at.
    pub watch: bool,
    /// Between two looks.
    #[serde(with = "units::duration")]
    pub every: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            watch: false,
            every: Duration::from_secs(5),
        }
    }
}
