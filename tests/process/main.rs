//! The program as its user has it: the built binary, its command line, its signals, its files, and
//! judges that were not written here: curl, nghttp, the official JavaScript client, a browser, a mail server,
//! promtool.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test may fail the test"
)]

mod access_log;
mod balancer;
mod browser;
mod caller;
mod control;
mod dev;
mod durability;
mod grpc;
mod http2;
mod javascript;
mod mail;
mod memory;
mod metrics;
mod overload;
mod process;
mod reload;
mod run;
mod secrets;
mod server;
mod signals;
mod systemd;
mod tools;
mod upgrade;
