//! `app`: the apps, and where each of them runs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::domains::{self, DomainName};
use super::error::Error;
use super::fields::Fields;
use super::kept::{self, Kept};
use super::store::{self, Read, Table, Transaction};
use super::{Platform, workload};
use crate::closed::Closed;
use crate::id::WorkloadId;

/// An app as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct App {
    backend: String,
    /// That it takes no requests for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<Closed>,
    repo: String,
    branch: String,
    region: String,
    port: u16,
    env_vars: BTreeMap<String, String>,
    /// Those that it claims; stores of earlier versions know none.
    #[serde(default)]
    custom_domains: Vec<DomainName>,
    created: Timestamp,
    updated: Timestamp,
}

/// Answers `app.<endpoint>`.
pub(super) async fn call(
    platform: &Platform,
    endpoint: &str,
    fields: &Fields,
) -> Result<Value, Error> {
    match endpoint {
        "Run" => run(platform, fields).await,
        "Get" | "Status" => {
            let service = kept::described::<App>(platform, fields)?;
            // Whoever looks may wait for it.
            domains::hurry(platform, &service);
            Ok(json!({ "service": service }))
        }
        "Update" => update(platform, fields).await,
        "Delete" => kept::delete::<App>(platform, fields).await,
        "List" => Ok(json!({ "services": kept::list::<App>(platform)? })),
        "Resolve" => {
            let (name, app) = kept::find::<App>(platform, fields, "id")?;
            let mut resolved = workload::resolved(&app.backend, app.closed.as_ref());
            let is_its =
                |domain: &&DomainName| platform.domains.app_of(domain.as_str()) == Some(name);
            let proven: Vec<&DomainName> = app.custom_domains.iter().filter(is_its).collect();
            if !proven.is_empty() {
                resolved["custom_domains"] = json!(proven);
            }
            Ok(resolved)
        }
        "Regions" => Ok(workload::regions()),
        "Logs" => kept::find::<App>(platform, fields, "name").map(|_| json!({ "logs": "" })),
        "Reserve" => Err(Error::NotBuilt),
        _ => Err(Error::NoEndpoint),
    }
}

/// Adds the app `name`, or leads it elsewhere.
pub(super) async fn upsert(
    platform: &Platform,
    name: WorkloadId,
    backend: &str,
) -> Result<(), Error> {
    kept::upsert(platform, name, App::new(backend.to_owned())).await
}

async fn run(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let name = workload::new_name(fields)?;
    let mut app = App::new(workload::new_backend(fields)?);
    let (changed, claimed) = (Changed::of(fields)?, claimed(platform, fields)?);
    changed.apply(&mut app);
    let finish = move |app: &mut App, tx: &mut Transaction<'_>| app.claim(tx, &name, claimed);
    let app = kept::insert(platform, name, app, finish).await?;
    let service = app.to_json(platform, &platform.store.read()?, &name)?;
    domains::hurry(platform, &service);
    Ok(json!({ "service": service }))
}

/// `Update {name, …}` → `{}`; with `custom_domains` → `{service}`, which says what to publish.
async fn update(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let (changed, claimed) = (Changed::of(fields)?, claimed(platform, fields)?);
    let claims = claimed.is_some();
    let name = workload::known_name(fields, "name", App::KIND)?;
    let change = move |app: &mut App, tx: &mut Transaction<'_>| {
        changed.apply(app);
        app.claim(tx, &name, claimed)
    };
    let updated = kept::update(platform, fields, change).await?;
    if !claims {
        return Ok(updated);
    }
    let service = kept::described::<App>(platform, fields)?;
    domains::hurry(platform, &service);
    Ok(json!({ "service": service }))
}

fn claimed(platform: &Platform, fields: &Fields) -> Result<Option<Vec<DomainName>>, Error> {
    domains::named(fields, &platform.ways().rules.hosts)
}

/// The fields of a call that change an app; what is absent stays.
#[derive(Default)]
struct Changed {
    backend: Option<String>,
    repo: Option<String>,
    branch: Option<String>,
    region: Option<String>,
    port: Option<u16>,
    env_vars: Option<BTreeMap<String, String>>,
}

impl Changed {
    fn of(fields: &Fields) -> Result<Self, Error> {
        Ok(Self {
            backend: workload::backend(fields)?,
            repo: fields.text("repo")?,
            branch: fields.text("branch")?,
            region: workload::region(fields)?,
            port: workload::port(fields)?,
            env_vars: fields.texts("env_vars")?,
        })
    }

    fn apply(self, app: &mut App) {
        let set = |slot: &mut String, value: Option<String>| {
            if let Some(value) = value {
                *slot = value;
            }
        };
        set(&mut app.backend, self.backend);
        set(&mut app.repo, self.repo);
        set(&mut app.branch, self.branch);
        set(&mut app.region, self.region);
        app.port = self.port.unwrap_or(app.port);
        if let Some(env_vars) = self.env_vars {
            app.env_vars = env_vars;
        }
    }
}

impl Kept for App {
    const TABLE: Table = Table::Apps;
    const KIND: &'static str = "app";

    fn backend(&mut self) -> &mut String {
        &mut self.backend
    }

    fn closed(&mut self) -> &mut Option<Closed> {
        &mut self.closed
    }

    fn touch(&mut self) {
        self.updated = Timestamp::now();
    }

    fn release(&self, tx: &mut Transaction<'_>, name: &WorkloadId) {
        domains::release(tx, name, &self.custom_domains);
    }

    fn to_json(
        &self,
        platform: &Platform,
        read: &impl Read,
        name: &WorkloadId,
    ) -> Result<Value, store::Error> {
        Ok(json!({
            "id": name.as_str(),
            "name": name.as_str(),
            "repo": self.repo,
            "branch": self.branch,
            "region": self.region,
            "port": self.port,
            "status": workload::status(self.closed.as_ref(), "running"),
            "url": platform.ways().links.app(name),
            "backend": self.backend,
            "created": self.created.to_string(),
            "updated": self.updated.to_string(),
            "env_vars": self.env_vars,
            "custom_domains": self.custom_domains,
            "domain_proofs": domains::to_json(platform, read, name, &self.custom_domains)?,
        }))
    }
}

impl App {
    fn new(backend: String) -> Self {
        let now = Timestamp::now();
        Self {
            backend,
            closed: None,
            repo: String::new(),
            branch: String::new(),
            region: workload::REGION.to_owned(),
            port: 0,
            env_vars: BTreeMap::new(),
            custom_domains: Vec::new(),
            created: now,
            updated: now,
        }
    }

    /// Claims these domains in place of those that it has, if any are said.
    fn claim(
        &mut self,
        tx: &mut Transaction<'_>,
        name: &WorkloadId,
        claimed: Option<Vec<DomainName>>,
    ) -> Result<(), Error> {
        let Some(claimed) = claimed else {
            return Ok(());
        };
        domains::change(tx, name, &self.custom_domains, &claimed)?;
        self.custom_domains = claimed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPlatform, check};
    use super::*;

    const BACKEND: &str = "http://127.0.0.1:3000/base";

    #[tokio::test]
    async fn an_app_lives_from_run_to_delete() {
        let platform = TestPlatform::new();
        let call = |endpoint: &'static str, body| platform.call(endpoint, body);
        let run = json!({"name": "blog", "backend": BACKEND, "port": "80", "envVars": {"A": "1"}});
        let (status, ran) = call("app/run", run.clone()).await;
        assert_eq!(status, 200, "{ran}");
        let service = &ran["service"];
        assert_eq!(service["url"], "https://blog.m3o.app");
        assert_eq!(service["port"], 80);
        assert_eq!(service["env_vars"], json!({"A": "1"}));
        assert_eq!(service["status"], "running");
        assert!(service["created"].as_str().unwrap().ends_with('Z'));
        assert_eq!(platform.generation(), 1);

        let (status, taken) = call("app/Run", run).await;
        assert_eq!((status, &taken["id"]), (409, &json!("app.Run")));
        let by_name = || json!({"name": "blog"});
        check(call("app/Get", by_name()), 200, ran.clone()).await;
        check(call("app/Status", by_name()), 200, ran.clone()).await;
        check(call("app/Logs", by_name()), 200, json!({"logs": ""})).await;
        check(
            call("app/List", json!({})),
            200,
            json!({"services": [service]}),
        )
        .await;
        let resolve = || call("app/Resolve", json!({"id": "blog"}));
        check(resolve(), 200, json!({"url": BACKEND})).await;

        let moved = json!({"name": "blog", "backend": "https://b.example"});
        check(call("app/Update", moved), 200, json!({})).await;
        check(resolve(), 200, json!({"url": "https://b.example"})).await;
        let (_, got) = call("app/Get", by_name()).await;
        assert_eq!(got["service"]["env_vars"], json!({"A": "1"}), "kept");
        assert_eq!(got["service"]["created"], service["created"]);

        check(call("app/Delete", by_name()), 200, json!({})).await;
        assert_eq!(platform.generation(), 3);
        for endpoint in [
            "app/Get",
            "app/Status",
            "app/Logs",
            "app/Update",
            "app/Delete",
        ] {
            let (status, error) = call(endpoint, by_name()).await;
            assert_eq!((status, &error["detail"]), (404, &json!("no such app")));
        }
        assert_eq!(resolve().await.0, 404);
    }

    #[tokio::test]
    async fn an_app_that_could_not_run_is_refused_with_the_reason() {
        let platform = TestPlatform::new();
        let refused = async |body: Value, detail: &str| {
            let (status, error) = platform.call("app/Run", body).await;
            assert_eq!(status, 400, "{error}");
            let said = error["detail"].as_str().unwrap();
            assert!(said.starts_with(detail), "{said}");
        };
        refused(json!({}), "name: is missing").await;
        refused(
            json!({"name": "A_b", "backend": BACKEND}),
            "name: an id has",
        )
        .await;
        refused(
            json!({"name": "a", "repo": "https://git.example/a"}),
            "backend: is missing: this platform runs no builds",
        )
        .await;
        refused(
            json!({"name": "a", "backend": "a.example"}),
            "backend: must be",
        )
        .await;
        refused(
            json!({"name": "a", "backend": BACKEND, "port": 70_000}),
            "port: ",
        )
        .await;
        refused(
            json!({"name": "a", "backend": BACKEND, "custom_domains": ["a.m3o.app"]}),
            "custom_domains: `a.m3o.app` is one of",
        )
        .await;
        check(
            platform.call("app/List", json!({})),
            200,
            json!({"services": []}),
        )
        .await;
    }

    #[tokio::test]
    async fn the_demo_app_follows_its_backend() {
        let platform = TestPlatform::new();
        for backend in [
            "http://127.0.0.1:1",
            "http://127.0.0.1:2",
            "http://127.0.0.1:2",
        ] {
            platform
                .register_demo(backend, "http://127.0.0.1:3")
                .await
                .unwrap();
            let resolved = platform.call("app/Resolve", json!({"id": "helloworld"}));
            check(resolved, 200, json!({"url": backend})).await;
        }
        assert_eq!(platform.generation(), 3, "nothing is written twice");
        let proxied = platform.call("function/Proxy", json!({"id": "helloworld"}));
        check(proxied, 200, json!({"url": "http://127.0.0.1:3"})).await;
    }
}
