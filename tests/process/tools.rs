//! Programs of others that judge this one. What is missing is installed, or fails the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Runs a script of tests/node, and gives what it printed.
#[track_caller]
pub(crate) fn node(script: &str, arguments: &[&str]) -> String {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let _lock = one_at_a_time();
        // npm writes this file last.
        if !folder("tests/node/node_modules/.package-lock.json").exists() {
            succeed(
                Command::new("npm")
                    .args(["ci", "--no-audit", "--no-fund"])
                    .current_dir(folder("tests/node")),
            );
        }
    });
    succeed(
        Command::new("node")
            .arg(script)
            .args(arguments)
            .current_dir(folder("tests/node")),
    )
}

/// A Python that has what tests/python/requirements.txt names.
#[track_caller]
pub(crate) fn python() -> Command {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    let packages = PACKAGES.get_or_init(|| {
        let _lock = one_at_a_time();
        let packages = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("test-python");
        if ["aiosmtpd", "grpc"]
            .iter()
            .any(|name| !packages.join(name).exists())
        {
            succeed(
                Command::new("python3")
                    .args(["-m", "pip", "install", "--quiet", "--target"])
                    .arg(&packages)
                    .arg("--requirement")
                    .arg(folder("tests/python/requirements.txt")),
            );
        }
        packages
    });
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages);
    python
}

/// Lets promtool judge, given `input`.
#[track_caller]
pub(crate) fn promtool(arguments: &[&str], input: &str) -> String {
    let given = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(given.path(), input).unwrap();
    succeed(
        Command::new("promtool")
            .args(arguments)
            .stdin(given.reopen().unwrap())
            .current_dir(folder("deploy/prometheus")),
    )
}

/// A path of this repository.
pub(crate) fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a program that is to succeed.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name} is needed, run tests/setup: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} failed, was tests/setup run?\n{said}\n{errors}"
    );
    said
}

/// Held while something is installed: other processes may run tests too.
fn one_at_a_time() -> File {
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools.lock")).unwrap();
    lock.lock().unwrap();
    lock
}
