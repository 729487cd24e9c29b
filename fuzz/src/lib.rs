//! What must hold for any bytes: one check for each target of the fuzzer.
//!
//! The targets run them on what the fuzzer makes up; `tests/wire` runs them on the seeds, and the
//! comparison with hyper on messages that proptest makes up.

pub mod config;
pub mod headers;
pub mod host;
pub mod location;
pub mod parameters;
pub mod proxy_protocol;
pub mod request;
pub mod response;
pub mod route;
pub mod target;
mod text;
pub mod wire;
