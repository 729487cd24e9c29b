//! Certificates on demand: who may cause an order, and who waits for one. Orders nothing itself.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::bucket::{Bucket, Buckets, Rate};
use super::config::Config;
use super::names::Name;
use crate::telemetry::acme::Order;
use crate::telemetry::metrics::Metrics;
use crate::tls::on_demand::{Asked, OnDemand};

/// The names that may get a certificate on demand. Asked on workers: it costs a look-up and no more.
pub trait Known: Send + Sync {
    /// Whether `name`, in lower case, leads to something of ours.
    fn is_known(&self, name: &str) -> bool;
}

/// Between the handshakes that ask and the task that orders. Shared by all threads.
pub(super) struct Gate {
    known: Arc<dyn Known>,
    per_peer: Rate,
    overall: Rate,
    most_waiting: usize,
    questions: mpsc::Sender<Name>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    /// The names that are being ordered, and who waits for each.
    waiting: HashMap<Name, Vec<Waiter>>,
    waiters: usize,
    peers: Buckets<IpAddr>,
    all: Bucket,
    /// The names whose order failed.
    failed: HashMap<Name, Rest>,
}

/// One handshake that waits.
struct Waiter {
    from: IpAddr,
    word: oneshot::Sender<()>,
}

/// Until when a name is not ordered again.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    failures: u32,
}

/// Failed names that are remembered. The rate of orders keeps them far below that.
const MOST_FAILED: usize = 10_000;

impl Gate {
    /// A gate, and the names that come through it.
    pub(super) fn new(
        config: &Config,
        known: Arc<dyn Known>,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, mpsc::Receiver<Name>) {
        let rate = |times| Rate {
            times,
            period: config.on_demand_period,
        };
        let (questions, names) = mpsc::channel(config.on_demand_waiting.max(1));
        let gate = Self {
            known,
            per_peer: rate(config.on_demand_per_peer),
            overall: rate(config.on_demand_overall),
            most_waiting: config.on_demand_waiting,
            questions,
            metrics,
            state: Mutex::new(State {
                waiting: HashMap::new(),
                waiters: 0,
                peers: Buckets::new(),
                all: Bucket::new(Instant::now()),
                failed: HashMap::new(),
            }),
        };
        (Arc::new(gate), names)
    }

    /// Whether a certificate of that name is still worth having.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.known.is_known(name.as_str())
    }

    /// How many orders for that name failed, one after another.
    pub(super) fn failures(&self, name: &Name) -> u32 {
        let state = self.state();
        state.failed.get(name).map_or(0, |rest| rest.failures)
    }

    /// There is a certificate: whoever waits may look.
    pub(super) fn issued(&self, name: &Name) {
        let mut state = self.state();
        state.failed.remove(name);
        state.release(name);
    }

    /// Nobody is to wait for it any longer, whatever comes of it.
    pub(super) fn let_go(&self, name: &Name) {
        self.state().release(name);
    }

    /// There is none, and will be none for so long.
    pub(super) fn failed(&self, name: &Name, rest: Duration) {
        let mut state = self.state();
        let now = Instant::now();
        if state.failed.len() >= MOST_FAILED {
            state.failed.retain(|_, rest| rest.until > now);
        }
        let failures = state.failed.get(name).map_or(0, |rest| rest.failures);
        if state.failed.len() < MOST_FAILED || failures > 0 {
            let rest = Rest {
                until: now + rest,
                failures: failures.saturating_add(1),
            };
            state.failed.insert(name.clone(), rest);
        }
        state.release(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a name in line; whether there was room and leave for it.
    fn admit(&self, state: &mut State, name: &Name, peer: IpAddr, now: Instant) -> bool {
        if !state.all.take(self.overall, now) {
            return false;
        }
        let peer_may = state.peers.take(peer, self.per_peer, now);
        if !peer_may || self.questions.try_send(name.clone()).is_err() {
            state.all.give_back(self.overall);
            return false;
        }
        true
    }
}

impl State {
    /// Whether there is no room for one more of `from` among `most` who wait: one network has no more
    /// than half of it. Whoever has left makes room.
    fn is_full(&mut self, most: usize, from: IpAddr) -> bool {
        if self.waiters >= most.div_ceil(2) {
            for waiters in self.waiting.values_mut() {
                waiters.retain(|waiter| !waiter.word.is_closed());
            }
            self.waiters = self.waiting.values().map(Vec::len).sum();
        }
        let own = self.waiting.values().flatten();
        let own = own.filter(|waiter| waiter.from == from).count();
        self.waiters >= most || own >= most.div_ceil(2)
    }

    fn release(&mut self, name: &Name) {
        if let Some(waiters) = self.waiting.remove(name) {
            self.waiters -= waiters.len();
            for waiter in waiters {
                let _left = waiter.word.send(());
            }
        }
    }
}

impl OnDemand for Gate {
    fn ask(&self, name: &str, peer: IpAddr) -> Asked {
        if !self.known.is_known(name) {
            return Asked::Unknown;
        }
        let Ok(name) = Name::parse(name) else {
            return Asked::Unknown;
        };
        let (now, from) = (Instant::now(), network(peer));
        let mut state = self.state();
        let rests = state.failed.get(&name).is_some_and(|rest| rest.until > now);
        if rests || name.is_wildcard() {
            return Asked::Unknown;
        }
        let is_new = !state.waiting.contains_key(&name);
        let full = state.is_full(self.most_waiting, from);
        if full || (is_new && !self.admit(&mut state, &name, from, now)) {
            self.metrics.acme.ended(Order::Limited);
            return Asked::Unknown;
        }
        let (word, wait) = oneshot::channel();
        let waiters = state.waiting.entry(name).or_default();
        waiters.push(Waiter { from, word });
        state.waiters += 1;
        Asked::Wait(wait)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// One customer of an IPv6 network has a whole /64 of addresses.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            std::net::Ipv6Addr::from_bits(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ours;

    impl Known for Ours {
        fn is_known(&self, name: &str) -> bool {
            name.ends_with(".ours.test")
        }
    }

    fn gate(more: &str) -> (Arc<Gate>, mpsc::Receiver<Name>, Arc<Metrics>) {
        let text = format!("directory = 'https://acme.example/'\n{more}");
        let metrics = Metrics::new();
        let config = toml::from_str(&text).unwrap();
        let (gate, names) = Gate::new(&config, Arc::new(Ours), Arc::clone(&metrics));
        (gate, names, metrics)
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ask(gate: &Gate, name: &str, from: &str) -> Option<oneshot::Receiver<()>> {
        match gate.ask(name, peer(from)) {
            Asked::Wait(wait) => Some(wait),
            Asked::Unknown => None,
        }
    }

    fn limited(metrics: &Metrics) -> bool {
        let text = String::from_utf8(metrics.to_text()).unwrap();
        !text.contains(r#"m3o_ingress_acme_orders_total{result="limited"} 0"#)
    }

    #[tokio::test]
    async fn an_unknown_name_goes_no_further_and_spends_nothing() {
        let (gate, mut names, metrics) = gate("on_demand_overall = 1");
        for name in [
            "evil.test",
            "ours.test",
            "*.ours.test",
            "a_b.ours.test",
            ".ours.test",
        ] {
            assert!(ask(&gate, name, "192.0.2.1").is_none(), "{name}");
        }
        assert!(names.try_recv().is_err());
        assert!(!limited(&metrics));
        assert!(ask(&gate, "a.ours.test", "192.0.2.1").is_some());
    }

    #[tokio::test]
    async fn all_who_ask_for_one_name_wait_for_one_order() {
        let (gate, mut names, _) = gate("");
        let waits: Vec<_> = (0..9)
            .map(|_| ask(&gate, "a.ours.test", "192.0.2.1").unwrap())
            .collect();
        let name = names.try_recv().unwrap();
        assert!(names.try_recv().is_err());
        gate.issued(&name);
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(gate.state().waiters, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_name_rests_and_each_failure_is_counted() {
        let (gate, mut names, _) = gate("");
        for failures in 0..3 {
            let wait = ask(&gate, "a.ours.test", "192.0.2.1").unwrap();
            let name = names.try_recv().unwrap();
            assert_eq!(gate.failures(&name), failures);
            gate.failed(&name, Duration::from_secs(60));
            wait.await.unwrap();
            assert!(ask(&gate, "a.ours.test", "192.0.2.2").is_none());
            tokio::time::advance(Duration::from_secs(61)).await;
        }
    }

    #[tokio::test]
    async fn one_address_and_all_together_cause_only_so_many_orders() {
        let (gate, _names, metrics) = gate("on_demand_per_peer = 2\non_demand_overall = 4");
        let new = |number: u32, from| ask(&gate, &format!("n{number}.ours.test"), from);
        let _waits = [new(1, "2001:db8::1"), new(2, "2001:db8::2")].map(Option::unwrap);
        assert!(new(3, "2001:db8::3").is_none(), "the same network");
        assert!(limited(&metrics));
        assert!(
            ask(&gate, "n1.ours.test", "2001:db8::3").is_some(),
            "no new order"
        );
        let _waits = [new(4, "192.0.2.1"), new(5, "192.0.2.2")].map(Option::unwrap);
        assert!(new(6, "192.0.2.3").is_none());
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let (gate, mut names, _) = gate("on_demand_waiting = 2");
        let first = ask(&gate, "a.ours.test", "192.0.2.1").unwrap();
        assert!(
            ask(&gate, "a.ours.test", "192.0.2.1").is_none(),
            "half of it is for others"
        );
        let _second = ask(&gate, "a.ours.test", "192.0.2.2").unwrap();
        assert!(ask(&gate, "a.ours.test", "192.0.2.3").is_none());
        assert!(ask(&gate, "b.ours.test", "192.0.2.3").is_none());
        gate.issued(&names.try_recv().unwrap());
        first.await.unwrap();
        assert!(ask(&gate, "b.ours.test", "192.0.2.1").is_some());
    }

    #[tokio::test]
    async fn whoever_has_left_keeps_nobody_from_waiting() {
        let (gate, mut names, _) = gate("on_demand_waiting = 2");
        for _ in 0..5 {
            drop(ask(&gate, "slow.ours.test", "192.0.2.1").unwrap());
        }
        let wait = ask(&gate, "b.ours.test", "192.0.2.2").unwrap();
        let [slow, other] = [(); 2].map(|()| names.try_recv().unwrap());
        assert!(names.try_recv().is_err(), "one order for each");
        gate.issued(&other);
        wait.await.unwrap();
        gate.issued(&slow);
        assert_eq!(gate.state().waiters, 0);
    }
}
