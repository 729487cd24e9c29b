//! A cache before a resolver: fresh, stale while one revalidates, stale on error, negative, and
//! one call for all who wait. Age is judged by tokio's clock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::freshness::{Freshness, freshness};
use super::{Backend, Config, Error, Resolve, Workload};
use crate::telemetry::load::Load;
use crate::telemetry::metrics::{CacheResult, Metrics, Shed};
use known::{Known, Unknown};
use loads::Loads;
use table::{Held, Table};

mod known;
mod loads;
mod look;
mod table;

pub use look::Entry;

/// What is known about backends, shared by all workers.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    /// With a secret in it, so that nobody can choose names that get in each other's way.
    hasher: RandomState,
    known: Arc<Table<Known>>,
    /// Apart, so that made-up names never push known ones out.
    unknown: Arc<Table<Unknown>>,
    /// Locked only where the cache has no answer.
    flights: Arc<Mutex<HashMap<FlightKey, Flight>>>,
    /// Places for questions that leave the process, an [`Asker`] each.
    places: [Arc<Semaphore>; Asker::COUNT],
    loads: Arc<Loads>,
    metrics: Arc<Metrics>,
}

/// A question that is under way.
type Flight = watch::Receiver<Option<Answer>>;

/// A flight is joined only by who would see the same writes.
type FlightKey = (Workload, u64);

/// One answer, shared by all who waited for it.
type Answer = Result<Arc<Held<Known>>, Arc<Error>>;

/// A workload's backend, and how the cache came by it.
#[derive(Debug, Clone)]
pub struct Found {
    known: Arc<Held<Known>>,
    /// What the cache had.
    pub cache: CacheResult,
}

impl Found {
    /// Where it runs.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.known.backend
    }

    /// What is in flight to it.
    #[must_use]
    pub fn load(&self) -> &Arc<Load> {
        &self.known.load
    }
}

/// Names that do not exist are remembered for seconds: more than these are forgotten early.
const MAX_UNKNOWN: u64 = 10_000;

/// After asking failed, known backends are served this long before asking again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Arc<Self> {
        let loads = Arc::new(Loads::new(config.capacity, Arc::clone(&metrics)));
        Arc::new(Self::empty(config, metrics, loads, RandomState::new()))
    }

    fn empty(
        config: Config,
        metrics: Arc<Metrics>,
        loads: Arc<Loads>,
        hasher: RandomState,
    ) -> Self {
        Self {
            hasher,
            places: places(&config),
            known: Arc::new(Table::new(config.capacity)),
            unknown: Arc::new(Table::new(config.capacity.min(MAX_UNKNOWN))),
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
            hasher: self.hasher.clone(),
            known: Arc::clone(&self.known),
            unknown: Arc::clone(&self.unknown),
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
        let hasher = self.hasher.clone();
        Arc::new(Self::empty(config.clone(), metrics, loads, hasher))
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, workload: &Workload) -> u64 {
        self.hasher.hash_one(workload)
    }

    fn known(&self, hash: u64, workload: &Workload) -> Option<Arc<Held<Known>>> {
        self.known.find(hash, |known| known.is_of(workload))
    }

    fn unknown(&self, hash: u64, workload: &Workload) -> Option<Arc<Held<Unknown>>> {
        self.unknown.find(hash, |unknown| unknown.is_of(workload))
    }

    fn is_known_missing(&self, hash: u64, workload: &Workload, generation: u64) -> bool {
        self.unknown(hash, workload).is_some_and(|unknown| {
            unknown.generation == generation && unknown.read.elapsed() < self.config.negative
        })
    }

    /// Keeps what was `asked` for then, unless it knows better.
    fn store(
        &self,
        workload: &Workload,
        generation: u64,
        asked: Instant,
        answer: Result<Backend, Error>,
    ) -> Answer {
        let hash = self.hash(workload);
        let before = self.known(hash, workload);
        let knows_better = before
            .as_ref()
            .is_some_and(|known| known.generation > generation);
        match answer {
            Ok(backend) => {
                let load = match &before {
                    Some(known) => Arc::clone(&known.load),
                    None => self.loads.of(hash, workload),
                };
                let known = Held::new(hash, Known::new(backend, load, asked, generation));
                if !knows_better {
                    let new = Arc::clone(&known);
                    self.known.put(new, |known| known.is_of(workload));
                    self.unknown.remove(hash, |unknown| unknown.is_of(workload));
                }
                Ok(known)
            }
            Err(Error::Unknown) => {
                if !knows_better {
                    let unknown = Unknown {
                        workload: *workload,
                        read: asked,
                        generation,
                    };
                    self.known.remove(hash, |known| known.is_of(workload));
                    let new = Held::new(hash, unknown);
                    self.unknown.put(new, |unknown| unknown.is_of(workload));
                }
                Err(Arc::new(Error::Unknown))
            }
            Err(error) => {
                // An error is not an answer: what was known stays known.
                if let Some(known) = before.filter(|_| !knows_better) {
                    known.fail();
                }
                Err(Arc::new(error))
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
        let hash = self.cache.hash(&workload);
        let known = self.cache.known(hash, &workload);
        if let Some(known) = &known {
            if let Some(cache) = self.servable(workload, known, generation) {
                return Ok(Found {
                    known: Arc::clone(known),
                    cache,
                });
            }
        } else if self.cache.is_known_missing(hash, &workload, generation) {
            return Err((Arc::new(Error::Unknown), CacheResult::Negative));
        }
        let asker = if known.is_some() {
            Asker::Refresh
        } else {
            Asker::Stranger
        };
        match self.fly(workload, generation, asker).await {
            Ok(known) => Ok(Found {
                known,
                cache: CacheResult::Miss,
            }),
            Err(error) => match known {
                Some(known) if self.rescues(&known, &error, generation) => Ok(Found {
                    known,
                    cache: CacheResult::Rescued,
                }),
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
        let result = match self.age(known) {
            _ if known.generation != generation => return None,
            Freshness::Fresh => return Some(CacheResult::Fresh),
            Freshness::Stale => CacheResult::Stale,
            // Nobody waits for an API that was down a moment ago.
            Freshness::Expired if known.failed().is_some() => CacheResult::Rescued,
            Freshness::Expired | Freshness::Gone => return None,
        };
        if known.failed().is_none_or(|failed| failed >= RETRY_PAUSE) {
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
            let answer = resolver.resolve(workload).await;
            let answer = landing.cache.store(&workload, generation, asked, answer);
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
