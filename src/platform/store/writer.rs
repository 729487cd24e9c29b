//! The one thread that writes: several jobs a commit, each answered when it is durable.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::engine::{Changes, Engine, Pairs, Snapshot, Table};
use super::generations::{Changed, Generations};
use super::{Error, Read, Series, View, Watch, record, unavailable};

/// What a job sees and changes: its own view, kept only if it succeeds.
pub(crate) struct Transaction<'a> {
    place: &'a str,
    snapshot: &'a dyn Snapshot,
    /// What earlier jobs of the same commit changed.
    earlier: &'a Changes,
    own: Changes,
    changed: Changed,
}

impl Transaction<'_> {
    /// Keeps `value` under `key`.
    pub(crate) fn put(&mut self, table: Table, key: &str, value: &impl Serialize) {
        self.changed.note(table);
        self.put_unnoticed(table, key, value);
    }

    /// The same where nothing has changed that is remembered: no generation rises.
    pub(crate) fn put_unnoticed(&mut self, table: Table, key: &str, value: &impl Serialize) {
        let bytes = record::seal(table, key, value);
        self.own.insert((table, key.to_owned()), Some(bytes));
    }

    /// Removes what is under `key`, if anything.
    pub(crate) fn delete(&mut self, table: Table, key: &str) {
        self.changed.note(table);
        self.own.insert((table, key.to_owned()), None);
    }

    /// Every record of a table but those that are damaged, which are logged and left as they are: for
    /// work that one of them must not hold up.
    pub(crate) fn scan_intact<T: DeserializeOwned>(
        &self,
        table: Table,
    ) -> Result<Vec<(String, T)>, Error> {
        Ok(super::intact(self.place, table, self.pairs(table, "")?))
    }

    /// As the job would see them: of the snapshot, with what was changed since.
    fn pairs(&self, table: Table, prefix: &str) -> Result<Pairs, Error> {
        // Whole, because what was changed since may remove any of it.
        let below = self
            .snapshot
            .scan(table, prefix, usize::MAX)
            .map_err(unavailable)?;
        let mut merged: std::collections::BTreeMap<String, Option<Vec<u8>>> = below
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .collect();
        for ((of, key), value) in self.earlier.iter().chain(&self.own) {
            if *of == table && key.starts_with(prefix) {
                merged.insert(key.clone(), value.clone());
            }
        }
        Ok(merged
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect())
    }
}

impl Read for Transaction<'_> {
    fn get<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, Error> {
        let place = (table, key.to_owned());
        let changed = self.own.get(&place).or_else(|| self.earlier.get(&place));
        let bytes = match changed {
            Some(bytes) => bytes.clone(),
            None => self.snapshot.get(table, key).map_err(unavailable)?,
        };
        bytes
            .map(|bytes| super::open(self.place, table, key, &bytes))
            .transpose()
    }

    fn scan<T: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Error> {
        self.pairs(table, prefix)?
            .into_iter()
            .take(limit)
            .map(|(key, bytes)| {
                let value = super::open(self.place, table, &key, &bytes)?;
                Ok((key, value))
            })
            .collect()
    }
}

/// One piece of writing that waits for its turn.
pub(super) trait Job: Send {
    /// Does the work; whether its changes are to be kept.
    fn run(&mut self, transaction: &mut Transaction<'_>) -> bool;

    /// Tells who waits for it what came of it.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

/// A closure as a [`Job`].
pub(super) struct Work<F, T, E> {
    pub(super) work: Option<F>,
    pub(super) outcome: Option<Result<T, E>>,
    pub(super) reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Job for Work<F, T, E>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, transaction: &mut Transaction<'_>) -> bool {
        self.outcome = self.work.take().map(|work| work(transaction));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Panicked.into()),
            (Err(error), _) => Err(error.into()),
        };
        // Nobody waits any more: the write stands all the same.
        let _ = self.reply.send(outcome);
    }
}

/// Runs jobs until every sender is gone.
pub(super) fn run(
    engine: &Arc<dyn Engine>,
    jobs: &Receiver<Box<dyn Job>>,
    generations: &Generations,
    watch: &Watch,
    series: &Series,
) {
    let place = engine.place();
    let mut unseen = BTreeSet::new();
    loop {
        let first = match jobs.recv_timeout(HEAL_EVERY) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if engine.is_let_go() || !heal(engine.as_ref(), &place, generations, series) {
            // All that wait: each would open the file again, and be told the same later.
            for job in first.into_iter().chain(jobs.try_iter()) {
                series.unwritten.inc();
                job.answer(Err(Error::Unavailable));
            }
            continue;
        }
        // What could not be read when it was written.
        show(engine.as_ref(), &place, watch, &mut unseen);
        let Some(first) = first else { continue };
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(GROUP - 1));

        let mut changes = Changes::new();
        let mut changed = Changed::default();
        let outcome = run_group(
            engine.as_ref(),
            &place,
            &mut group,
            &mut changes,
            &mut changed,
        )
        .and_then(|()| commit(engine.as_ref(), &place, &changes));
        // After the commit, before the answers. After a failed commit as well, since a disk may have
        // kept what it said it had not.
        changed.iter().for_each(|what| generations.rise(what));
        if outcome.is_err() {
            // At once: readers have no good handle until then.
            generations.closed();
            heal(engine.as_ref(), &place, generations, series);
        }
        let counted = match &outcome {
            Ok(()) => &series.written,
            Err(_) => &series.unwritten,
        };
        counted.inc_by(group.len() as u64);
        let claims = changes.into_keys();
        let claims = claims.filter_map(|(table, key)| (table == Table::Domains).then_some(key));
        unseen.extend(claims);
        show(engine.as_ref(), &place, watch, &mut unseen);
        for job in group {
            job.answer(outcome.clone());
        }
    }
}

/// Shows `unseen` to who follows it; empty afterwards, unless it could not be read.
fn show(engine: &dyn Engine, place: &str, watch: &Watch, unseen: &mut BTreeSet<String>) {
    if unseen.is_empty() {
        return;
    }
    let shown = catch_unwind(AssertUnwindSafe(|| {
        let snapshot = engine.snapshot().map_err(unavailable)?;
        watch(&View { place, snapshot }, unseen)
    }));
    match shown {
        Ok(Ok(())) => unseen.clear(),
        // Tried again with the next write, or in a moment.
        Ok(Err(error)) => {
            tracing::error!(store = %place, %error, "custom domains are not followed: {error}");
        }
        Err(_panic) => {
            unseen.clear();
            tracing::error!(store = %place, "following custom domains panicked");
        }
    }
}

/// Whether the engine is open, after opening it again where that was needed.
fn heal(engine: &dyn Engine, place: &str, generations: &Generations, series: &Series) -> bool {
    let healed = engine.heal();
    series.store_open.set(healed.is_ok().into());
    if let Err(error) = &healed {
        generations.closed();
        tracing::error!(store = %place, %error, "the store is not open: {error}");
    }
    healed.is_ok()
}

/// Runs each job on what the ones before it left.
fn run_group(
    engine: &dyn Engine,
    place: &str,
    group: &mut [Box<dyn Job>],
    changes: &mut Changes,
    changed: &mut Changed,
) -> Result<(), Error> {
    // Dropped before the commit, so that it keeps nothing alive.
    let snapshot = engine.snapshot().map_err(|error| failed(place, &error))?;
    for job in group {
        let mut transaction = Transaction {
            place,
            snapshot: snapshot.as_ref(),
            earlier: changes,
            own: Changes::new(),
            changed: Changed::default(),
        };
        let keep = catch_unwind(AssertUnwindSafe(|| job.run(&mut transaction)));
        let Transaction {
            own,
            changed: noted,
            ..
        } = transaction;
        if keep.unwrap_or(false) {
            changes.extend(own);
            *changed = changed.and(noted);
        }
    }
    Ok(())
}

fn commit(engine: &dyn Engine, place: &str, changes: &Changes) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    catch_unwind(AssertUnwindSafe(|| engine.commit(changes)))
        .map_err(|_| failed(place, &"the database panicked"))?
        .map_err(|error| failed(place, &error))
}

fn failed(place: &str, error: &dyn std::fmt::Display) -> Error {
    tracing::error!(store = %place, %error, "a write to the store failed: {error}");
    Error::Unavailable
}

/// Jobs in one commit at most.
const GROUP: usize = 256;

/// How long an engine that failed stays closed when nobody writes.
const HEAL_EVERY: Duration = Duration::from_secs(1);
