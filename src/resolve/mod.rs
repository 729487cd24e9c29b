//! From an app or function to its backend.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units;

/// `[cache]`: how long resolved backends are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Served without asking.
    #[serde(with = "units::duration")]
    pub fresh: Duration,
    /// Then served while one request asks again in the background.
    #[serde(with = "units::duration")]
    pub stale: Duration,
    /// While the API is down or failing, an entry is served this long.
    #[serde(with = "units::duration")]
    pub error: Duration,
    /// How long "no such app" is remembered.
    #[serde(with = "units::duration")]
    pub negative: Duration,
    /// Entries held at most.
    pub capacity: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(60),
            stale: Duration::from_secs(600),
            error: Duration::from_secs(24 * 3600),
            negative: Duration::from_secs(5),
            capacity: 100_000,
        }
    }
}
