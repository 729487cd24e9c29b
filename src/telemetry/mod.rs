//! What the process says about itself: log lines and metrics.

pub mod acme;
pub mod exchange;
pub mod load;
pub mod log;
pub mod metrics;
pub mod outliers;
pub mod redact;
pub mod serving;
pub mod tls;

use serde::{Deserialize, Serialize};

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How lines look.
    pub format: Format,
    /// What is written.
    pub level: Level,
    /// One line a request.
    pub access: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            level: Level::Info,
            access: true,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people on a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The least important level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Someone must act.
    Error,
    /// We coped.
    Warn,
    /// Per event.
    Info,
    /// The rest.
    Debug,
    /// More than anybody wants.
    Trace,
}
