//! What the process says about itself: log lines, metrics and traces.

pub mod access;
pub mod acme;
mod apps;
pub mod client;
pub mod connections;
pub mod exchange;
mod exposition;
mod histogram;
pub mod labels;
pub mod load;
pub mod log;
pub mod metrics;
pub mod outliers;
pub mod platform;
pub mod redact;
pub mod reloads;
mod requests;
pub mod serving;
mod shards;
pub mod tls;
pub mod traces;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{self, Share};

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
    /// Where those lines go; empty: where all others go.
    pub access_file: PathBuf,
    /// The share of requests with a 2xx that have a line.
    pub sample: Share,
    /// What took so long has a line always.
    #[serde(with = "units::duration")]
    pub slow: Duration,
    /// Lines of one thread that wait to be written, in bytes.
    #[serde(with = "units::size")]
    pub buffer: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            level: Level::Info,
            access: true,
            access_file: PathBuf::new(),
            sample: Share::ALL,
            slow: Duration::from_secs(1),
            buffer: 4 << 20,
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
    /// The access log as Apache and nginx name it, all other lines as `Auto`.
    Combined,
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
