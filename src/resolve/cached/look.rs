//! What the cache has of a workload, looked at: nothing is asked, counted or started by it.

use std::sync::Arc;
use std::time::Duration;

use super::super::freshness::{Freshness, freshness};
use super::super::{Backend, Config, Workload};
use super::Cache;
use crate::telemetry::load::Load;

/// An entry of the cache.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A backend, which requests get without waiting.
    Servable {
        /// Where it runs.
        backend: Backend,
        /// Since it was asked for.
        age: Duration,
        /// Until it is not fresh any more; none: it is stale, and asked for anew beside the next request.
        fresh_for: Option<Duration>,
    },
    /// A backend, of which the next request asks anew; it stands in where that fails.
    Expired {
        /// Where it ran.
        backend: Backend,
        /// Since it was asked for.
        age: Duration,
    },
    /// A backend that is as old, and stands in at once, because asking failed before.
    Rescued {
        /// Where it ran.
        backend: Backend,
        /// Since it was asked for.
        age: Duration,
    },
    /// That there is no such workload.
    Missing {
        /// For how long that is believed.
        fresh_for: Duration,
    },
}

impl Cache {
    /// How long it believes what.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is known of `workload`, by what was written up to `generation`.
    #[must_use]
    pub fn look(&self, workload: Workload, generation: u64) -> Option<Entry> {
        let limits = &self.config;
        let hash = self.hash(&workload);
        if let Some(known) = self.known(hash, &workload) {
            let age = known.read.elapsed();
            let backend = known.backend.clone();
            let entry = match freshness(age, limits) {
                _ if known.generation != generation => return None,
                Freshness::Fresh => Entry::Servable {
                    backend,
                    age,
                    fresh_for: Some(limits.fresh.saturating_sub(age)),
                },
                Freshness::Stale => Entry::Servable {
                    backend,
                    age,
                    fresh_for: None,
                },
                Freshness::Expired if known.failed().is_some() => Entry::Rescued { backend, age },
                Freshness::Expired => Entry::Expired { backend, age },
                Freshness::Gone => return None,
            };
            return Some(entry);
        }
        let unknown = self.unknown(hash, &workload)?;
        let fresh_for = limits.negative.checked_sub(unknown.read.elapsed())?;
        (unknown.generation == generation).then_some(Entry::Missing { fresh_for })
    }

    /// What is in flight to `workload`, if anybody counts it.
    #[must_use]
    pub fn load_of(&self, workload: Workload) -> Option<Arc<Load>> {
        self.loads.find(self.hash(&workload), &workload)
    }
}
