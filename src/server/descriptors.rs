//! File descriptors: each connection is one. What happens when they run out.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Limits;

/// Raises the soft descriptor limit to the hard one, and gives how many connections then fit.
#[must_use]
pub fn connections_that_fit(limits: &Limits, chosen_by: Chooser) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let available = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(descriptors) = available else {
        return limits.connections;
    };
    let (configured, lowered_to) = (limits.connections, limits.connections_within(descriptors));
    match chosen_by {
        _ if lowered_to == configured => {}
        Chooser::Nobody => tracing::info!(configured, lowered_to, descriptors, "{LOWERED}"),
        Chooser::Operator => tracing::warn!(configured, lowered_to, descriptors, "{LOWERED}"),
    }
    lowered_to
}

/// Who set `limits.connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    /// Whoever wrote the configuration, or left it at its default: they are warned.
    Operator,
    /// `dev`: that it is lowered is no cause for concern.
    Nobody,
}

const LOWERED: &str = "limits.connections is lowered to what the descriptor limit allows";

/// Whether `error` says that this process, or the whole system, has no descriptor left.
#[must_use]
pub fn are_used_up(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// The numbers of the last descriptors, which connections of strangers are not to take: they are for
/// the admin address, for backends of requests that are here already, and for files.
#[derive(Debug, Clone, Copy)]
pub(super) struct TheLast {
    /// The first of them; `None` where there is no limit.
    first: Option<u64>,
}

impl TheLast {
    /// Of as many as there may be now.
    pub(super) fn of_now() -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        Self {
            first: limit.map(|limit| limit - LAST.min(limit / 4)),
        }
    }

    /// Whether `descriptor` is one of them. The system gives the lowest free number, so a high one
    /// says that all below it are taken.
    pub(super) fn include(self, descriptor: &impl AsRawFd) -> bool {
        let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or(0);
        self.first.is_some_and(|first| number >= first)
    }
}

/// As many are kept from strangers; of a small limit, a quarter.
const LAST: u64 = 32;

/// Descriptors held back for the moment when there is no other.
///
/// Without one, a connection that waits could not even be accepted to be told so, and would wake its
/// listener again and again.
#[derive(Debug)]
pub(super) struct Reserve {
    size: usize,
    held: Vec<File>,
}

impl Reserve {
    /// Holds `size` descriptors back.
    pub(super) fn new(size: usize) -> Self {
        let mut reserve = Self {
            size,
            held: Vec::with_capacity(size),
        };
        reserve.refill();
        reserve
    }

    /// Gives one up, which the caller takes at once; false where none is left.
    pub(super) fn release(&mut self) -> bool {
        self.held.pop().is_some()
    }

    /// Holds back again what was given up, as far as there are descriptors for it.
    pub(super) fn refill(&mut self) {
        while self.held.len() < self.size {
            let Ok(file) = File::open("/dev/null") else {
                return;
            };
            self.held.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_given_up_one_by_one_and_filled_again() {
        let mut reserve = Reserve::new(2);
        assert!(reserve.release());
        assert!(reserve.release());
        assert!(!reserve.release());
        reserve.refill();
        assert!(reserve.release());
    }

    #[test]
    fn the_first_descriptors_are_for_everybody() {
        assert!(!TheLast::of_now().include(&io::stdin()));
    }

    #[test]
    fn running_out_is_told_from_other_errors() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(are_used_up(&error(Errno::MFILE)));
        assert!(are_used_up(&error(Errno::NFILE)));
        assert!(!are_used_up(&error(Errno::CONNABORTED)));
        assert!(!are_used_up(&io::Error::other("something else")));
    }
}
