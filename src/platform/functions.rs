//! `function`: the functions, where each of them runs, and calling them.

use std::collections::BTreeMap;
use std::rc::Rc;

use http::{Method, Uri, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{Error, JSON};
use super::fields::Fields;
use super::kept::{self, Kept};
use super::store::{self, Read, Table};
use super::{Platform, workload};
use crate::closed::Closed;
use crate::id::WorkloadId;
use crate::pool::{Origin, Pool, Reach};
use crate::telemetry::client::Side;
use crate::wire::{Body, Request};

/// A function as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Function {
    backend: String,
    /// That it takes no requests for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<Closed>,
    details: BTreeMap<String, String>,
    env_vars: BTreeMap<String, String>,
    created: Timestamp,
    updated: Timestamp,
}

/// What is kept as it was said, and changes nothing here.
const DETAILS: [&str; 7] = [
    "repo",
    "branch",
    "region",
    "runtime",
    "entrypoint",
    "subfolder",
    "source",
];

/// Answers `function.<endpoint>`.
pub(super) async fn call(
    platform: &Platform,
    endpoint: &str,
    fields: &Fields,
    pool: &Rc<Pool>,
) -> Result<Value, Error> {
    match endpoint {
        "Deploy" => deploy(platform, fields).await,
        "Call" => call_function(platform, fields, pool).await,
        "Describe" => Ok(json!({ "function": kept::described::<Function>(platform, fields)? })),
        "Update" => {
            let changed = Changed::of(fields)?;
            kept::update(platform, fields, |function, _| {
                changed.apply(function);
                Ok(())
            })
            .await
        }
        "Delete" => kept::delete::<Function>(platform, fields).await,
        "List" => Ok(json!({ "functions": kept::list::<Function>(platform)? })),
        "Proxy" => {
            let (_, function) = kept::find::<Function>(platform, fields, "id")?;
            let closed = function.closed.as_ref();
            Ok(workload::resolved(&function.backend, closed))
        }
        "Regions" => Ok(workload::regions()),
        // Nothing is built or started here: whatever its backend runs on, it is not ours.
        "Runtimes" => Ok(json!({ "runtimes": ["external"] })),
        "Logs" => kept::find::<Function>(platform, fields, "name").map(|_| json!({ "logs": "" })),
        "Reserve" => Err(Error::NotBuilt),
        _ => Err(Error::NoEndpoint),
    }
}

/// Adds the function `name`, or leads it elsewhere.
pub(super) async fn upsert(
    platform: &Platform,
    name: WorkloadId,
    backend: &str,
) -> Result<(), Error> {
    kept::upsert(platform, name, Function::new(backend.to_owned())).await
}

async fn deploy(platform: &Platform, fields: &Fields) -> Result<Value, Error> {
    let name = workload::new_name(fields)?;
    let mut function = Function::new(workload::new_backend(fields)?);
    Changed::of(fields)?.apply(&mut function);
    let function = kept::insert(platform, name, function, |_, _| Ok(())).await?;
    Ok(json!({ "function": function.to_json(platform, &platform.store.read()?, &name)? }))
}

async fn call_function(
    platform: &Platform,
    fields: &Fields,
    pool: &Rc<Pool>,
) -> Result<Value, Error> {
    let argument = fields.object("request")?.unwrap_or_default();
    let (_, function) = kept::find::<Function>(platform, fields, "name")?;
    if let Some(closed) = function.closed {
        return Err(Error::Closed(closed));
    }
    let exchange = exchange(&function.backend, argument, pool);
    // From head to end: then the ingress gives the whole call up anyhow.
    let limit = platform.ways().rules.timeouts.response;
    let answer = tokio::time::timeout(limit, exchange).await;
    let response = answer.map_err(|_| Error::TimedOut)??;
    Ok(json!({ "response": response }))
}

/// Sends `argument` to the backend and reads the object that it answers.
async fn exchange(
    backend: &str,
    argument: Map<String, Value>,
    pool: &Rc<Pool>,
) -> Result<Map<String, Value>, Error> {
    let url = workload::check_backend(backend).map_err(|_| Error::Unreachable)?;
    let origin = Origin::of(&url, Reach::Workload).map_err(|_| Error::Unreachable)?;
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    // An h2c URL may have no path.
    let slash = if target.starts_with('/') { "" } else { "/" };
    let target: Uri = format!("{slash}{target}")
        .parse()
        .map_err(|_| Error::Unreachable)?;

    let mut request = Request::new(Body::from(Value::Object(argument).to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    headers.insert(header::HOST, origin.authority().clone());
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::ACCEPT, JSON);

    let asking = pool.asking(Side::Backend);
    let response = pool.send(&origin, request).await.map_err(|error| {
        tracing::warn!(backend = %origin, %error, "a function is not reachable: {error}");
        Error::Unreachable
    })?;
    let status = response.status();
    asking.answered(status);
    if !status.is_success() {
        return Err(Error::Failed(status.as_u16()));
    }
    let body = response.into_body().collect(MAX_ANSWER).await;
    let body = body.map_err(|_| Error::BadAnswer)?;
    serde_json::from_slice(&body).map_err(|_| Error::BadAnswer)
}

/// The fields of a call that change a function; what is absent stays.
struct Changed {
    backend: Option<String>,
    details: BTreeMap<String, String>,
    env_vars: Option<BTreeMap<String, String>>,
}

impl Changed {
    fn of(fields: &Fields) -> Result<Self, Error> {
        let mut details = BTreeMap::new();
        if let Some(region) = workload::region(fields)? {
            details.insert("region".to_owned(), region);
        }
        for name in DETAILS.into_iter().filter(|name| *name != "region") {
            if let Some(value) = fields.text(name)? {
                details.insert(name.to_owned(), value);
            }
        }
        Ok(Self {
            backend: workload::backend(fields)?,
            details,
            env_vars: fields.texts("env_vars")?,
        })
    }

    fn apply(self, function: &mut Function) {
        if let Some(backend) = self.backend {
            function.backend = backend;
        }
        function.details.extend(self.details);
        if let Some(env_vars) = self.env_vars {
            function.env_vars = env_vars;
        }
    }
}

impl Kept for Function {
    const TABLE: Table = Table::Functions;
    const KIND: &'static str = "function";

    fn backend(&mut self) -> &mut String {
        &mut self.backend
    }

    fn closed(&mut self) -> &mut Option<Closed> {
        &mut self.closed
    }

    fn touch(&mut self) {
        self.updated = Timestamp::now();
    }

    fn to_json(
        &self,
        platform: &Platform,
        _read: &impl Read,
        name: &WorkloadId,
    ) -> Result<Value, store::Error> {
        let mut json = json!({
            "id": name.as_str(),
            "name": name.as_str(),
            "status": workload::status(self.closed.as_ref(), "Deployed"),
            "url": platform.ways().links.function(name),
            "backend": self.backend,
            "created": self.created.to_string(),
            "updated": self.updated.to_string(),
            "env_vars": self.env_vars,
        });
        for detail in DETAILS {
            json[detail] = self.details.get(detail).map_or("", String::as_str).into();
        }
        Ok(json)
    }
}

impl Function {
    fn new(backend: String) -> Self {
        let now = Timestamp::now();
        Self {
            backend,
            closed: None,
            details: BTreeMap::from([("region".to_owned(), workload::REGION.to_owned())]),
            env_vars: BTreeMap::new(),
            created: now,
            updated: now,
        }
    }
}

const MAX_ANSWER: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::super::Rules;
    use super::super::testing::{TestPlatform, check};
    use super::*;

    #[tokio::test]
    async fn a_function_lives_from_deploy_to_delete() {
        let platform = TestPlatform::new();
        let call = |endpoint: &'static str, body| platform.call(endpoint, body);
        let deploy = json!({"name": "greet", "backend": "http://b.example/f", "runtime": "go116"});
        let (status, deployed) = call("function/Deploy", deploy.clone()).await;
        assert_eq!(status, 200, "{deployed}");
        let function = &deployed["function"];
        assert_eq!(function["url"], "https://greet.m3o.sh");
        assert_eq!(function["runtime"], "go116");
        assert_eq!(function["source"], "");
        assert_eq!(call("function/Deploy", deploy).await.0, 409);

        let by_name = || json!({"name": "greet"});
        check(call("function/Describe", by_name()), 200, deployed.clone()).await;
        let all = json!({"functions": [function]});
        check(call("function/List", json!({})), 200, all).await;
        let proxy = || call("function/Proxy", json!({"id": "greet"}));
        check(proxy(), 200, json!({"url": "http://b.example/f"})).await;
        let moved = json!({"name": "greet", "backend": "https://c.example/"});
        check(call("function/Update", moved), 200, json!({})).await;
        check(proxy(), 200, json!({"url": "https://c.example/"})).await;
        check(call("function/Delete", by_name()), 200, json!({})).await;
        assert_eq!(platform.generation(), 3);
        for endpoint in ["Describe", "Update", "Delete", "Logs", "Call"] {
            let (status, error) = platform
                .call(&format!("function/{endpoint}"), by_name())
                .await;
            assert_eq!(
                (status, &error["detail"]),
                (404, &json!("no such function"))
            );
        }
        assert_eq!(proxy().await.0, 404);
    }

    #[tokio::test]
    async fn a_function_that_takes_longer_than_a_response_may_is_a_504() {
        let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut rules = Rules::default();
        rules.timeouts.response = std::time::Duration::from_millis(50);
        let platform = TestPlatform::with_rules(rules);
        let backend = format!("http://{}", deaf.local_addr().unwrap());
        let deploy = json!({"name": "slow", "backend": backend});
        assert_eq!(platform.call("function/Deploy", deploy).await.0, 200);
        let called = tokio::time::Instant::now();
        let call = platform.call("function/Call", json!({"name": "slow"}));
        // The pool sweeps its connections beside the call.
        let (status, error) = LocalSet::new().run_until(call).await;
        let detail = json!("the function took too long to answer");
        assert_eq!((status, &error["detail"]), (504, &detail));
        assert!(called.elapsed().as_secs() < 4);
    }

    #[tokio::test]
    async fn a_function_without_a_backend_is_refused() {
        let platform = TestPlatform::new();
        let (status, error) = platform
            .call("function/Deploy", json!({"name": "a", "source": "x"}))
            .await;
        assert_eq!(status, 400);
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.starts_with("backend: is missing: "), "{detail}");
    }
}
