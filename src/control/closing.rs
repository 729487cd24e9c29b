//! Apps and functions that the operator closes for a while, and lists.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Desk, Refused};
use crate::closed::{Closed, Turn};
use crate::id::WorkloadId;
use crate::platform::{ClosingError, Kind, Platform};
use crate::resolve::Backend;

/// What is said to visitors of what is closed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Words {
    message: String,
    retry_after: Option<u32>,
}

impl Desk {
    /// `GET /apps`.
    pub(super) fn listed(&self, kind: Kind) -> Result<Value, Refused> {
        let listed: Vec<Value> = self.platform()?.list(kind)?.iter().map(row).collect();
        Ok(Value::Array(listed))
    }

    /// `POST /apps/NAME/pause`.
    pub(super) async fn close(
        &self,
        kind: Kind,
        path: &str,
        body: &[u8],
    ) -> Result<Value, Refused> {
        let (name, turn) = path.split_once('/').ok_or(Refused::NotFound)?;
        let turn: Turn = turn.parse().map_err(|()| Refused::NotFound)?;
        let platform = self.platform()?;
        let wrong = |why: &dyn std::fmt::Display| Refused::Wrong(why.to_string());
        let id = WorkloadId::parse(name).map_err(|error| wrong(&error))?;
        let words: Words = match body {
            [] => Words::default(),
            body => serde_json::from_slice(body).map_err(|error| wrong(&error))?,
        };
        let closed = match turn {
            Turn::Resume => None,
            Turn::Close(status) => {
                let closed = Closed::new(status, &words.message, words.retry_after);
                Some(closed.map_err(|error| wrong(&error))?)
            }
        };
        let status = closed
            .as_ref()
            .map_or("running", |closed| closed.status().as_str());
        self.note(&format!("{} {id}: {status}", word(kind)));
        platform.close(kind, id, closed).await?;
        Ok(json!({ "name": id.as_str(), "status": status }))
    }

    fn platform(&self) -> Result<&Platform, Refused> {
        self.control.platform.as_deref().ok_or(Refused::Remote)
    }
}

impl From<ClosingError> for Refused {
    fn from(error: ClosingError) -> Self {
        match error {
            ClosingError::NotFound(_) => Self::Missing(error.to_string()),
            ClosingError::Store(_) => Self::Unavailable(error.to_string()),
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "app",
        Kind::Function => "function",
    }
}

/// What a list shows. Of the backend its origin alone: path and query may hold a key.
fn row(described: &Value) -> Value {
    let backend = described["backend"].as_str().map(Backend::parse);
    let backend = match backend {
        Some(Ok(backend)) => backend.origin().to_string(),
        Some(Err(_)) | None => String::new(),
    };
    json!({
        "name": described["name"],
        "status": described["status"],
        "url": described["url"],
        "backend": backend,
    })
}
