//! A copy of the embedded platform's store, made while it is in use.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Desk, Refused};
use crate::platform::BackupError;

/// Where the copy goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    to: PathBuf,
}

impl Desk {
    /// `POST /backup`.
    pub(super) async fn back_up(&self, body: &[u8]) -> Result<Value, Refused> {
        let platform = self.control.platform.as_ref().ok_or(Refused::Remote)?;
        let Copy { to } =
            serde_json::from_slice(body).map_err(|error| Refused::Wrong(error.to_string()))?;
        // Ours is another working folder than that of whoever asks.
        if !to.is_absolute() {
            return Err(Refused::Wrong(format!(
                "{}: it is no absolute path",
                to.display()
            )));
        }
        self.note(&format!("backup to {}", to.display()));
        let records = Arc::clone(platform).back_up(to.clone()).await?;
        Ok(json!({ "file": to, "records": records }))
    }
}

impl From<BackupError> for Refused {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Exists { .. } => Self::Wrong(error.to_string()),
            BackupError::Store | BackupError::Stopped | BackupError::Copy { .. } => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}
