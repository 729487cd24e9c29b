//! The way of a request to an app or a function.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use super::walk::{End, Walk, counted, key, time};
use crate::pool::{self, DialError, Origin, Verdict};
use crate::proxy::error::{Error, of_backend};
use crate::proxy::upgrade::Upgrade;
use crate::proxy::{Client, headers};
use crate::resolve::{self, Backend, Entry, Resolve, Workload, WorkloadKind};
use crate::telemetry::redact;
use crate::units::duration;
use crate::upstream::Upstream;
use crate::wire::Request;

impl Walk<'_> {
    /// As `Proxy::workload` and `Proxy::forward` go.
    pub(super) async fn workload(
        &mut self,
        workload: Workload,
        request: &mut Request,
        client: &Client<'_>,
    ) -> Result<End, Error> {
        let found = self.find(workload).await;
        let found = found.map_err(|error| Error::Resolve(workload.kind, Arc::new(error)))?;
        let Some(backend) = found else {
            self.count_app(&workload)?;
            return Ok(self.unasked(request, client));
        };
        match backend.closed() {
            Some(closed) => {
                let what = format!(
                    "{}, come again after {} s",
                    closed.status(),
                    closed.retry_after()
                );
                self.step("closed", &what, &["by the operator".to_owned()]);
                return Err(Error::Closed(workload.kind, Arc::clone(closed)));
            }
            None => self.step("closed", "no", &[]),
        }
        self.count_app(&workload)?;
        self.room(workload)?;
        if headers::loops(request.headers()) {
            return Err(Error::Loop);
        }
        let upgrade = Upgrade::asked_by(request);
        let target = backend.target(request.uri());
        target.map_err(|_| Error::UriTooLong)?;
        self.step("backend", &shown(&backend), &[]);
        if let Some(upgrade) = &upgrade
            && !upgrade.is_websocket()
            && !backend.origin().switches_protocols()
        {
            let origin = backend.origin().clone();
            return Err(of_backend(pool::Error::Upgrade { origin }));
        }
        self.addresses(backend.origin()).await?;
        self.fields(request, client);
        if upgrade.is_some() {
            let tunnel = time("timeouts.tunnel", self.timeouts().tunnel);
            self.step("upgrade", "a tunnel, if the backend agrees", &[tunnel]);
        }
        self.spans();
        let mapped = "Location and the domains of cookies say our name in place of its own";
        self.step("answered", mapped, &[]);
        Ok(End::Depends(format!(
            "what the {} answers, streamed",
            workload.kind.as_str()
        )))
    }

    /// Where nobody says yet where it runs.
    fn unasked(&mut self, request: &mut Request, client: &Client<'_>) -> End {
        let what = match self.sources.guard.allows_private() {
            true => "any that is not our own",
            false => "any that is neither private nor our own",
        };
        let private = key(
            "backends.allow_private",
            self.sources.guard.allows_private(),
        );
        self.step("address", what, &[private]);
        self.fields(request, client);
        self.spans();
        End::Depends("what the backend answers, if there is one: only the API knows".to_owned())
    }

    /// The backend, where it is known without asking a remote API; or that there is none.
    async fn find(&mut self, workload: Workload) -> Result<Option<Backend>, resolve::Error> {
        let sources = self.sources;
        let endpoint = match workload.kind {
            WorkloadKind::App => Upstream::RESOLVE_APP,
            WorkloadKind::Function => Upstream::RESOLVE_FUNCTION,
        };
        let question = format!("{} of {}", Upstream::call_of(endpoint), sources.api);
        let platform = sources.platform();
        if let Some(cache) = &sources.cache {
            let generation = sources.upstream.as_ref().map_or(0, Upstream::generation);
            match cache.look(workload, generation) {
                // The platform is at hand: that is asked rather.
                Some(Entry::Expired { .. }) if platform.is_some() => {}
                Some(entry) => return self.remembered(entry, cache.config(), &question).map(Some),
                None => {}
            }
        }
        let had = match sources.cache {
            Some(_) => "nothing",
            None => "unknown here",
        };
        let Some(platform) = platform else {
            self.step("cache", &format!("{had}: would ask {question}"), &[]);
            return Ok(None);
        };
        self.step("cache", &format!("{had}: asks {question}"), &[]);
        // It answers from its store: that is no call, and counts nothing.
        platform.resolve(workload).await.map(Some)
    }

    /// What the cache has.
    fn remembered(
        &mut self,
        entry: Entry,
        limits: &resolve::Config,
        question: &str,
    ) -> Result<Backend, resolve::Error> {
        let fresh = time("cache.fresh", limits.fresh);
        let stale = time("cache.stale", limits.stale);
        let (what, keys, backend) = match entry {
            Entry::Servable {
                backend,
                age,
                fresh_for: Some(left),
            } => {
                let what = format!("fresh, {} old, for {} more", seconds(age), seconds(left));
                (what, vec![fresh, stale], backend)
            }
            Entry::Servable { backend, age, .. } => {
                let age = seconds(age);
                let what = format!("stale, {age} old: served, and asked for anew beside it");
                (what, vec![fresh, stale], backend)
            }
            Entry::Expired { backend, age } => {
                let age = seconds(age);
                let what =
                    format!("expired, {age} old: would ask {question}, and serve it if that fails");
                (
                    what,
                    vec![stale, time("cache.error", limits.error)],
                    backend,
                )
            }
            Entry::Rescued { backend, age } => {
                let age = seconds(age);
                let what = format!(
                    "expired, {age} old: served, as asking failed before; asked for anew beside it"
                );
                (
                    what,
                    vec![stale, time("cache.error", limits.error)],
                    backend,
                )
            }
            Entry::Missing { fresh_for } => {
                let what = format!("that there is none, for {} more", seconds(fresh_for));
                self.step("cache", &what, &[time("cache.negative", limits.negative)]);
                return Err(resolve::Error::Unknown);
            }
        };
        self.step("cache", &what, &keys);
        Ok(backend)
    }

    /// Whether there is room for one more: what is counted and limited has its steps here.
    fn room(&mut self, workload: Workload) -> Result<(), Error> {
        let sources = self.sources;
        let limit = self.limits().per_workload;
        let limits = [key("limits.per_workload", limit)];
        let Some(cache) = &sources.cache else {
            self.step("limits", "unknown here: how many are in flight", &limits);
            return Ok(());
        };
        let load = cache.load_of(workload);
        let (requests, tunnels) = load.map_or((0, 0), |load| load.now());
        let (requested, tunnelled) = (counted(requests, "request"), counted(tunnels, "tunnel"));
        let what = format!("{requested} and {tunnelled} in flight");
        self.step("limits", &what, &limits);
        match requests + tunnels >= limit {
            true => Err(Error::Busy),
            false => Ok(()),
        }
    }

    /// Where the backend is, and whether it may be there.
    async fn addresses(&mut self, origin: &Origin) -> Result<(), Error> {
        let sources = self.sources;
        let ip = origin.ip();
        let judged = match (&sources.dialer, ip) {
            (Some(dialer), _) => dialer.look(origin).await,
            (None, Some(ip)) => {
                let address = (ip, origin.port()).into();
                Ok(vec![(
                    address,
                    sources.guard.verdict(address, origin.reach()),
                )])
            }
            (None, None) => {
                let what = format!("unknown here: would look {} up", origin.host());
                self.step("address", &what, &["backends.dns".to_owned()]);
                return Ok(());
            }
        };
        let judged = judged.map_err(|error| of_backend(pool::Error::Dial(error)))?;
        let private = ["backends.allow_private".to_owned()];
        for (address, verdict) in judged.iter().take(MOST_SHOWN) {
            let (verdict, keys) = match verdict {
                Verdict::Permitted => ("permitted", &[][..]),
                Verdict::Private => ("refused: it is private", &private[..]),
                Verdict::Own => ("refused: we listen there ourselves", &[][..]),
            };
            self.step("address", &format!("{}: {verdict}", address.ip()), keys);
        }
        let may = judged
            .iter()
            .any(|(_, verdict)| *verdict == Verdict::Permitted);
        match judged.last() {
            Some((last, _)) if !may => Err(of_backend(pool::Error::Dial(DialError::Forbidden {
                origin: origin.clone(),
                address: last.ip(),
            }))),
            _ => Ok(()),
        }
    }

    /// What becomes of the fields on the way out.
    pub(super) fn fields(&mut self, request: &mut Request, client: &Client<'_>) {
        let before = request.headers().clone();
        client.prepare(request);
        self.changed(&before, request.headers());
    }

    /// What is different in `after`.
    pub(super) fn changed(&mut self, before: &HeaderMap, after: &HeaderMap) {
        let names =
            |map: &HeaderMap| -> BTreeSet<String> { map.keys().map(ToString::to_string).collect() };
        let (old, new) = (names(before), names(after));
        let gone: Vec<String> = old.difference(&new).cloned().collect();
        let set: Vec<String> = after
            .keys()
            .filter(|name| before.get_all(*name).iter().ne(after.get_all(*name)))
            .map(|name| field(name, after))
            .collect();
        if !gone.is_empty() {
            self.step("removed", &gone.join(", "), &[]);
        }
        for field in set {
            self.step("added", &field, &[]);
        }
    }

    /// How long it may take.
    pub(super) fn spans(&mut self) {
        let timeouts = self.timeouts();
        for (name, span) in [
            ("connect", timeouts.connect),
            ("response", timeouts.response),
            ("body", timeouts.body),
        ] {
            let what = format!("{name} within {}", duration::format(span));
            self.step("timeout", &what, &[time(&format!("timeouts.{name}"), span)]);
        }
    }
}

/// Addresses that are told of.
const MOST_SHOWN: usize = 8;

/// A field that we set. What may be a secret is not shown.
fn field(name: &HeaderName, headers: &HeaderMap) -> String {
    let value = match *name {
        header::AUTHORIZATION | header::COOKIE => redact::HIDDEN,
        _ => {
            let last = headers.get_all(name).iter().next_back();
            last.and_then(|value| value.to_str().ok())
                .unwrap_or(redact::HIDDEN)
        }
    };
    format!("{name}: {value}")
}

/// A backend without what may be a key in it.
fn shown(backend: &Backend) -> String {
    let origin = backend.origin();
    match backend.has_more() {
        true => format!("{origin}/{}", redact::HIDDEN),
        false => origin.to_string(),
    }
}

/// A time in whole seconds.
fn seconds(span: std::time::Duration) -> String {
    duration::format(std::time::Duration::from_secs(span.as_secs()))
}
