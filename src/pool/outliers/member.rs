//! One address of several, as those see it who dial it and ask it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use tokio::time::Instant;

use super::Outliers;
use super::group::{Address, Group};

/// An address that is watched. Held by each connection to it.
#[derive(Debug, Clone)]
pub(in crate::pool) struct Member {
    outliers: Arc<Outliers>,
    group: Arc<Group>,
    address: Arc<Address>,
}

impl Member {
    pub(super) fn new(outliers: &Arc<Outliers>, group: &Arc<Group>, address: Arc<Address>) -> Self {
        Self {
            outliers: Arc::clone(outliers),
            group: Arc::clone(group),
            address,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address.socket
    }

    /// Whether it is left out now.
    pub(in crate::pool) fn is_out(&self) -> bool {
        self.address.out.load(Ordering::Relaxed)
    }

    /// The head of a response came from it.
    pub(in crate::pool) fn answered(&self, status: StatusCode) {
        if self.outliers.config.status && status.is_server_error() {
            self.failed();
        } else if self.address.failures.load(Ordering::Relaxed) > 0 {
            self.address.failures.store(0, Ordering::Relaxed);
        }
    }

    /// No connection to it could be made, or no response came over one.
    pub(in crate::pool) fn failed(&self) {
        let config = &self.outliers.config;
        if !config.enabled || self.is_out() {
            return;
        }
        let failures = self.address.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= config.failures {
            self.group.eject(&self.address, failures, &self.outliers);
        }
    }
}

/// An attempt to connect to an address. Given up after its time, it has failed; earlier, nobody knows: another
/// address may have been quicker, or whoever wanted the connection has left.
#[derive(Debug)]
pub(in crate::pool) struct Attempt {
    member: Option<Member>,
    late: Instant,
}

impl Attempt {
    /// One that is late at a certain time.
    pub(in crate::pool) fn new(member: Option<Member>, late: Instant) -> Self {
        Self { member, late }
    }

    /// The same, late at another time.
    pub(in crate::pool) fn until(mut self, late: Instant) -> Self {
        self.late = late;
        self
    }

    /// There is a connection. Whether it is good for anything its first response says.
    pub(in crate::pool) fn succeeded(mut self) -> Option<Member> {
        self.member.take()
    }

    /// There is none.
    pub(in crate::pool) fn failed(mut self) {
        if let Some(member) = self.member.take() {
            member.failed();
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(member) = self.member.take()
            && Instant::now() >= self.late
        {
            member.failed();
        }
    }
}

/// Where a request has gone, for whoever waits for its response.
#[derive(Default)]
pub(in crate::pool) struct Asked(Cell<Option<Member>>);

impl Asked {
    /// It goes to `member` now.
    pub(in crate::pool) fn goes_to(&self, member: Option<&Member>) {
        if let Some(member) = member {
            self.0.set(Some(member.clone()));
        }
    }

    /// No response came in time.
    pub(in crate::pool) fn took_too_long(&self) {
        if let Some(member) = self.0.take() {
            member.failed();
        }
    }
}
