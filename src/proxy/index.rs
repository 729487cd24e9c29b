//! The list of apps on the bare app host.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::page::{self, IndexEntry, IndexPage};
use super::{Client, Proxy};
use crate::id::WorkloadId;
use crate::telemetry::exchange::Exchange;
use crate::upstream::messages::ListedApp;
use crate::wire::{Request, Response};

/// `[index]`: whether the bare app host lists the apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Off unless asked for: the list is public.
    pub enabled: bool,
}

impl Proxy {
    /// The page with a link to each app.
    pub(super) async fn index(
        &self,
        request: &Request,
        client: &Client<'_>,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        check(&self.settings.index, request.method())?;
        let apps = self.upstream.list_apps(exchange).await;
        let apps = apps.map_err(Error::Upstream)?;
        let host = client.authority.to_str().unwrap_or_default();
        let scheme = client.peer.scheme.as_str();
        let mut apps: Vec<IndexEntry> = apps
            .into_iter()
            .filter_map(|app| entry(app, scheme, host))
            .collect();
        apps.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(page::respond(StatusCode::OK, &IndexPage { apps }))
    }
}

/// Refuses where there is no list, and what does not read it.
pub(super) fn check(config: &Config, method: &Method) -> Result<(), Error> {
    if !config.enabled {
        return Err(Error::Unknown);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Error::Method { allow: "GET, HEAD" });
    }
    Ok(())
}

/// An app whose id is none has no page to link to.
fn entry(app: ListedApp, scheme: &str, host: &str) -> Option<IndexEntry> {
    let id = if app.id.is_empty() { app.name } else { app.id };
    WorkloadId::parse(&id).ok()?;
    Some(IndexEntry {
        url: format!("{scheme}://{id}.{host}/"),
        id,
        status: app.status,
    })
}
