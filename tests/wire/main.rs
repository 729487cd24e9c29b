//! Our reading of HTTP/1.1 held against hyper's, what is written against what is read, and every
//! seed of the fuzzer against its check.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test and its helpers end by panicking, which is how they fail"
)]

#[path = "../../fuzz/src/lib.rs"]
pub mod checks;
mod differences;
mod messages;
mod passing;
mod readings;
mod round_trip;
mod seeds;
mod written;
