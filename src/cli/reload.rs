//! `m3o-ingress reload`: a running ingress reads its configuration again.

use std::path::Path;

use serde_json::json;

use super::control::{Control, ControlFlags};
use super::{Failure, print};

/// Prints what changed; an ingress that refuses says every reason.
pub(super) fn reload(flags: &ControlFlags, config: &Path) -> Result<(), Failure> {
    let report = Control::find(flags, config)?.post("/reload", &json!({}))?;
    print(&format!("{report:#}\n"))
}
