//! `m3o-ingress backup`: a copy of the embedded platform's store, made by the ingress that uses it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::control::{Control, ControlFlags};
use super::{Failure, print};

/// Where the copy goes.
#[derive(Debug, Args)]
pub(super) struct BackupFlags {
    #[command(flatten)]
    control: ControlFlags,
    /// The file to make, which must not be there; it can be used as `platform.store`
    file: PathBuf,
}

/// A large store takes as long as writing its file does.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Prints what was copied.
pub(super) fn back_up(flags: &BackupFlags, config: &Path) -> Result<(), Failure> {
    let file = std::path::absolute(&flags.file).map_err(Failure::System)?;
    let control = Control::find(&flags.control, config)?.patient(PATIENCE);
    let done = control.post("/backup", &json!({ "to": file }))?;
    // Where it may not be looked at, nobody can say.
    let seen = file.symlink_metadata();
    if seen.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(Failure::Elsewhere(file));
    }
    print(&format!(
        "{}: {} records\n",
        file.display(),
        done["records"]
    ))
}
