//! Keeps certificates: orders what is missing, renews what grows old, forgets what nobody knows.
//!
//! One task on the control thread, with a few orders under way beside it. Whatever fails, what is in
//! the keyring stays there.

use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::failure::Failure;
use super::folder::{Folder, Shelf};
use super::gate::Gate;
use super::kept::{Kept, Next};
use super::names::{Name, NameSet};
use super::order::{self, Issued, Tools, Wanted};
use super::schedule::{Dice, pause, until};
use crate::telemetry::acme::Order;
use crate::telemetry::metrics::Metrics;
use crate::tls::keyring::{Keyring, Source};
use crate::tls::reading;
use crate::units::duration;

/// The certificates of one authority.
pub(super) struct Keeper {
    pub(super) kept: Vec<Kept>,
    pub(super) folder: Arc<Folder>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) rules: Rules,
}

/// What `[tls.acme]` says of how much at once and how soon again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Tasks at once in each line.
    pub(super) orders: usize,
    pub(super) retry: Duration,
    pub(super) retry_most: Duration,
    /// Certificates on demand that are kept.
    pub(super) on_demand: usize,
}

/// What a task is about.
type Key = (Shelf, NameSet);

/// Where a task stands in line. Each line has its own room, so none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    /// Clients wait.
    Clients,
    /// A certificate is missing or grows old.
    Orders,
    /// The authority is asked when to renew.
    Questions,
}

/// What became of a task.
enum Done {
    Ordered(Result<Issued, Failure>),
    Advised(Result<Advice, Failure>),
}

/// What the authority says about when to renew.
enum Advice {
    Window((Timestamp, Timestamp), Duration),
    Never,
}

/// Tasks that are under way.
#[derive(Default)]
struct Tasks {
    set: JoinSet<Done>,
    keys: HashMap<Id, (Line, Key)>,
}

/// However long an authority asks us to wait.
const LONGEST_REST: Duration = Duration::from_secs(7 * 86_400);

/// Where there is nothing at all to keep.
const IDLE: Duration = Duration::from_secs(60);

impl Keeper {
    /// Keeps them until `stop`, then gives up what is under way and waits for that.
    pub(super) async fn run(
        &mut self,
        tools: &Rc<Tools>,
        questions: &mut Option<mpsc::Receiver<Name>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) {
        let mut tasks = Tasks::default();
        let there = self.kept.iter().filter_map(|kept| kept.certificate.clone());
        let mut reading = std::pin::pin!(reading::read_all(there.collect()));
        let mut is_read = false;
        loop {
            let wait = self.begin(tools, &mut tasks);
            tokio::select! {
                () = &mut stop => break,
                () = &mut reading, if !is_read => {
                    is_read = true;
                    self.lose_broken();
                }
                Some(ended) = tasks.set.join_next_with_id() => self.ended(&mut tasks, ended),
                Some(name) = next_question(questions) => self.asked(name),
                () = tokio::time::sleep(wait) => {}
            }
        }
        tools.stop.cancel();
        while let Some(ended) = tasks.set.join_next_with_id().await {
            self.ended(&mut tasks, ended);
        }
    }

    /// After a panic, whose tasks went with it: what it may have been about rests as after any failure, so
    /// that the authority is not asked for the same again and again.
    pub(super) fn recover(&mut self) {
        let (now, moment) = (Timestamp::now(), Instant::now());
        for index in (0..self.kept.len()).rev() {
            let kept = &mut self.kept[index];
            if std::mem::take(&mut kept.busy) || kept.next(now, moment) == Next::Order {
                self.failed(index, &Failure::Panicked);
            }
        }
        // A panic may have come before what it had was served.
        self.serve();
    }

    /// What was stored and turns out to be none is ordered again, on demand by the next handshake.
    fn lose_broken(&mut self) {
        let mut lost = false;
        for kept in &mut self.kept {
            let key = kept.certificate.as_ref().map(|there| there.key());
            if let Some(Err(error)) = key {
                let names = &kept.names;
                tracing::warn!(%names, %error, "a stored certificate cannot be read: it is ordered again");
                kept.lose();
                lost = true;
            }
        }
        if lost {
            self.kept.retain(|kept| {
                kept.shelf == Shelf::Always || kept.busy || kept.certificate.is_some()
            });
            self.serve();
        }
    }

    /// Begins what is due, first what somebody waits for; gives how long there is nothing more.
    fn begin(&mut self, tools: &Rc<Tools>, tasks: &mut Tasks) -> Duration {
        self.forget_due();
        self.save();
        let (now, moment) = (Timestamp::now(), Instant::now());
        let unsaved = self.kept.iter().filter_map(|kept| kept.unsaved.as_ref());
        let saved_at = unsaved.map(|(due, _)| *due - moment);
        let mut wait = saved_at.fold(IDLE, Duration::min);
        let mut due: Vec<(Line, &mut Kept)> = Vec::new();
        for kept in self.kept.iter_mut().filter(|kept| !kept.busy) {
            match kept.next(now, moment) {
                Next::Wait(pause) => wait = wait.min(pause),
                Next::AskWhen => due.push((Line::Questions, kept)),
                Next::Order => due.push((Line::of(kept), kept)),
            }
        }
        due.sort_by_key(|(line, _)| *line);
        for (line, kept) in due {
            // The end of a task is the next occasion.
            if tasks.count(line) >= self.rules.orders {
                continue;
            }
            kept.busy = true;
            let tools = Rc::clone(tools);
            if let (Line::Questions, Some(identifier)) = (line, kept.identifier()) {
                tasks.spawn(line, kept, ask_when(tools, identifier));
                continue;
            }
            let at_once = kept.shelf == Shelf::OnDemand;
            let gate = self.gate.as_ref().filter(|_| at_once);
            let before = gate.map_or(0, |gate| gate.failures(kept.names.first()));
            let wanted = Wanted {
                names: kept.names.clone(),
                replaces: kept.replaced(),
                failures: kept.failures.max(before),
                at_once,
            };
            let ordered = async move { Done::Ordered(order::order(tools, wanted).await) };
            tasks.spawn(line, kept, ordered);
        }
        wait
    }

    /// Forgets what was ordered on demand, is due again, and is no name of ours any more.
    fn forget_due(&mut self) {
        let (now, moment) = (Timestamp::now(), Instant::now());
        self.forget(|kept| kept.next(now, moment) == Next::Order);
    }

    /// How many certificates are there, or are to come, because somebody asked.
    fn on_demand(&self) -> usize {
        let asked_for = |kept: &&Kept| kept.shelf == Shelf::OnDemand;
        self.kept.iter().filter(asked_for).count()
    }

    /// Forgets what was ordered on demand and is no name of ours any more, if it `may` be forgotten.
    fn forget(&mut self, may: impl Fn(&Kept) -> bool) {
        let Some(gate) = &self.gate else { return };
        let before = self.kept.len();
        let folder = &self.folder;
        self.kept.retain(|kept| {
            let name = kept.names.first();
            let may = kept.shelf == Shelf::OnDemand && !kept.busy && may(kept);
            let stays = !may || gate.knows(name);
            if !stays {
                tracing::info!(%name, "nobody knows {name} any more: its certificate is removed");
                if let Err(error) = folder.remove(&kept.shelf.file(name)) {
                    tracing::warn!(%name, %error, "a certificate cannot be removed");
                }
                gate.let_go(name);
            }
            stays
        });
        if self.kept.len() < before {
            self.serve();
        }
    }

    /// A handshake wants a certificate.
    fn asked(&mut self, name: Name) {
        let Some(gate) = &self.gate else { return };
        // One that is to be there always is ordered anyhow, and for the first time now.
        let comes = |kept: &Kept| kept.shelf == Shelf::OnDemand || kept.failures == 0;
        let has = |kept: &Kept| comes(kept) && kept.names.iter().any(|own| *own == name);
        if let Some(kept) = self.kept.iter().find(|kept| has(kept)) {
            // Another handshake was faster.
            if kept.certificate.is_some() {
                gate.issued(&name);
            }
            return;
        }
        // What nobody knows any more keeps no name of ours out.
        if self.on_demand() >= self.rules.on_demand {
            self.forget(|_| true);
        }
        if self.on_demand() >= self.rules.on_demand {
            let Some(gate) = &self.gate else { return };
            tracing::warn!(
                %name,
                "no certificate for {name}: tls.acme.on_demand_certificates is reached"
            );
            self.metrics.acme.ended(Order::Limited);
            gate.failed(&name, self.rules.retry);
            return;
        }
        self.kept
            .push(Kept::missing(Shelf::OnDemand, NameSet::one(name)));
    }

    fn ended(&mut self, tasks: &mut Tasks, ended: Result<(Id, Done), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, done),
            Err(error) => {
                self.metrics.panics.inc();
                (error.id(), Done::Ordered(Err(Failure::Panicked)))
            }
        };
        let Some((_, (shelf, names))) = tasks.keys.remove(&id) else {
            return;
        };
        let same = |kept: &Kept| kept.shelf == shelf && kept.names == names;
        let Some(index) = self.kept.iter().position(same) else {
            return;
        };
        self.kept[index].busy = false;
        match done {
            Done::Ordered(Ok(issued)) => self.issued(index, issued),
            Done::Ordered(Err(failure)) => self.failed(index, &failure),
            Done::Advised(advice) => self.advised(index, advice),
        }
    }

    fn issued(&mut self, index: usize, issued: Issued) {
        let now = Timestamp::now();
        let kept = &mut self.kept[index];
        kept.take(issued.certificate, &issued.pem, now);
        kept.unsaved = Some((Instant::now(), issued.pem));
        if let Some(certificate) = &kept.certificate {
            let (names, until) = (&kept.names, certificate.not_after());
            tracing::info!(%names, not_after = %until, "a certificate for {names}, good until {until}");
        }
        self.save();
        self.metrics.acme.ended(Order::Issued);
        self.serve();
        let kept = &self.kept[index];
        if let Some(gate) = &self.gate {
            kept.names.iter().for_each(|name| gate.issued(name));
        }
    }

    /// Writes down what is due to be. What the folder does not take serves all the same, until the end
    /// of this process, and is tried again: ordered anew at each start, it would use up what an
    /// authority allows.
    fn save(&mut self) {
        let now = Instant::now();
        for kept in &mut self.kept {
            let Some((_, pem)) = kept.unsaved.take_if(|(due, _)| *due <= now) else {
                continue;
            };
            let file = kept.shelf.file(kept.names.first());
            if let Err(error) = self.folder.write(&file, &pem) {
                let folder = self.folder.path().display();
                tracing::error!(%error, "a certificate cannot be kept in {folder}: {error}");
                kept.unsaved = Some((now + self.rules.retry, pem));
            }
        }
    }

    fn failed(&mut self, index: usize, failure: &Failure) {
        let kept = &mut self.kept[index];
        if matches!(failure, Failure::Stopped) {
            return;
        }
        self.metrics.acme.ended(Order::Failed);
        let gate = self.gate.as_ref().filter(|_| kept.shelf == Shelf::OnDemand);
        let before = gate.map_or(0, |gate| gate.failures(kept.names.first()));
        let failures = kept.failures.max(before).saturating_add(1);
        let Rules {
            retry, retry_most, ..
        } = self.rules;
        let rest = pause(retry, retry_most, failures, Dice::throw());
        // A pause takes no more than a quarter of what is left.
        let end = kept.certificate.as_ref().map(|there| there.not_after());
        let left = end.map(|end| until(end, Timestamp::now()));
        let rest = match left {
            Some(left) if !left.is_zero() => rest.min((left / 4).max(retry)),
            _ => rest,
        };
        let asked_for = failure.retry_after().unwrap_or_default().min(LONGEST_REST);
        let rest = rest.max(asked_for);
        let whole = Duration::from_secs(rest.as_secs().max(1));
        let (names, again) = (&kept.names, duration::format(whole));
        match gate {
            // The next handshake asks again.
            Some(gate) if kept.certificate.is_none() => {
                tracing::warn!(%names, "no certificate for {names}: {failure}; not tried again for {again}");
                gate.failed(names.first(), rest);
                self.kept.remove(index);
            }
            _ => {
                tracing::warn!(%names, "no certificate for {names}: {failure}; tried again in {again}");
                // Who waits for one of several names may get one for it alone.
                if let Some(gate) = self.gate.as_ref().filter(|_| end.is_none()) {
                    kept.names.iter().for_each(|name| gate.let_go(name));
                }
                kept.rest(rest);
            }
        }
    }

    fn advised(&mut self, index: usize, advice: Result<Advice, Failure>) {
        let now = Timestamp::now();
        let kept = &mut self.kept[index];
        match advice {
            Ok(Advice::Window(window, again)) => kept.advised(window, again, now, Dice::throw()),
            Ok(Advice::Never) => kept.never_advised(),
            Err(Failure::Stopped) => {}
            Err(failure) => {
                let names = &kept.names;
                tracing::debug!(%names, %failure, "the authority does not say when to renew");
                kept.unadvised(now);
            }
        }
    }

    /// Puts into the keyring what there is.
    pub(super) fn serve(&self) {
        let certificates = self.kept.iter().filter_map(|kept| kept.certificate.clone());
        self.keyring.put(Source::Acme, certificates.collect());
    }
}

impl Line {
    fn of(kept: &Kept) -> Self {
        match (kept.shelf, &kept.certificate) {
            (Shelf::OnDemand, None) => Self::Clients,
            _ => Self::Orders,
        }
    }
}

impl Tasks {
    fn spawn(&mut self, line: Line, kept: &Kept, task: impl Future<Output = Done> + 'static) {
        let key = (kept.shelf, kept.names.clone());
        let task = self.set.spawn_local(task);
        self.keys.insert(task.id(), (line, key));
    }

    fn count(&self, line: Line) -> usize {
        self.keys.values().filter(|(own, _)| *own == line).count()
    }
}

/// Asks the authority when to renew (RFC 9773).
async fn ask_when(tools: Rc<Tools>, identifier: CertificateIdentifier<'static>) -> Done {
    let asked = async {
        let account = tools.registration.account().await?;
        match account.renewal_info(&identifier).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let at = |time: i64| {
                    let unreadable = instant_acme::Error::Str("a time that is none");
                    Timestamp::from_second(time).map_err(|_| Failure::from(unreadable))
                };
                let start = at(window.start.unix_timestamp())?;
                let end = at(window.end.unix_timestamp())?;
                Ok(Advice::Window((start, end), again))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok(Advice::Never),
            Err(error) => Err(error.into()),
        }
    };
    Done::Advised(tokio::select! {
        advice = asked => advice,
        () = tools.stop.cancelled() => Err(Failure::Stopped),
    })
}

/// The next name that a handshake wants; never, where none can.
async fn next_question(questions: &mut Option<mpsc::Receiver<Name>>) -> Option<Name> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
}
