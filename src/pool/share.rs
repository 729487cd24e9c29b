//! How requests share connections: which one is used, when one more is opened, and what is sent again.

use std::rc::Rc;

use http::header;
use http_body::Body as _;

use super::call::{self, Failure};
use super::connection::Connection;
use super::dial::Dialled;
use super::lane::{Lane, Seat};
use super::origin::{Origin, Spoken};
use super::outliers::Asked;
use super::shared::{Carried, Fresh, Shared};
use super::{Error, Pool, Resting, websocket};
use crate::telemetry::metrics::Retry;
use crate::wire::{Request, Response};

/// What a request goes over.
#[derive(Debug)]
pub(super) enum Obtained {
    /// A connection that it has to itself.
    Own(Box<Connection>),
    /// A place on one that carries others too.
    Shared(Carried),
}

impl Pool {
    /// What `request` goes over, where no connection that it would have to itself is idle.
    pub(super) async fn obtain(
        self: &Rc<Self>,
        origin: &Origin,
        request: &Request,
    ) -> Result<Obtained, Error> {
        let lane = self.lane(origin);
        if request.headers().contains_key(header::UPGRADE) {
            // Only HTTP/1.1 switches protocols, so a server that is to do so is offered nothing else.
            if origin.spoken() != Spoken::Http2 {
                return self.obtain_own(&lane).await.map(Obtained::Own);
            }
            if !websocket::is_asked_by(request.headers()) {
                let origin = origin.clone();
                return Err(Error::Upgrade { origin });
            }
        }
        if !lane.may_share() {
            return self.obtain_own(&lane).await.map(Obtained::Own);
        }
        if let Some(carried) = self.pick(&lane).await {
            return Ok(Obtained::Shared(carried));
        }
        // One opens a connection. What becomes of it is true for all who waited for it.
        let failures = lane.failures();
        let turn = lane.opening().acquire().await;
        if let Some(failure) = lane.failure_since(failures) {
            return Err(failure.into());
        }
        if !lane.may_share() {
            drop(turn);
            return self.obtain_own(&lane).await.map(Obtained::Own);
        }
        match self.pick(&lane).await {
            Some(carried) => Ok(Obtained::Shared(carried)),
            None => Box::pin(self.open_any(&lane)).await,
        }
    }

    /// A place on a connection that is there.
    async fn pick(&self, lane: &Lane) -> Option<Carried> {
        self.close(lane, Shared::is_left_out);
        loop {
            let shared = lane.pick()?;
            if let Some(place) = shared.take_place() {
                let _kept = self.wake(place);
            }
            // Its place is taken before anything is waited for.
            let carried = Carried::on(shared);
            if carried.shared().is_alive().await && carried.shared().is_open() {
                self.metrics.pool_reused.inc();
                return Some(carried);
            }
        }
    }

    /// Opens a connection, and speaks over it what its server picks.
    async fn open_any(self: &Rc<Self>, lane: &Rc<Lane>) -> Result<Obtained, Error> {
        let seat = lane.seat();
        let dialled = self.dialer().dial(lane.origin()).await;
        let dialled = dialled.inspect_err(|error| {
            self.metrics.pool_failed.inc();
            lane.failed(error);
        })?;
        self.metrics.pool_opened.inc();
        match dialled {
            Dialled::Own(stream, member) => {
                lane.found_http1();
                let connection = Connection::new(stream, seat, self).at(member);
                Ok(Obtained::Own(connection))
            }
            Dialled::Shared(fresh) => {
                let shared = self.share(fresh, lane, seat);
                Ok(Obtained::Shared(Carried::on(shared)))
            }
        }
    }

    /// Starts the task of a fresh connection, and lets others use that. It has its seat until it is
    /// closed.
    fn share(self: &Rc<Self>, fresh: Box<Fresh>, lane: &Rc<Lane>, seat: Seat) -> Rc<Shared> {
        let (shared, driver) = fresh.start(lane, self, self.dialer().timeout());
        lane.share(&shared);
        let (pool, ended) = (Rc::downgrade(self), Rc::downgrade(&shared));
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(async move {
            driver.await;
            if let (Some(pool), Some(ended)) = (pool.upgrade(), ended.upgrade()) {
                pool.forget(&ended);
            }
            drop(seat);
        });
        shared
    }

    /// Sends `request` over a connection that others share, and once more where that is safe.
    pub(super) async fn send_shared(
        self: &Rc<Self>,
        carried: Carried,
        origin: &Origin,
        request: &mut Request,
        asked: &Asked,
    ) -> Result<Response, Error> {
        let shared = Rc::clone(carried.shared());
        asked.goes_to(shared.member());
        if request.headers().contains_key(header::UPGRADE) {
            if !carried.shared().takes_websockets() {
                let origin = origin.clone();
                return Err(Error::Upgrade { origin });
            }
            let answered = call::websocket(carried, origin, request).await;
            note(&shared, &answered);
            return answered.map_err(|failure| failure.into_error(origin));
        }
        // RFC 9110, 9.2.2: such a request means the same when it arrives twice.
        let repeatable = request.method().is_idempotent() && request.body().is_end_stream();
        let kept = carried.is_kept();
        let number = carried.shared().number();
        let answered = call::call(carried, origin, request).await;
        note(&shared, &answered);
        let failure = match answered {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let reason = match &failure {
            Failure::Unprocessed(_) => Retry::Unsent,
            Failure::BrokenOff(_) if kept && repeatable => Retry::BrokenOff,
            Failure::BrokenOff(_)
            | Failure::Ended(_)
            | Failure::Malformed(_)
            | Failure::RequestBody(_) => return Err(failure.into_error(origin)),
        };
        self.metrics.retried(reason);
        if reason == Retry::BrokenOff {
            // What ended one kept connection may have ended them all.
            self.close(&self.lane(origin), |shared| shared.number() <= number);
        }
        match self.obtain(origin, request).await? {
            Obtained::Shared(carried) => {
                let shared = Rc::clone(carried.shared());
                asked.goes_to(shared.member());
                let answered = call::call(carried, origin, request).await;
                note(&shared, &answered);
                answered.map_err(|failure| failure.into_error(origin))
            }
            Obtained::Own(mut connection) => {
                asked.goes_to(connection.member());
                connection.begin(request);
                match connection.response(request).await {
                    Ok(head) => Ok(connection.answer(head)),
                    Err(error) => Err(connection.broken(error)),
                }
            }
        }
    }

    /// Lets go of the connections of which `goes` is true. Each is closed when what it carries has ended.
    fn close(&self, lane: &Lane, goes: impl Fn(&Shared) -> bool) {
        lane.retain_shared(|shared| {
            let stays = !goes(shared);
            if !stays && let Some(place) = shared.take_place() {
                let _closed = self.wake(place);
            }
            stays
        });
    }

    /// A shared connection carries nothing any more.
    pub(super) fn rest(&self, shared: &Rc<Shared>) {
        if !shared.is_open() || shared.lane().is_none_or(|lane| !lane.keeps(shared)) {
            self.forget(shared);
            return;
        }
        let mut idle = self.idle.borrow_mut();
        shared.rest(idle.put(Resting::Shared(Rc::clone(shared))));
        self.count_idle(&mut idle);
    }

    /// Lets go of a connection that nothing more is to begin on. It is closed when what it carries has
    /// ended.
    fn forget(&self, shared: &Rc<Shared>) {
        if let Some(place) = shared.take_place() {
            let _closed = self.wake(place);
        }
        if let Some(lane) = shared.lane() {
            lane.retain_shared(|kept| !Rc::ptr_eq(kept, shared));
        }
    }
}

/// What a call says about the address that it went to: by a request that it has not looked at a server says
/// nothing of itself, and a connection that breaks off does so once, whatever it carries.
fn note(shared: &Shared, answered: &Result<Response, Failure>) {
    let Some(member) = shared.member() else {
        return;
    };
    match answered {
        Ok(response) => member.answered(response.status()),
        Err(Failure::Ended(_) | Failure::Malformed(_)) => member.failed(),
        Err(Failure::BrokenOff(_)) => {
            if shared.breaks_off() {
                member.failed();
            }
        }
        Err(Failure::Unprocessed(_) | Failure::RequestBody(_)) => {}
    }
}
