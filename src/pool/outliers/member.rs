//! One address of several, as those see it who dial it and ask it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::Outliers;
use super::group::{Address, Group};
use crate::pool::eyeballs::ATTEMPT_DELAY;

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

/// Who asks for a connection, for all the attempts that are made at once.
#[derive(Debug, Clone)]
pub(in crate::pool) struct Dial {
    /// Until then it may take.
    late: Instant,
    /// What an attempt is given before its silence says anything: as long as it is alone, but not all
    /// of the time that there is.
    patience: Duration,
    /// Whether one of its attempts has connected.
    won: Rc<Cell<bool>>,
}

impl Dial {
    /// One that begins now, and may take so long.
    pub(in crate::pool) fn within(timeout: Duration) -> Self {
        Self {
            late: Instant::now() + timeout,
            patience: ATTEMPT_DELAY.min(timeout / 2),
            won: Rc::default(),
        }
    }

    /// An attempt that begins now.
    pub(in crate::pool) fn attempt(&self, member: Option<Member>) -> Attempt {
        Attempt {
            member,
            began: Instant::now(),
            dial: self.clone(),
            has_connected: false,
        }
    }
}

/// An attempt to connect to an address.
///
/// Dropped, it was given up. It has failed if it had its time, and another one of its dial connected or the
/// time of that is over. Else nobody knows: whoever wanted the connection may have left.
#[derive(Debug)]
pub(in crate::pool) struct Attempt {
    member: Option<Member>,
    began: Instant,
    dial: Dial,
    has_connected: bool,
}

impl Attempt {
    /// It is the first that has connected, and TLS and the server's first words are to come.
    pub(in crate::pool) fn connected(mut self) -> Self {
        self.dial.won.set(true);
        self.has_connected = true;
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

    /// There is none, through no fault of the address.
    pub(in crate::pool) fn unknown(mut self) {
        self.member = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(member) = self.member.take() else {
            return;
        };
        let now = Instant::now();
        let is_beaten = self.dial.won.get() && !self.has_connected;
        let had_its_time = now - self.began >= self.dial.patience;
        if had_its_time && (is_beaten || now >= self.dial.late) {
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
