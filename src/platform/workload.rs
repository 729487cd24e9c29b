//! What apps and functions have in common: a name, and a backend that runs them.

use serde_json::{Value, json};

use super::error::Error;
use super::fields::Fields;
use crate::closed::Closed;
use crate::id::WorkloadId;
use crate::pool::{Origin, Reach};

/// A name for a new app or function.
pub(super) fn new_name(fields: &Fields) -> Result<WorkloadId, Error> {
    WorkloadId::parse(&fields.required("name")?)
        .map_err(|error| Error::field("name", error.to_string()))
}

/// The name of one that is there; one that could never be, is not.
pub(super) fn known_name(
    fields: &Fields,
    field: &'static str,
    kind: &'static str,
) -> Result<WorkloadId, Error> {
    WorkloadId::parse(&fields.required(field)?).map_err(|_| Error::NotFound(kind))
}

/// Where a new one runs.
pub(super) fn new_backend(fields: &Fields) -> Result<String, Error> {
    backend(fields)?.ok_or_else(|| {
        Error::field(
            "backend",
            "is missing: this platform runs no builds, so say where the code runs already, as an http(s) or h2c URL",
        )
    })
}

/// Where it runs, if that is said.
pub(super) fn backend(fields: &Fields) -> Result<Option<String>, Error> {
    let Some(backend) = fields.filled("backend")? else {
        return Ok(None);
    };
    check_backend(&backend)?;
    Ok(Some(backend))
}

/// Refuses what could not be connected to.
pub(super) fn check_backend(backend: &str) -> Result<url::Url, Error> {
    let wrong = |why: &dyn std::fmt::Display| {
        let why = format!("must be an absolute http(s) or h2c URL: {why}");
        Error::field("backend", why)
    };
    if !backend.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(&"it has a space, a control or a non-ASCII character"));
    }
    let url = url::Url::parse(backend).map_err(|error| wrong(&error))?;
    Origin::of(&url, Reach::Workload).map_err(|error| wrong(&error))?;
    if url.fragment().is_some() {
        return Err(wrong(&"it has a fragment"));
    }
    Ok(url)
}

/// What `Resolve` and `Proxy` give.
pub(super) fn resolved(backend: &str, closed: Option<&Closed>) -> Value {
    let mut resolved = json!({ "url": backend });
    if let Some(closed) = closed {
        resolved["closed"] = json!(closed);
    }
    resolved
}

/// How it is: closed, or `open` in the words of its kind.
pub(super) fn status(closed: Option<&Closed>, open: &'static str) -> &'static str {
    closed.map_or(open, |closed| closed.status().as_str())
}

/// A TCP port, if one is said.
pub(super) fn port(fields: &Fields) -> Result<Option<u16>, Error> {
    fields
        .integer("port")?
        .map(|port| {
            u16::try_from(port).map_err(|_| Error::field("port", "must be from 0 to 65535"))
        })
        .transpose()
}

/// The one place where code can run: wherever its backend is.
pub(super) const REGION: &str = "local";

/// All of them.
pub(super) fn regions() -> Value {
    json!({ "regions": [REGION] })
}

/// A region that there is, if one is said.
pub(super) fn region(fields: &Fields) -> Result<Option<String>, Error> {
    match fields.filled("region")? {
        Some(region) if region != REGION => Err(Error::field(
            "region",
            format!("there is none but `{REGION}`: code runs where its backend is"),
        )),
        region => Ok(region),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_region_is_local() {
        let read = |json: &str| region(&Fields::parse(json.as_bytes()).unwrap());
        let said = Some("local".to_owned());
        assert_eq!(read(r#"{"region":"local"}"#).unwrap(), said);
        assert_eq!(read(r#"{"region":""}"#).unwrap(), None, "forms send it");
        assert_eq!(read("{}").unwrap(), None);
        let error = read(r#"{"region":"fra1"}"#).unwrap_err().to_string();
        assert!(
            error.starts_with("region: there is none but `local`"),
            "{error}"
        );
    }

    #[test]
    fn a_backend_is_an_absolute_url() {
        for good in [
            "http://127.0.0.1:3000",
            "https://a.example/base?x=y",
            "http://[::1]/",
        ] {
            assert!(check_backend(good).is_ok(), "{good}");
        }
        for bad in [
            "example.com",
            "/path",
            "ftp://a.example",
            "http://",
            "http://user:pw@a.example",
            "http://a.example/#f",
            "http://a.example/a b",
            "unix:/run/a.sock",
        ] {
            let error = check_backend(bad).unwrap_err().to_string();
            assert!(error.starts_with("backend: must be"), "{bad}: {error}");
        }
    }
}
