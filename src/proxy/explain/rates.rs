//! Which rates a request counts for. Nothing is counted by asking.

use std::net::IpAddr;

use super::super::route::Route;
use super::walk::{Walk, key};
use crate::rates::Rates;

impl Walk<'_> {
    /// The rates that a request of `client` on this `route` counts for.
    pub(super) fn rates(&mut self, rates: &Rates, client: IpAddr, route: &Route<'_>) {
        if rates.exempt(client) {
            let nets = &rates.config().exempt;
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            let exempt = key("rates.exempt", format!("[{}]", nets.join(", ")));
            return self.step("rates", "none for this client", &[exempt]);
        }
        let config = rates.config();
        let mut keys = Vec::from_iter(config.peer.map(|rate| key("rates.peer", rate)));
        match route {
            Route::Api(_) => keys.extend(config.key.map(|rate| key("rates.key", rate))),
            Route::Workload(workload) => {
                let own = config
                    .apps
                    .iter()
                    .find(|(name, _)| name.id() == workload.id);
                match own {
                    Some((name, rate)) => {
                        keys.push(key(&format!("rates.apps.{}", name.id()), rate));
                    }
                    None => keys.extend(config.app.map(|rate| key("rates.app", rate))),
                }
            }
            Route::Link(_) | Route::Verify(_) | Route::Proof(_) | Route::Index | Route::Unknown => {
            }
        }
        if !keys.is_empty() {
            self.step("rates", "429 beyond them", &keys);
        }
    }
}
