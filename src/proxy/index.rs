//! The list of apps on the bare app host.

use serde::{Deserialize, Serialize};

/// `[index]`: whether the bare app host lists the apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Off unless asked for: the list is public.
    pub enabled: bool,
}
