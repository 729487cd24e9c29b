//! Which of several addresses of a backend are left out for a while, because they fail.
//!
//! One for all workers: what one of them has seen is true for the others. A backend with one address is no matter of it.
//! The model is Envoy's outlier detection: consecutive failures, a time that grows, and a share that stays.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::eyeballs::in_turn;
use super::origin::Origin;
use crate::telemetry::metrics::Metrics;
use crate::units;
use group::Group;
pub(super) use member::{Asked, Attempt, Dial, Member};

mod group;
mod member;
#[cfg(test)]
mod tests;

/// `[outliers]`: when an address of a backend is left out, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether any is.
    pub enabled: bool,
    /// Failures in a row that are one too many.
    pub failures: u32,
    /// For how long at first; each time it is twice as long.
    #[serde(with = "units::duration")]
    pub base: Duration,
    /// For how long at most.
    #[serde(with = "units::duration")]
    pub most: Duration,
    /// Of the addresses of one name, so many in a hundred at once, rounded down; never all.
    pub share: u32,
    /// Whether an answer of 500 and above is a failure too.
    pub status: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 5,
            base: Duration::from_secs(30),
            most: Duration::from_secs(300),
            share: 50,
            status: false,
        }
    }
}

/// What is known of the addresses of all names that have several.
#[derive(Debug)]
pub struct Outliers {
    config: Config,
    metrics: Arc<Metrics>,
    groups: Mutex<HashMap<Origin, Arc<Group>>>,
    said: Mutex<Said>,
    /// Of the names that are too many to be watched.
    turns: Turns,
    /// Whether it is said that there are such names.
    said_full: AtomicBool,
}

/// Names that are watched at once. Addresses of more are dialled in turn all the same, and none of them is
/// left out.
const MOST_GROUPS: usize = 4096;

/// An address to be dialled, and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) member: Option<Member>,
}

impl Target {
    /// One that nobody watches.
    pub(super) fn unwatched(address: SocketAddr) -> Self {
        let member = None;
        Self { address, member }
    }

    fn is_out(&self) -> bool {
        self.member.as_ref().is_some_and(Member::is_out)
    }
}

impl Outliers {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            config,
            metrics,
            groups: Mutex::default(),
            said: Mutex::default(),
            turns: Turns::default(),
            said_full: AtomicBool::new(false),
        })
    }

    /// The addresses of `origin` in the order in which they are to be tried: both families take turns, and
    /// within a family each connection begins with another one. Those that are left out come last.
    ///
    /// RFC 6724, 6, lets an implementation that knows better supersede the rules by which one address of a
    /// family comes before another; RFC 8305, 4, keeps the turns of the families.
    pub(super) fn choose(
        self: &Arc<Self>,
        origin: &Origin,
        addresses: Vec<SocketAddr>,
    ) -> Vec<Target> {
        let unwatched = |addresses: Vec<SocketAddr>| -> Vec<Target> {
            addresses.into_iter().map(Target::unwatched).collect()
        };
        if addresses.len() < 2 {
            return unwatched(addresses);
        }
        let Some(group) = self.group(origin) else {
            return rotated(unwatched(addresses), self.turns.next());
        };
        let turn = group.next_turn();
        let targets = group.refresh(self, addresses).into_iter().map(|address| {
            let member = Member::new(self, &group, address);
            Target {
                address: member.address(),
                member: Some(member),
            }
        });
        let (last, first): (Vec<_>, Vec<_>) = targets.partition(Target::is_out);
        let mut order = rotated(first, turn);
        order.extend(rotated(last, turn));
        order
    }

    fn group(&self, origin: &Origin) -> Option<Arc<Group>> {
        let mut groups = locked(&self.groups);
        if let Some(group) = groups.get(origin) {
            return Some(Arc::clone(group));
        }
        if groups.len() >= MOST_GROUPS {
            drop(groups);
            if !self.said_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "more than {MOST_GROUPS} names of backends have several addresses: those of the names beyond that are not left out when they fail"
                );
            }
            return None;
        }
        let group = Arc::new(Group::new(origin.clone()));
        groups.insert(origin.clone(), Arc::clone(&group));
        Some(group)
    }

    /// Lets those back whose time has passed, and forgets names that nobody asks for any more.
    pub(super) fn sweep(&self) {
        let (groups, config) = (locked(&self.groups).clone(), &self.config);
        for group in groups.values() {
            group.let_back(self);
        }
        drop(groups);
        // Nobody holds what is forgotten: with a connection its group stays.
        let mut groups = locked(&self.groups);
        groups.retain(|_, group| {
            Arc::strong_count(group) > 1 || !group.is_unused_for(config.most, self)
        });
        if groups.len() < MOST_GROUPS {
            self.said_full.store(false, Ordering::Relaxed);
        }
    }

    /// Whether one more line may be written now. A storm of failures is told by its counter.
    fn may_say(&self) -> bool {
        locked(&self.said).one_more()
    }
}

impl Drop for Outliers {
    /// Nobody is left out by it any more, and those who count that live longer.
    fn drop(&mut self) {
        let groups = std::mem::take(&mut *locked(&self.groups));
        for group in groups.values() {
            let _none = group.refresh(self, Vec::new());
        }
    }
}

/// Each family beginning with another one each turn.
fn rotated(targets: Vec<Target>, turn: usize) -> Vec<Target> {
    let is_v6 = |target: &Target| matches!(target.address.ip(), IpAddr::V6(_));
    let (mut v6, mut v4): (Vec<_>, Vec<_>) = targets.into_iter().partition(is_v6);
    for family in [&mut v6, &mut v4] {
        if !family.is_empty() {
            let begin = turn % family.len();
            family.rotate_left(begin);
        }
    }
    in_turn(v6, v4)
}

/// Lines that were written lately.
#[derive(Debug, Default)]
struct Said {
    since: Option<Instant>,
    lines: u32,
}

impl Said {
    const MOST: u32 = 20;
    const SPAN: Duration = Duration::from_secs(10);

    fn one_more(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now - since >= Self::SPAN) {
            self.since = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= Self::MOST
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts up for ever.
#[derive(Debug, Default)]
struct Turns(AtomicUsize);

impl Turns {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
