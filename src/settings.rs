//! Limits and timeouts: what more than one part reads, each with its default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units;

/// `[timeouts]`: every phase of a request has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// A request's head, in all; a TLS handshake and a PROXY header likewise.
    #[serde(with = "units::duration")]
    pub header: Duration,
    /// A request body that stops moving.
    #[serde(with = "units::duration")]
    pub body: Duration,
    /// Keep-alive between requests; not a tunnel.
    #[serde(with = "units::duration")]
    pub idle: Duration,
    /// Connecting to a backend or the upstream: name, TCP and TLS in all.
    #[serde(with = "units::duration")]
    pub connect: Duration,
    /// From the request sent to the response head, and a response that stops moving.
    #[serde(with = "units::duration")]
    pub response: Duration,
    /// An idle connection to a backend.
    #[serde(with = "units::duration")]
    pub pool: Duration,
    /// A WebSocket that is quiet this long is closed; zero: never.
    #[serde(with = "units::duration")]
    pub tunnel: Duration,
    /// After SIGTERM: not ready, but still accepting.
    #[serde(with = "units::duration")]
    pub drain_delay: Duration,
    /// After that: what is in flight may finish.
    #[serde(with = "units::duration")]
    pub drain: Duration,
    /// After SIGUSR2: until the new process must be ready.
    #[serde(with = "units::duration")]
    pub upgrade: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            header: seconds(10),
            body: seconds(30),
            idle: seconds(75),
            connect: seconds(5),
            response: seconds(60),
            pool: seconds(60),
            tunnel: seconds(0),
            drain_delay: seconds(0),
            drain: seconds(30),
            upgrade: seconds(60),
        }
    }
}

/// `[limits]`: everything that a stranger can make larger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The whole head of a request, in bytes.
    #[serde(with = "units::size")]
    pub header: u64,
    /// Fields in a head.
    pub headers: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams: usize,
    /// The request target, in bytes.
    #[serde(with = "units::size")]
    pub uri: u64,
    /// A streamed request body, in bytes; 0 is no limit.
    #[serde(with = "units::size")]
    pub body: u64,
    /// A form that becomes JSON is read whole: at most this many bytes.
    #[serde(with = "units::size")]
    pub form: u64,
    /// Connections of clients, in all.
    pub connections: usize,
    /// Connections of one address.
    pub per_peer: usize,
    /// Requests in flight and tunnels to one app or function.
    pub per_workload: usize,
    /// Pipes by which large bodies go past this process, in all; 0: none does.
    pub pipes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: 32 << 10,
            headers: 128,
            streams: 128,
            uri: 16 << 10,
            body: 1 << 30,
            form: 1 << 20,
            connections: 65_536,
            per_peer: 1024,
            per_workload: 512,
            pipes: 64,
        }
    }
}

impl Limits {
    /// Files that are open beside connections: listeners, the store, logs. Of a small limit, half.
    const OTHER_DESCRIPTORS: u64 = 128;

    /// As many connections as a process can hold that may open so many files: each may need one
    /// for the client and one for a backend.
    #[must_use]
    pub fn connections_within(&self, descriptors: u64) -> usize {
        let others = Self::OTHER_DESCRIPTORS.min(descriptors / 2);
        let pairs = (descriptors - others) / 2;
        usize::try_from(pairs)
            .unwrap_or(usize::MAX)
            .clamp(1, self.connections.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_descriptors() {
        let limits = Limits::default();
        assert_eq!(limits.connections_within(1024), 448);
        assert_eq!(limits.connections_within(64), 16);
        assert_eq!(limits.connections_within(1 << 20), limits.connections);
        assert_eq!(limits.connections_within(0), 1);
    }
}
