//! What is remembered of one workload.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Backend, Workload};
use crate::telemetry::load::Load;

/// A backend, as it was when it was asked for. All of it in one place, with so little beside it that very
/// many fit.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) backend: Backend,
    pub(super) load: Arc<Load>,
    pub(super) read: Instant,
    pub(super) generation: u64,
    /// When asking again last failed, in nanoseconds since it was read; zero: it never did.
    failed: AtomicU64,
}

/// That there is no such workload.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) workload: Workload,
    pub(super) read: Instant,
    pub(super) generation: u64,
}

impl Known {
    pub(super) fn new(backend: Backend, load: Arc<Load>, read: Instant, generation: u64) -> Self {
        Self {
            backend,
            load,
            read,
            generation,
            failed: AtomicU64::new(0),
        }
    }

    pub(super) fn is_of(&self, workload: &Workload) -> bool {
        self.load.is_of(workload.kind.into(), &workload.id)
    }

    /// Asking again has failed.
    pub(super) fn fail(&self) {
        let after = u64::try_from(self.read.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.failed.store(after.max(1), Ordering::Relaxed);
    }

    /// How long ago asking again failed.
    pub(super) fn failed(&self) -> Option<Duration> {
        let after = Some(self.failed.load(Ordering::Relaxed)).filter(|after| *after > 0)?;
        let after = Duration::from_nanos(after);
        Some(self.read.elapsed().saturating_sub(after))
    }
}

impl Unknown {
    pub(super) fn is_of(&self, workload: &Workload) -> bool {
        self.workload == *workload
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Held;
    use super::*;

    #[test]
    fn one_that_is_known_is_two_lines_of_the_processors_cache() {
        // Before it stand the two counts of its `Arc`.
        assert!(16 + size_of::<Held<Known>>() <= 128);
    }
}
