//! M3O Ingress: the single front door of an app platform.
//!
//! The house, from the ground up; a module imports only from floors below its own.
//!
//! - **Words**, no I/O, no clock but in new ids: [`address`], [`host`], [`id`], [`credentials`],
//!   [`destination`], [`domains`], [`closed`], [`hosts`], [`units`], [`settings`], [`stamp`], [`causes`].
//! - **Parts**, each works alone: [`wire`], [`rates`], [`telemetry`], [`tls`], [`pool`], [`acme`], [`server`],
//!   [`mail`], [`otlp`], [`upstream`], [`resolve`].
//! - **Handlers**, which never name each other: [`proxy`], [`admin`], [`platform`].
//! - **Assembly**: [`config`], [`control`], `secrets`, [`ingress`].
//! - The binary, on top: `main.rs` and `cli/`.
//!
//! Four words are never mixed: the *client* talks to the *ingress*, which asks the *upstream* (the
//! M3O API) and forwards to a *backend* (the server of an app or function).

pub mod address;
pub mod causes;
pub mod closed;
pub mod credentials;
pub mod destination;
pub mod domains;
pub mod host;
pub mod hosts;
pub mod id;
pub mod settings;
pub mod stamp;
pub mod units;

pub mod acme;
pub mod mail;
pub mod otlp;
pub mod pool;
pub mod rates;
pub mod resolve;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wire;

pub mod admin;
pub mod platform;
pub mod proxy;

pub mod config;
pub mod control;
pub mod ingress;
mod secrets;
