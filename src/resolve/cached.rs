//! A cache before a resolver: fresh, stale while one revalidates, stale on error, negative, and
//! one call for all who wait. moka stores; age is judged by tokio's clock.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::freshness::{Freshness, freshness};
use super::{Answer, Backend, Config, Error, Resolve, Workload};
use crate::telemetry::load::Load;
use crate::telemetry::metrics::{CacheResult, Metrics, Shed};

mod look;

pub use look::Entry;

/// What is known about backends, shared by all workers.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    known: moka::sync::Cache<Workload, Known>,
    /// Apart, so that made-up names never push known ones out.
    unknown: moka::sync::Cache<Workload, Unknown>,
    /// Locked only where the cache has no answer.
    flights: Arc<Mutex<HashMap<FlightKey, Flight>>>,
    /// Places for questions that leave the process, an [`Asker`] each.
    places: [Arc<Semaphore>; Asker::COUNT],
    /// Outlive their entries while requests are in flight: a backend that was pushed out of the cache
    /// does not become idle by that. Locked only where the cache had no answer.
    loads: Arc<Mutex<HashMap<Workload, Weak<Load>>>>,
    metrics: Arc<Metrics>,
}

/// A question that is under way.
type Flight = watch::Receiver<Option<Answer>>;

/// A flight is joined only by who would see the same writes.
type FlightKey = (Workload, u64);

#[derive(Debug, Clone)]
struct Known {
    backend: Arc<Backend>,
    load: Arc<Load>,
    read: Instant,
    generation: u64,
    /// When asking again last failed.
    failed: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Unknown {
    read: Instant,
    generation: u64,
}

/// A workload's backend, and how the cache came by it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it runs.
    pub backend: Arc<Backend>,
    /// What is in flight to it.
    pub load: Arc<Load>,
    /// What the cache had.
    pub cache: CacheResult,
}

/// Names that do not exist are remembered for seconds: more than these are forgotten early.
const MAX_UNKNOWN: u64 = 10_000;

/// After asking failed, known backends are served this long before asking again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self::empty(config, metrics, Arc::default()))
    }

    fn empty(
        config: Config,
        metrics: Arc<Metrics>,
        loads: Arc<Mutex<HashMap<Workload, Weak<Load>>>>,
    ) -> Self {
        Self {
            places: places(&config),
            known: moka::sync::Cache::new(config.capacity),
            unknown: moka::sync::Cache::new(config.capacity.min(MAX_UNKNOWN)),
            flights: Arc::default(),
            loads,
            metrics,
            config,
        }
    }

    /// What is known, judged by another `config` from now on. How much is held stays as it was.
    #[must_use]
    pub fn judged_by(self: &Arc<Self>, config: &Config) -> Arc<Self> {
        if self.config == *config {
            return Arc::clone(self);
        }
        let places = match self.config.lookups == config.lookups {
            true => self.places.clone(),
            false => places(config),
        };
        Arc::new(Self {
            config: config.clone(),
            known: self.known.clone(),
            unknown: self.unknown.clone(),
            flights: Arc::clone(&self.flights),
            places,
            loads: Arc::clone(&self.loads),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// An empty cache for what somebody else answers. What is in flight to a workload is still counted.
    #[must_use]
    pub fn forgotten(&self, config: &Config) -> Arc<Self> {
        let (metrics, loads) = (Arc::clone(&self.metrics), Arc::clone(&self.loads));
        Arc::new(Self::empty(config.clone(), metrics, loads))
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<Workload, Weak<Load>>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one load of `workload`, whether or not its backend is in the cache.
    fn load(&self, workload: Workload) -> Arc<Load> {
        let mut loads = self.loads();
        if let Some(load) = loads.get(&workload).and_then(Weak::upgrade) {
            return load;
        }
        if loads.len() == loads.capacity() {
            // Room for as many again, so that this is rare.
            loads.retain(|_, load| load.strong_count() > 0);
            let held = loads.len();
            loads.reserve(held.max(64));
        }
        let load = self.metrics.load(workload.kind.into(), workload.id);
        loads.insert(workload, Arc::downgrade(&load));
        load
    }

    fn is_known_missing(&self, workload: &Workload, generation: u64) -> bool {
        self.unknown.get(workload).is_some_and(|unknown| {
            unknown.generation == generation && unknown.read.elapsed() < self.config.negative
        })
    }

    fn store(&self, workload: Workload, generation: u64, asked: Instant, answer: &Answer) {
        let before = self.known.get(&workload);
        if before
            .as_ref()
            .is_some_and(|known| known.generation > generation)
        {
            return;
        }
        match answer {
            Ok(backend) => {
                let known = Known {
                    backend: Arc::clone(backend),
                    load: self.load(workload),
                    read: asked,
                    generation,
                    failed: None,
                };
                self.known.insert(workload, known);
                self.unknown.invalidate(&workload);
            }
            Err(error) if matches!(**error, Error::Unknown) => {
                let unknown = Unknown {
                    read: asked,
                    generation,
                };
                self.known.invalidate(&workload);
                self.unknown.insert(workload, unknown);
            }
            Err(_) => {
                // An error is not an answer: what was known stays known.
                if let Some(known) = before {
                    let failed = Some(Instant::now());
                    self.known.insert(workload, Known { failed, ..known });
                }
            }
        }
    }
}

fn places(config: &Config) -> [Arc<Semaphore>; Asker::COUNT] {
    let places = config.lookups.min(Semaphore::MAX_PERMITS);
    std::array::from_fn(|_asker| Arc::new(Semaphore::new(places)))
}

/// A resolver behind the cache, on one worker.
#[derive(Debug)]
pub struct Cached<R> {
    cache: Arc<Cache>,
    resolver: Rc<R>,
    tasks: TaskTracker,
}

impl<R: Resolve + 'static> Cached<R> {
    /// Puts `cache` before `resolver`. Calls run as tasks of their own on `tasks`.
    #[must_use]
    pub fn new(cache: Arc<Cache>, resolver: Rc<R>, tasks: TaskTracker) -> Self {
        Self {
            cache,
            resolver,
            tasks,
        }
    }

    /// The backend of `workload`: at once where it is known, else by the one call that all wait for.
    ///
    /// # Errors
    /// Where there is no such workload, or that cannot be told; with what the cache had.
    pub async fn resolve(&self, workload: Workload) -> Result<Found, (Arc<Error>, CacheResult)> {
        // Read before anything else: an answer is never newer than the generation it carries.
        let generation = self.resolver.generation();
        let known = self.cache.known.get(&workload);
        if let Some(known) = &known {
            if let Some(cache) = self.servable(workload, known, generation) {
                return Ok(known.found(cache));
            }
        } else if self.cache.is_known_missing(&workload, generation) {
            return Err((Arc::new(Error::Unknown), CacheResult::Negative));
        }
        let asker = if known.is_some() {
            Asker::Refresh
        } else {
            Asker::Stranger
        };
        match self.fly(workload, generation, asker).await {
            Ok(backend) => Ok(Found {
                backend,
                load: self.cache.load(workload),
                cache: CacheResult::Miss,
            }),
            Err(error) => match known {
                Some(known) if self.rescues(&known, &error, generation) => {
                    Ok(known.found(CacheResult::Rescued))
                }
                _ => {
                    if matches!(*error, Error::Busy) {
                        self.cache.metrics.shed(Shed::Lookups);
                    }
                    Err((error, CacheResult::Miss))
                }
            },
        }
    }

    /// Whether `known` stands in for the answer that `error` is not.
    fn rescues(&self, known: &Known, error: &Error, generation: u64) -> bool {
        let may = match error {
            Error::Unknown => false,
            // Nobody was asked: what was read before a write is no answer after it.
            Error::Busy => known.generation == generation,
            Error::Upstream(_) | Error::BadBackend(_) | Error::Abandoned => true,
        };
        may && self.age(known) != Freshness::Gone
    }

    /// Whether `known` may be served without waiting, and as what. Starts the refresh it needs.
    fn servable(&self, workload: Workload, known: &Known, generation: u64) -> Option<CacheResult> {
        let failed = known.failed.map(|failed| failed.elapsed());
        let result = match self.age(known) {
            _ if known.generation != generation => return None,
            Freshness::Fresh => return Some(CacheResult::Fresh),
            Freshness::Stale => CacheResult::Stale,
            // Nobody waits for an API that was down a moment ago.
            Freshness::Expired if failed.is_some() => CacheResult::Rescued,
            Freshness::Expired | Freshness::Gone => return None,
        };
        if failed.is_none_or(|failed| failed >= RETRY_PAUSE) {
            // What cannot be asked now is asked by a later request.
            drop(self.launch(workload, generation, Asker::Refresh));
        }
        Some(result)
    }

    fn age(&self, known: &Known) -> Freshness {
        freshness(known.read.elapsed(), &self.cache.config)
    }

    async fn fly(&self, workload: Workload, generation: u64, asker: Asker) -> Answer {
        let Some(mut flight) = self.launch(workload, generation, asker) else {
            return Err(Arc::new(Error::Busy));
        };
        match flight.wait_for(Option::is_some).await {
            Ok(landed) => landed
                .clone()
                .unwrap_or_else(|| Err(Arc::new(Error::Abandoned))),
            Err(_) => Err(Arc::new(Error::Abandoned)),
        }
    }

    /// Joins the flight for `workload`, or starts it as a task that nobody's leaving ends; `None`
    /// where too many are under way.
    fn launch(&self, workload: Workload, generation: u64, asker: Asker) -> Option<Flight> {
        let key = (workload, generation);
        let mut flights = self.cache.flights();
        // One whose thread is gone without an answer is none.
        if let Some(flight) = flights.get(&key)
            && flight.has_changed().is_ok()
        {
            return Some(flight.clone());
        }
        let place = if self.resolver.is_local() {
            None
        } else {
            let places = Arc::clone(&self.cache.places[asker as usize]);
            Some(places.try_acquire_owned().ok()?)
        };
        let (land, flight) = watch::channel(None);
        flights.insert(key, flight.clone());
        drop(flights);

        let landing = Landing {
            cache: Arc::clone(&self.cache),
            key,
            land: Some(land),
            place,
        };
        let resolver = Rc::clone(&self.resolver);
        let asking = async move {
            let asked = Instant::now();
            let answer = resolver
                .resolve(workload)
                .await
                .map(Arc::new)
                .map_err(Arc::new);
            landing.cache.store(workload, generation, asked, &answer);
            landing.end(answer);
        };
        let metrics = Arc::clone(&self.cache.metrics);
        // Those who wait see that nobody is going to answer.
        let asking = AssertUnwindSafe(asking).catch_unwind().map(move |outcome| {
            if outcome.is_err() {
                metrics.panics.inc();
            }
        });
        self.tasks.spawn_local(asking);
        Some(flight)
    }
}

/// On whose behalf the API is asked. Each has places of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// Somebody who names what we do not know: anybody can make up such names.
    Stranger,
    /// What we know and must not lose.
    Refresh,
}

impl Asker {
    const COUNT: usize = 2;
}

impl Known {
    fn found(&self, cache: CacheResult) -> Found {
        Found {
            backend: Arc::clone(&self.backend),
            load: Arc::clone(&self.load),
            cache,
        }
    }
}

/// The end of a flight, which it has even if it crashes.
struct Landing {
    cache: Arc<Cache>,
    key: FlightKey,
    land: Option<watch::Sender<Option<Answer>>>,
    /// Free again when the flight has ended; none where there is no bound.
    place: Option<OwnedSemaphorePermit>,
}

impl Landing {
    fn end(mut self, answer: Answer) {
        // First out of the list, then answered: who comes now finds the cache filled and the place free.
        self.cache.flights().remove(&self.key);
        drop(self.place.take());
        if let Some(land) = self.land.take() {
            land.send_replace(Some(answer));
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.land.take().is_none() {
            return;
        }
        let mut flights = self.cache.flights();
        // A newer flight under the same key may have begun since ours was seen to be gone.
        if flights
            .get(&self.key)
            .is_some_and(|flight| flight.has_changed().is_err())
        {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
