//! Apps and functions: from the id to the backend, and on to it.

use std::pin::pin;
use std::sync::Arc;

use super::error::Error;
use super::{Client, Proxy};
use crate::resolve::Workload;
use crate::telemetry::exchange::Exchange;
use crate::wire::{Request, Response};

impl Proxy {
    /// Forwards `request` to where `workload` runs.
    pub(super) async fn workload(
        &self,
        workload: Workload,
        request: &mut Request,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let found = {
            let resolving = pin!(self.resolver.resolve(workload));
            resolving.await
        };
        let cache = match &found {
            Ok(found) => found.cache,
            Err((_, cache)) => *cache,
        };
        exchange.cache = Some(cache);
        let metrics = &self.telemetry.metrics;
        metrics.resolved(workload.kind.into(), cache);
        let found = found.map_err(|(error, _)| Error::Resolve(workload.kind, error))?;
        // Only what exists is named in the log: made-up names would fill it.
        exchange.workload = Some(workload.id);
        // Counted for it also where it is closed, or there is no room.
        exchange.load = Some(Arc::clone(found.load()));
        if let Some(closed) = found.backend().closed() {
            return Err(Error::Closed(workload.kind, Arc::clone(closed)));
        }
        self.count_app(&workload, client, exchange)?;
        let limit = self.settings.limits.per_workload;
        let place = exchange.load.as_ref().map(|load| self.enter(load, limit));
        exchange.in_flight = place.transpose()?;
        let forwarding = pin!(self.forward(found.backend(), request, client, exchange));
        forwarding.await
    }
}
