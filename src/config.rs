//! The configuration file: the sum of the parts' own sections.

use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::settings::{Limits, Timeouts};
use crate::{platform, pool, proxy, resolve, server, telemetry, upstream};

/// Everything that `m3o-ingress run` is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where we listen.
    pub listen: server::Config,
    /// A remote M3O API; excludes `platform`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<upstream::Config>,
    /// The embedded platform; excludes `api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<platform::Config>,
    /// Our public names.
    pub hosts: Hosts,
    /// How long resolved backends are believed.
    pub cache: resolve::Config,
    /// Connections to backends.
    pub backends: pool::Config,
    /// A limit in time for every phase.
    pub timeouts: Timeouts,
    /// A limit in size or number for everything else.
    pub limits: Limits,
    /// Certificates.
    pub tls: Tls,
    /// Verification links.
    pub user: proxy::verify::Config,
    /// The list of apps.
    pub index: proxy::index::Config,
    /// Logs.
    pub log: telemetry::Config,
    /// Set by `m3o-ingress dev` alone: a demo app, a demo function, and a mailbox in place of mail.
    #[serde(skip)]
    pub dev: bool,
}

/// `[tls]`: read, but refused for now: HTTPS is not built yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A folder of `NAME.crt` and `NAME.key` pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs: Option<std::path::PathBuf>,
    /// The name served where SNI matches none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}
