//! A request on its way over a connection, and the one retry that is safe.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http_body::Body as _;

use super::connection::Connection;
use super::origin::Origin;
use super::outliers::Asked;
use super::share::Obtained;
use super::{Error, Pool};
use crate::telemetry::metrics::Retry;
use crate::wire::timer::Timer;
use crate::wire::{Request, Response, client};

impl Pool {
    /// Sends a request whose target is in origin form and whose `Host` is set, and gives the
    /// response as soon as its head is here.
    ///
    /// # Errors
    /// When no connection could be made, or it broke before the head of the response was here.
    pub async fn send(
        self: &Rc<Self>,
        origin: &Origin,
        mut request: Request,
    ) -> Result<Response, Error> {
        self.send_noting(origin, &mut request, &Asked::default())
            .await
    }

    /// The same, within `limit` of when the request's body last moved; `None` when that is over. The request is
    /// taken out of where it is: a move at each step would make every future on the way larger by it.
    pub async fn send_while_moving(
        self: &Rc<Self>,
        origin: &Origin,
        request: &mut Request,
        timer: &Timer,
        limit: Duration,
    ) -> Option<Result<Response, Error>> {
        let asked = Asked::default();
        let sent = pin!(self.send_noting(origin, request, &asked));
        let answered = timer.while_moving(limit, sent).await;
        if answered.is_none() {
            asked.took_too_long();
        }
        answered
    }

    /// Says in `asked` where the request has gone.
    async fn send_noting(
        self: &Rc<Self>,
        origin: &Origin,
        request: &mut Request,
        asked: &Asked,
    ) -> Result<Response, Error> {
        // RFC 9110, 9.2.2: such a request means the same when it arrives twice.
        let repeatable = request.method().is_idempotent() && request.body().is_end_stream();
        let mut connection = match self.take_idle(origin) {
            Some(kept) => kept,
            // Boxed, because that is seldom and the future of every request has room
            // for it.
            None => match Box::pin(self.obtain(origin, request)).await? {
                Obtained::Own(connection) => connection,
                Obtained::Shared(carried) => {
                    return Box::pin(self.send_shared(carried, origin, request, asked)).await;
                }
            },
        };
        asked.goes_to(connection.member());
        connection.begin(request);
        let error = match connection.response(request).await {
            Ok(head) => return Ok(connection.answer(head)),
            Err(error) => error,
        };
        let Some(reason) = safe_retry(&connection, &error, repeatable) else {
            return Err(connection.broken(error));
        };
        self.metrics.retried(reason);
        // Not over another one that was kept: what ended one may have ended them all.
        let mut fresh = Box::pin(self.open_anew(origin)).await?;
        asked.goes_to(fresh.member());
        match reason {
            Retry::Unsent => fresh.take_over(&mut connection),
            Retry::BrokenOff => fresh.begin(request),
        }
        drop(connection);
        match fresh.response(request).await {
            Ok(head) => Ok(fresh.answer(head)),
            Err(error) => Err(fresh.broken(error)),
        }
    }
}

/// Why the request may be sent once more, if it may. A kept connection may have been closed while it
/// was idle, or as we wrote; where a fresh one breaks, that is the server's answer.
fn safe_retry(connection: &Connection, error: &client::Error, repeatable: bool) -> Option<Retry> {
    let broken_off = matches!(error, client::Error::BrokenOff(_));
    if !broken_off || !connection.is_kept() {
        return None;
    }
    if connection.is_unsent() {
        return Some(Retry::Unsent);
    }
    repeatable.then_some(Retry::BrokenOff)
}
