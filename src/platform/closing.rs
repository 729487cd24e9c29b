//! Apps and functions that are closed for a while, and opened again: by the operator, not by the API.

use serde_json::Value;

use super::Platform;
use super::apps::App;
use super::error::Error;
use super::functions::Function;
use super::kept::{self, Kept};
use super::store::Transaction;
use crate::closed::Closed;
use crate::id::WorkloadId;

/// An app or a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An app.
    App,
    /// A function.
    Function,
}

/// Why nothing was changed, or listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClosingError {
    /// There is none of that name.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The store cannot be read or written now.
    #[error("the store: {0}")]
    Store(String),
}

impl Platform {
    /// Closes the app or function `name`, or opens it again. Durable when it returns, and seen by the very
    /// next request.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn close(
        &self,
        kind: Kind,
        name: WorkloadId,
        closed: Option<Closed>,
    ) -> Result<(), ClosingError> {
        let written = match kind {
            Kind::App => self.write_closed::<App>(name, closed).await,
            Kind::Function => self.write_closed::<Function>(name, closed).await,
        };
        written.map_err(ClosingError::from)
    }

    async fn write_closed<K: Kept>(
        &self,
        name: WorkloadId,
        closed: Option<Closed>,
    ) -> Result<(), Error> {
        let change = move |record: &mut K, _: &mut Transaction<'_>| {
            *record.closed() = closed;
            Ok(())
        };
        kept::update_named(self, name, change).await
    }

    /// Every app, or every function, as the API gives it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self, kind: Kind) -> Result<Vec<Value>, ClosingError> {
        let listed = match kind {
            Kind::App => kept::list::<App>(self),
            Kind::Function => kept::list::<Function>(self),
        };
        listed.map_err(ClosingError::from)
    }
}

impl From<Error> for ClosingError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(kind) => Self::NotFound(kind),
            error => Self::Store(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{TestPlatform, check};
    use super::*;
    use crate::closed::Status;

    #[tokio::test]
    async fn what_is_closed_says_so_until_it_is_opened_again() {
        let platform = TestPlatform::new();
        let backend = "http://127.0.0.1:3000";
        let run = json!({"name": "blog", "backend": backend});
        assert_eq!(platform.call("app/Run", run).await.0, 200);
        let name = WorkloadId::parse("blog").unwrap();
        let status = async || {
            let (_, got) = platform.call("app/Status", json!({"name": "blog"})).await;
            got["service"]["status"].clone()
        };
        let closed = Closed::new(Status::Maintenance, "soon", Some(60)).unwrap();
        let before = platform.generation();
        let close = async |closed| platform.platform().close(Kind::App, name, closed).await;
        close(Some(closed)).await.unwrap();
        assert!(platform.generation() > before);
        assert_eq!(status().await, "maintenance");
        let resolved = json!({
            "url": backend,
            "closed": {"status": "maintenance", "message": "soon", "retry_after": 60},
        });
        let resolve = || platform.call("app/Resolve", json!({"id": "blog"}));
        check(resolve(), 200, resolved).await;
        // Its owner may change it meanwhile, and not open it by that.
        let moved = json!({"name": "blog", "backend": "http://127.0.0.1:3001"});
        check(platform.call("app/Update", moved), 200, json!({})).await;
        assert_eq!(status().await, "maintenance");
        close(None).await.unwrap();
        assert_eq!(status().await, "running");
        check(resolve(), 200, json!({"url": "http://127.0.0.1:3001"})).await;
        let missing = platform.platform().close(Kind::Function, name, None).await;
        assert_eq!(missing, Err(ClosingError::NotFound("function")));
    }

    #[tokio::test]
    async fn a_closed_function_is_not_called_either() {
        let platform = TestPlatform::new();
        let deploy = json!({"name": "greet", "backend": "http://127.0.0.1:3000"});
        assert_eq!(platform.call("function/Deploy", deploy).await.0, 200);
        let name = WorkloadId::parse("greet").unwrap();
        let closed = Closed::new(Status::Paused, "", None).unwrap();
        let closing = platform.platform();
        closing
            .close(Kind::Function, name, Some(closed))
            .await
            .unwrap();
        let (_, got) = platform
            .call("function/Describe", json!({"name": "greet"}))
            .await;
        assert_eq!(got["function"]["status"], "paused");
        let (status, error) = platform
            .call("function/Call", json!({"name": "greet"}))
            .await;
        let detail = json!("this function is paused");
        assert_eq!((status, &error["detail"]), (503, &detail));
    }
}
