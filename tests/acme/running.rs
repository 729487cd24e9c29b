//! Programs of others, ended with their test, and how to wait for a fact.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// Long enough for a busy machine; nothing waits this long where the fact is there.
const CAP: Duration = Duration::from_secs(60);

/// Waits for a fact.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + CAP;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has a thread of its own; this is between two looks at a fact"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// A port of loopback that nobody has right now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A program that runs beside a test. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    /// Starts it, and waits until it listens on `port`.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; tests/setup installs it"));
        let mut program = Self(child);
        eventually(&format!("{name} listens"), || {
            if let Some(status) = program.0.try_wait().unwrap() {
                panic!("{name} ended with {status}");
            }
            TcpStream::connect(loopback(port)).ok()
        });
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
