//! Requests by app: the busiest have series of their own, all others are counted as `other`.
//!
//! Each app counts in a slot, many in that of the others. Who has a slot of its own is decided anew
//! before a scrape, not more often than every few seconds, by how many requests ended of late. A request
//! is counted once, in the slot that its app has when it ends, and what was counted in a slot stays where
//! it was shown: so no series ever goes down, `other` neither, and the rates of all of them add up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use prometheus::proto::MetricFamily;
use tokio::time::Instant;

use super::labels::AppKind;
use super::load::Load;
use super::metrics::Config;
use super::requests::{CLASSES, class};
use super::shards::Sharded;
use crate::id::WorkloadId;

mod shown;

/// An app or a function, as its series name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct App {
    pub(super) kind: AppKind,
    pub(super) id: WorkloadId,
}

impl AppKind {
    /// Where those are counted that have no slot of their own.
    fn common_slot(self) -> u32 {
        self as u32
    }
}

impl App {
    /// Where it is counted until it has a slot of its own.
    pub(super) fn common_slot(self) -> u32 {
        self.kind.common_slot()
    }
}

/// The most apps that can have series of their own.
pub const MOST_APPS: usize = 1000;

/// The label of all that have none of their own. An app of this name is always one of them.
const OTHER: &str = "other";

/// Not more often than this is it decided who has series of their own.
const RANK_EVERY: Duration = Duration::from_secs(10);

/// Apps that had series, and go on with them when they have some again. The oldest are forgotten, and
/// begin at zero like after a restart.
const REMEMBERED: usize = 1024;

/// What is counted of apps.
#[derive(Debug)]
pub(super) struct Apps {
    /// Of each kind the common one, then those of single apps, made when they are needed.
    slots: Box<[OnceLock<Sharded<Cells>>]>,
    /// The loads that came since they were last ranked.
    fresh: Mutex<Vec<Weak<Load>>>,
    /// Held by who scrapes.
    ranking: Mutex<Ranking>,
}

/// A cache line of one slot.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells([AtomicU64; Totals::COUNT]);

/// What a slot has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals([u64; Self::COUNT]);

impl Totals {
    /// Requests of each class, the time they took, and the octets of their bodies.
    const COUNT: usize = CLASSES.len() + 3;
    const TOOK: usize = CLASSES.len();
    const RECEIVED: usize = Self::TOOK + 1;
    const SENT: usize = Self::TOOK + 2;

    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|index| {
            self.0[index].wrapping_add(other.0[index])
        }))
    }

    /// What came since it was `before`.
    fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|index| {
            self.0[index].wrapping_sub(before.0[index])
        }))
    }
}

/// A request of an app that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) status: u16,
    /// In nanoseconds.
    pub(super) took: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
}

#[derive(Debug)]
struct Ranking {
    apps: usize,
    always: Vec<WorkloadId>,
    candidates: Vec<Candidate>,
    labelled: Vec<Labelled>,
    /// Slots that had an app, the one that has rested for longest first.
    free: VecDeque<Free>,
    /// Slots that were never used.
    unused: u32,
    /// What `other` has had from slots that are in use again.
    others: [Totals; AppKind::ALL.len()],
    remembered: VecDeque<(App, Totals)>,
    ranked: Option<Instant>,
    round: u64,
}

/// An app that requests come for.
#[derive(Debug)]
struct Candidate {
    load: Weak<Load>,
    /// How many it had been served when it was last looked at.
    seen: u64,
    score: u64,
}

/// An app with a slot of its own.
#[derive(Debug)]
struct Labelled {
    app: App,
    /// Held, so that it is found again when the app was pushed out of the cache. There may be several,
    /// when one cache took the place of another.
    loads: Vec<Arc<Load>>,
    slot: u32,
    /// What the slot had counted before it was this app's.
    before: Totals,
    /// What the app was shown to have before it had this slot.
    base: Totals,
    score: u64,
}

/// A slot without an app. What a slow thread still counts there belongs to the others.
#[derive(Debug)]
struct Free {
    slot: u32,
    kind: AppKind,
    /// What it had counted when its app lost it.
    counted: Totals,
    round: u64,
}

impl Apps {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..AppKind::ALL.len() + 2 * MOST_APPS)
                .map(|_slot| OnceLock::new())
                .collect(),
            fresh: Mutex::default(),
            ranking: Mutex::new(Ranking {
                apps: 0,
                always: Vec::new(),
                candidates: Vec::new(),
                labelled: Vec::new(),
                free: VecDeque::new(),
                unused: u32::try_from(AppKind::ALL.len()).unwrap_or(u32::MAX),
                others: Default::default(),
                remembered: VecDeque::new(),
                ranked: None,
                round: 0,
            }),
        }
    }

    /// Goes by `config` from the next scrape on.
    pub(super) fn follow(&self, config: &Config) {
        let mut ranking = self.ranking();
        ranking.apps = config.apps.min(MOST_APPS);
        ranking.always.clone_from(&config.always);
        ranking.ranked = None;
    }

    /// The load of an app that exists, which is counted from now on.
    pub(super) fn load(&self, kind: AppKind, id: WorkloadId) -> Arc<Load> {
        let load = Arc::new(Load::of(App { kind, id }));
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.len() == fresh.capacity() {
            // Where nobody scrapes, this is what bounds them.
            fresh.retain(|load| load.strong_count() > 0);
            let held = fresh.len();
            fresh.reserve(held.max(64));
        }
        fresh.push(Arc::downgrade(&load));
        load
    }

    /// Counts a request where its app is counted now.
    pub(super) fn served(&self, load: &Load, served: Served) {
        load.serve();
        let slot = self.slot(load.slot()).mine();
        let add = |index: usize, more: u64| slot.add(|cells| &cells.0[index], more);
        add(class(served.status), 1);
        add(Totals::TOOK, served.took);
        add(Totals::SENT, served.sent);
        if served.received > 0 {
            add(Totals::RECEIVED, served.received);
        }
    }

    /// All series as they are now, for the apps that are the busiest.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let mut ranking = self.ranking();
        let due = |ranked: Instant| ranked.elapsed() >= RANK_EVERY;
        if ranking.ranked.is_none_or(due) {
            self.rank(&mut ranking);
            ranking.ranked = Some(Instant::now());
        }
        shown::families(&self.shown(&ranking))
    }

    fn ranking(&self) -> MutexGuard<'_, Ranking> {
        self.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, slot: u32) -> &Sharded<Cells> {
        self.slots[slot as usize].get_or_init(Sharded::new)
    }

    fn counted(&self, slot: u32) -> Totals {
        let cells = self.slot(slot);
        Totals(std::array::from_fn(|index| {
            cells.sum(|cells| cells.0[index].load(Ordering::Relaxed))
        }))
    }

    /// What each series shows: those of the others first.
    fn shown<'r>(&self, ranking: &'r Ranking) -> Vec<(AppKind, &'r str, Totals)> {
        let others = AppKind::ALL.map(|kind| (kind, OTHER, self.others(ranking, kind)));
        let labelled = ranking.labelled.iter().map(|labelled| {
            let App { kind, id } = &labelled.app;
            (*kind, id.as_str(), self.total(labelled))
        });
        others.into_iter().chain(labelled).collect()
    }

    fn others(&self, ranking: &Ranking, kind: AppKind) -> Totals {
        let common = self.counted(kind.common_slot());
        let free = ranking.free.iter().filter(|free| free.kind == kind);
        let late = free.map(|free| self.counted(free.slot).since(free.counted));
        late.fold(common.plus(ranking.others[kind as usize]), Totals::plus)
    }

    fn total(&self, labelled: &Labelled) -> Totals {
        let own = self.counted(labelled.slot).since(labelled.before);
        labelled.base.plus(own)
    }

    /// Decides who is counted apart.
    fn rank(&self, ranking: &mut Ranking) {
        ranking.round += 1;
        let fresh = {
            // Not for longer: whoever meets a new app waits for it.
            let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *fresh)
        };
        let fresh = fresh.into_iter().map(|load| Candidate {
            load,
            seen: 0,
            score: 0,
        });
        ranking.candidates.extend(fresh);
        let mut challengers = ranking.look();

        let most = ranking.apps;
        ranking.labelled.sort_by_key(|labelled| labelled.score);
        while ranking.labelled.len() > most {
            self.fold(ranking);
        }
        // The best first, and no more than could get in.
        let better = |one: &Challenger, other: &Challenger| other.score.cmp(&one.score);
        if challengers.len() > most && most > 0 {
            challengers.select_nth_unstable_by(most - 1, better);
            challengers.truncate(most);
        }
        challengers.sort_unstable_by(better);
        for challenger in challengers {
            if ranking.join(&challenger) {
                continue;
            }
            if ranking.labelled.len() >= most {
                // Twice as busy, so that two that are alike do not take turns.
                let weakest = ranking.labelled.first().map(|weakest| weakest.score);
                if weakest.is_none_or(|weakest| challenger.score / 2 < weakest.max(1)) {
                    return;
                }
                self.fold(ranking);
            }
            self.tell_apart(ranking, challenger);
        }
    }

    /// Counts the weakest with the others from now on.
    fn fold(&self, ranking: &mut Ranking) {
        if ranking.labelled.is_empty() {
            return;
        }
        let weakest = ranking.labelled.remove(0);
        let kind = weakest.app.kind;
        for load in &weakest.loads {
            load.count_in(kind.common_slot());
        }
        let counted = self.counted(weakest.slot);
        let total = weakest.base.plus(counted.since(weakest.before));
        if ranking.remembered.len() >= REMEMBERED {
            ranking.remembered.pop_front();
        }
        ranking.remembered.push_back((weakest.app, total));
        ranking.free.push_back(Free {
            slot: weakest.slot,
            kind,
            counted,
            round: ranking.round,
        });
    }

    /// Gives an app a slot of its own.
    fn tell_apart(&self, ranking: &mut Ranking, challenger: Challenger) {
        let Some(app) = challenger.load.app() else {
            return;
        };
        let Some(slot) = self.free_slot(ranking) else {
            return;
        };
        let mut remembered = ranking.remembered.iter();
        let base = match remembered.position(|(known, _)| *known == app) {
            Some(index) => ranking.remembered.remove(index),
            None => None,
        };
        let before = self.counted(slot);
        challenger.load.count_in(slot);
        ranking.labelled.push(Labelled {
            app,
            loads: vec![challenger.load],
            slot,
            before,
            base: base.map(|(_, total)| total).unwrap_or_default(),
            score: challenger.score,
        });
    }

    /// A slot that has rested for a round, or was never used.
    fn free_slot(&self, ranking: &mut Ranking) -> Option<u32> {
        let round = ranking.round;
        if let Some(free) = ranking.free.pop_front_if(|free| free.round < round) {
            let late = self.counted(free.slot).since(free.counted);
            let others = &mut ranking.others[free.kind as usize];
            *others = others.plus(late);
            return Some(free.slot);
        }
        let slot = ranking.unused;
        if slot as usize >= self.slots.len() {
            return None;
        }
        ranking.unused += 1;
        Some(slot)
    }
}

/// An app without a slot of its own, for which requests have ended.
struct Challenger {
    load: Arc<Load>,
    score: u64,
}

impl Ranking {
    /// Sees how many requests have ended, and who might get a slot of their own. A score is a count of
    /// requests that an eighth is forgotten of each time.
    fn look(&mut self) -> Vec<Challenger> {
        let mut challengers = Vec::new();
        for labelled in &mut self.labelled {
            labelled.score = 0;
        }
        let (always, labelled) = (&self.always, &mut self.labelled);
        self.candidates.retain_mut(|candidate| {
            let Some(load) = candidate.load.upgrade() else {
                return false;
            };
            let Some(app) = load.app() else { return false };
            let served = load.served();
            let new = served.saturating_sub(candidate.seen);
            candidate.seen = served;
            candidate.score = candidate.score - candidate.score.div_ceil(8) + new;
            let score = match always.contains(&app.id) {
                true => u64::MAX,
                false => candidate.score,
            };
            if load.slot() != app.kind.common_slot() {
                let its_own = |held: &&mut Labelled| held.slot == load.slot();
                if let Some(held) = labelled.iter_mut().find(its_own) {
                    held.score = held.score.saturating_add(score);
                }
            } else if score > 0 && app.id.as_str() != OTHER {
                challengers.push(Challenger { load, score });
            }
            true
        });
        challengers
    }

    /// Counts one more load of an app that has a slot there; whether it has.
    fn join(&mut self, challenger: &Challenger) -> bool {
        let mut labelled = self.labelled.iter_mut();
        let Some(held) = labelled.find(|held| challenger.load.app() == Some(held.app)) else {
            return false;
        };
        // What nobody else holds is counted in no more.
        held.loads.retain(|load| Arc::strong_count(load) > 1);
        challenger.load.count_in(held.slot);
        held.loads.push(Arc::clone(&challenger.load));
        true
    }
}

#[cfg(test)]
mod tests;
