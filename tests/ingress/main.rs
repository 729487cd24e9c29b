//! The ingress as its clients, its backends and the API see it: whole, in this process, over real
//! sockets on loopback. A file a topic; the harness is what they share.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test and its helpers end by panicking, which is how they fail"
)]

mod api;
mod architecture;
mod backend_framing;
mod backend_http2;
mod bodies;
mod custom_domains;
mod drain;
mod errors;
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
mod outliers;
mod overload;
mod platform_writes;
mod pool;
mod promises;
mod proxy_protocol;
mod rates;
mod resolving;
mod retries;
mod secrets;
mod tls;
mod tunnels;
mod verify;
