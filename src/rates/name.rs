//! The name of an app or function, as a table of the configuration has it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::id::WorkloadId;

/// A name that a table of the configuration is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(WorkloadId);

/// A name that no app has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of an app: it has 1 to 63 of a-z, 0-9 and -, with no hyphen at either end"
)]
pub struct BadAppName(String);

impl AppName {
    /// The app's id.
    #[must_use]
    pub fn id(&self) -> WorkloadId {
        self.0
    }
}

impl TryFrom<String> for AppName {
    type Error = BadAppName;

    fn try_from(text: String) -> Result<Self, BadAppName> {
        let id = WorkloadId::parse(&text);
        id.map(Self).map_err(|_| BadAppName(text))
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.0.as_str().to_owned()
    }
}

impl Ord for AppName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl PartialOrd for AppName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
