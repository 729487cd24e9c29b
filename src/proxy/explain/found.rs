//! The keys of the configuration by which a route was found, and by which a request is sent to HTTPS.

use http::header;

use super::walk::{End, Walk, key, shown_target};
use crate::host::{Host, Under};
use crate::hosts::HostName;
use crate::proxy::demand;
use crate::proxy::error::Error;
use crate::proxy::headers::Trust;
use crate::proxy::https::Demand;
use crate::proxy::route::Route;
use crate::resolve::WorkloadKind;
use crate::upstream::ShortLink;
use crate::wire::{Peer, Request};

impl Walk<'_> {
    /// The keys by which `route` was found. Where the path alone decided there are none.
    pub(super) fn decided(&self, route: &Route<'_>, host: &Host<'_>) -> Vec<String> {
        let hosts = &self.sources.settings.hosts;
        let first = |name: &str, known: &[HostName], fits: &dyn Fn(Under<'_>) -> bool| {
            let found = known
                .iter()
                .find(|known| fits(host.under(known.as_str())))?;
            Some(key(name, format!("\"{found}\"")))
        };
        let is_label = |under: Under<'_>| matches!(under, Under::Label(_));
        let is_itself = |under: Under<'_>| matches!(under, Under::Itself);
        let is_below = |under: Under<'_>| matches!(under, Under::Label(_) | Under::Deeper);
        let custom = || "a custom domain".to_owned();
        let decided = match route {
            Route::Workload(workload) => Some(
                match workload.kind {
                    WorkloadKind::App => first("hosts.app", &hosts.app, &is_label),
                    WorkloadKind::Function => first("hosts.function", &hosts.function, &is_label),
                }
                .unwrap_or_else(custom),
            ),
            Route::Index => first("hosts.app", &hosts.app, &is_itself),
            Route::Link(ShortLink::Url(_)) => first("hosts.url", &hosts.url, &is_itself),
            Route::Verify(_) => first("hosts.user", &hosts.user, &is_itself),
            Route::Proof(_) => Some(custom()),
            // Names below theirs are nobody else's.
            Route::Unknown => first("hosts.app", &hosts.app, &is_below)
                .or_else(|| first("hosts.function", &hosts.function, &is_below)),
            Route::Api(_) | Route::Link(ShortLink::Id(_)) => None,
        };
        decided.into_iter().collect()
    }

    /// Whether it is sent to HTTPS, and what browsers are told.
    pub(super) fn https(
        &mut self,
        request: &Request,
        peer: &Peer,
        trust: Trust,
        host: &Host<'_>,
        stays: bool,
    ) -> Result<Option<End>, Error> {
        let sources = self.sources;
        let Some(https) = &sources.settings.https else {
            let off = [key("https.redirect", false)];
            self.step("https", "nobody is sent there", &off);
            return Ok(None);
        };
        let demand = demand(https, request, peer, trust);
        let reasons = https.reasons(host, peer.listener, demand);
        match demand {
            Demand::Redirect if !stays => {
                let response = https.redirect(host, request.uri()).ok_or(Error::Target)?;
                let to = response.headers().get(header::LOCATION);
                let to = to.and_then(|to| to.to_str().ok()).unwrap_or_default();
                let (origin, _) = to.split_at(to.len() - to_target(to).len());
                let what = format!("sent to {origin}{}", shown_target(request.uri()));
                self.step("https", &what, &reasons);
                Ok(Some(End::Ours(response)))
            }
            Demand::Redirect => {
                self.step("https", "stays as it is: a proof is looked for here", &[]);
                Ok(None)
            }
            Demand::Nothing => {
                self.step("https", "stays as it is", &reasons);
                Ok(None)
            }
            Demand::Promise(value) => {
                let value = value.to_str().unwrap_or_default();
                let what = format!("adds Strict-Transport-Security: {value}");
                self.step("https", &what, &reasons);
                Ok(None)
            }
        }
    }
}

/// What follows the authority of an absolute URL.
fn to_target(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url[after..].find(['/', '?']);
    end.map_or("", |end| &url[after + end..])
}
