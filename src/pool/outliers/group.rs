//! The addresses of one name: who of them is out, and until when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::{Outliers, Turns, locked};
use crate::pool::origin::Origin;
use crate::units::duration;

/// The addresses of one name.
#[derive(Debug)]
pub(super) struct Group {
    origin: Origin,
    turns: Turns,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    used: Instant,
}

/// What a connection sees of its address, without a lock.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    /// In a row.
    pub(super) failures: AtomicU32,
    pub(super) out: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    address: Arc<Address>,
    /// It is out until then.
    until: Option<Instant>,
    /// How often it was, without a long calm between.
    times: u32,
    /// When it was let back last.
    back: Option<Instant>,
}

impl Group {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            turns: Turns::default(),
            state: Mutex::new(State {
                entries: Vec::new(),
                used: Instant::now(),
            }),
        }
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turns.next()
    }

    /// What is known of `addresses`, in their order. What is known of others is forgotten: the name does
    /// not lead there any more.
    pub(super) fn refresh(
        &self,
        outliers: &Outliers,
        addresses: Vec<SocketAddr>,
    ) -> Vec<Arc<Address>> {
        let mut state = locked(&self.state);
        state.used = Instant::now();
        let mut before = std::mem::take(&mut state.entries);
        for socket in addresses {
            let known = before
                .iter()
                .position(|entry| entry.address.socket == socket);
            state.entries.push(match known {
                Some(place) => before.swap_remove(place),
                None => Entry::new(socket),
            });
        }
        for gone in before.iter().filter(|gone| gone.until.is_some()) {
            gone.address.out.store(false, Ordering::Relaxed);
            outliers.metrics.ejections.ended();
        }
        self.let_back_in(&mut state, outliers);
        let entries = state.entries.iter();
        entries.map(|entry| Arc::clone(&entry.address)).collect()
    }

    /// Lets those back whose time has passed.
    pub(super) fn let_back(&self, outliers: &Outliers) {
        self.let_back_in(&mut locked(&self.state), outliers);
    }

    fn let_back_in(&self, state: &mut State, outliers: &Outliers) {
        let now = Instant::now();
        for entry in &mut state.entries {
            if entry.until.is_none_or(|until| now < until) {
                continue;
            }
            entry.until = None;
            entry.back = Some(now);
            entry.address.failures.store(0, Ordering::Relaxed);
            entry.address.out.store(false, Ordering::Relaxed);
            outliers.metrics.ejections.ended();
            if outliers.may_say() {
                let (address, backend) = (entry.address.socket, &self.origin);
                tracing::info!(%address, %backend, "{address} of {backend} is tried again");
            }
        }
    }

    /// Leaves `address` out for a while, unless enough are out already.
    pub(super) fn eject(&self, address: &Address, failures: u32, outliers: &Outliers) {
        let mut state = locked(&self.state);
        self.let_back_in(&mut state, outliers);
        let (all, config) = (state.entries.len(), &outliers.config);
        let out = state.entries.iter().filter(|entry| entry.until.is_some());
        let may_be_out = (all * config.share as usize / 100).min(all.saturating_sub(1));
        if out.count() >= may_be_out {
            return;
        }
        let is_meant = |entry: &&mut Entry| std::ptr::eq(&*entry.address, address);
        let Some(entry) = state.entries.iter_mut().find(is_meant) else {
            return;
        };
        if entry.until.is_some() {
            return;
        }
        let now = Instant::now();
        if entry.back.is_some_and(|back| now - back >= config.most) {
            entry.times = 0;
        }
        let span = config
            .base
            .saturating_mul(1_u32.checked_shl(entry.times).unwrap_or(u32::MAX))
            .min(config.most);
        entry.times = (entry.times + 1).min(u32::BITS);
        entry.until = Some(now + span);
        entry.address.out.store(true, Ordering::Relaxed);
        outliers.metrics.ejections.began();
        if outliers.may_say() {
            let (address, backend) = (address.socket, &self.origin);
            let span = duration::format(span);
            tracing::warn!(%address, %backend, "{address} of {backend} is left out for {span}: it failed {failures} times in a row");
        }
    }

    /// Whether nobody has dialled any of its addresses for `most`, so that none of them is out any more.
    pub(super) fn is_unused_for(&self, most: std::time::Duration, outliers: &Outliers) -> bool {
        let mut state = locked(&self.state);
        self.let_back_in(&mut state, outliers);
        let out = state.entries.iter().any(|entry| entry.until.is_some());
        !out && state.used.elapsed() >= most
    }
}

impl Entry {
    fn new(socket: SocketAddr) -> Self {
        Self {
            address: Arc::new(Address {
                socket,
                failures: AtomicU32::new(0),
                out: AtomicBool::new(false),
            }),
            until: None,
            times: 0,
            back: None,
        }
    }
}
