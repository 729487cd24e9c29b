//! Certificates from authorities that were not written here: Pebble, the test server of Let's Encrypt,
//! and named, a name server that takes updates. Everything on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test may fail the test"
)]

mod authority;
mod challenges;
mod custom_domains;
mod directory;
mod end_to_end;
mod failures;
mod front;
mod name_server;
mod on_demand;
mod ours;
mod renewal;
mod running;
mod upgrade;
mod whole;
