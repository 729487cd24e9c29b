//! The environment, as a value: read once, and made up in tests.

use std::collections::BTreeMap;

/// The prefix of variables that stand for a key: `M3O_INGRESS_TIMEOUTS__HEADER`.
const PREFIX: &str = "M3O_INGRESS_";

/// The variables with that prefix that stand for a flag of the command line.
pub const FLAGS: [&str; 18] = [
    "M3O_INGRESS_CONFIG",
    "M3O_INGRESS_CONTROL",
    "M3O_INGRESS_DEV_ADMIN",
    "M3O_INGRESS_DEV_CA",
    "M3O_INGRESS_DEV_DATA",
    "M3O_INGRESS_DEV_HTTP",
    "M3O_INGRESS_DEV_HTTPS",
    "M3O_INGRESS_EXPLAIN_FROM",
    "M3O_INGRESS_EXPLAIN_HEADER",
    "M3O_INGRESS_EXPLAIN_HOST",
    "M3O_INGRESS_EXPLAIN_METHOD",
    "M3O_INGRESS_JSON",
    "M3O_INGRESS_LOG_FORMAT",
    "M3O_INGRESS_LOG_LEVEL",
    "M3O_INGRESS_MESSAGE",
    "M3O_INGRESS_OFFLINE",
    "M3O_INGRESS_RETRY_AFTER",
    "M3O_INGRESS_RUNNING",
];

/// The variables of a process.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process. What is not UTF-8 is read with `U+FFFD` in its place.
    #[must_use]
    pub fn of_this_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| {
                let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
                (text(name), text(value))
            })
            .collect()
    }

    /// The value of one variable.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The variables that stand for a key of the file, each with the path of that key.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, Vec<String>, &str)> {
        self.0.iter().filter_map(|(name, value)| {
            let path = name.strip_prefix(PREFIX)?;
            let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
            (path.len() > 1).then_some((name.as_str(), path, value.as_str()))
        })
    }

    /// The other variables with our prefix: they name no section and key.
    pub(super) fn others(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| {
            name.strip_prefix(PREFIX)
                .is_some_and(|rest| !rest.contains("__"))
        })
    }
}

/// The variable that stands for the key at `path`.
pub(super) fn variable(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join("__").to_ascii_uppercase())
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let pair = |(name, value): (N, V)| (name.into(), value.into());
        Self(variables.into_iter().map(pair).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values may be secrets.
        out.debug_set().entries(self.0.keys()).finish()
    }
}
