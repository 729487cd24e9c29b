//! The line that says that an ingress serves. Not the access log.

use std::net::SocketAddr;

use serde::Serialize;

use super::log::{Log, Style};

/// Where an ingress serves, and what answers behind it.
#[derive(Debug, Serialize)]
pub struct Serving {
    /// Plain HTTP.
    pub addresses: Vec<SocketAddr>,
    /// HTTP over TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub https: Vec<SocketAddr>,
    /// Health and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// The remote API, or the store.
    pub api: String,
    /// Threads that carry requests.
    pub workers: usize,
}

/// A line as `tracing` writes it.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    #[serde(flatten)]
    serving: &'a Serving,
}

impl Serving {
    /// Writes the line, at INFO.
    pub fn tell(&self, log: &Log) {
        match log.style() {
            Style::Human => {
                let list = |addresses: &[SocketAddr]| {
                    let addresses: Vec<String> =
                        addresses.iter().map(ToString::to_string).collect();
                    addresses.join(", ")
                };
                let (addresses, api) = (list(&self.addresses), &self.api);
                let https = Some(list(&self.https)).filter(|https| !https.is_empty());
                let https = https.map(tracing::field::display);
                let admin = self.admin.map(tracing::field::display);
                tracing::info!(%addresses, https, admin, %api, workers = self.workers, "serving");
            }
            // `tracing` has no lists.
            Style::Json if tracing::enabled!(tracing::Level::INFO) => {
                let line = Line {
                    timestamp: jiff::Timestamp::now().to_string(),
                    level: "INFO",
                    message: "serving",
                    serving: self,
                };
                let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
                bytes.push(b'\n');
                log.write(&bytes);
            }
            Style::Json => {}
        }
    }
}
