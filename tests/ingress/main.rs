//! The ingress as its clients, its backends and the API see it: whole, in this process, over real
//! sockets on loopback. A file a topic; the harness is what they share.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test and its helpers end by panicking, which is how they fail"
)]

mod access_log;
mod api;
mod architecture;
mod backend_framing;
mod backend_http2;
mod bodies;
mod control;
mod custom_domains;
mod drain;
mod errors;
mod explain;
mod faults;
mod forwarding;
mod framing;
mod functions;
mod half_closed;
mod harness;
mod hop_by_hop;
mod hosts;
mod http2;
mod https_only;
mod index;
mod limits;
mod links;
mod metrics;
mod outliers;
mod overload;
mod platform_writes;
mod pool;
mod promises;
mod proxy_protocol;
mod rates;
mod reload;
mod resolving;
mod retries;
mod secrets;
mod tls;
mod traces;
mod tunnels;
mod verify;
