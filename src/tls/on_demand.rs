//! What asks for a certificate while a client waits for it.

use std::fmt::Debug;
use std::net::IpAddr;

use tokio::sync::oneshot;

/// Finds certificates for names that the keyring does not have.
///
/// Asked on a worker during a handshake: it only takes the question, and works elsewhere.
pub trait OnDemand: Send + Sync + Debug {
    /// A client at `peer` wants to speak with `name`, which is in lower case.
    fn ask(&self, name: &str, peer: IpAddr) -> Asked;
}

/// What became of the question.
#[derive(Debug)]
pub enum Asked {
    /// There will be no certificate for that name.
    Unknown,
    /// Once this ends, in whichever way, the keyring is worth another look.
    Wait(oneshot::Receiver<()>),
}
