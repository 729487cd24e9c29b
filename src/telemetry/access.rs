//! What a line of the access log says, and how it looks.

use std::net::IpAddr;

use http::Version;
use serde::Serialize;

/// One line of the access log, its fields named as OpenTelemetry names them.
#[derive(Serialize)]
pub(super) struct Entry<'a> {
    pub(super) timestamp: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(rename = "client.address")]
    pub(super) client: IpAddr,
    #[serde(rename = "http.request.method")]
    pub(super) method: &'a str,
    #[serde(rename = "server.address", skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<&'a str>,
    #[serde(rename = "url.path")]
    pub(super) path: &'a str,
    #[serde(rename = "url.query", skip_serializing_if = "Option::is_none")]
    pub(super) query: Option<&'a str>,
    #[serde(
        rename = "network.protocol.version",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) version: Option<&'static str>,
    #[serde(rename = "http.response.status_code")]
    pub(super) status: u16,
    pub(super) duration_ms: f64,
    pub(super) response_bytes: u64,
    pub(super) route: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<&'static str>,
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) proxy_error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<&'a str>,
    #[serde(
        rename = "user_agent.original",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) user_agent: Option<&'a str>,
    pub(super) request_id: &'a str,
}

impl Entry<'_> {
    pub(super) fn to_human(&self) -> String {
        let mut line = format!(
            "{} {} {} {}{}",
            self.timestamp,
            self.status,
            self.method,
            self.host.unwrap_or("-").escape_debug(),
            self.path.escape_debug(),
        );
        if let Some(query) = self.query {
            line.push('?');
            line.extend(query.escape_debug());
        }
        line.push_str(&format!(" {:.1} ms {}", self.duration_ms, self.route));
        for word in [self.cache, self.proxy_error].into_iter().flatten() {
            line.push(' ');
            line.push_str(word);
        }
        if self.outcome != "complete" {
            line.push(' ');
            line.push_str(self.outcome);
        }
        line.push_str(&format!(" {} {}", self.client, self.request_id));
        if let Some(cause) = self.cause {
            line.push_str(" (");
            line.extend(cause.escape_debug());
            line.push(')');
        }
        line
    }
}

/// As much of what a client wrote as a line holds.
pub(super) fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOGGED)]
}

/// Octets of one value in a line.
const MAX_LOGGED: usize = 1024;

pub(super) fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
