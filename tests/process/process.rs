//! Starts the built binary, keeps all that it writes, and ends it with its test.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// Long enough for a busy machine; nothing waits this long where the fact is there.
pub(crate) const CAP: Duration = Duration::from_secs(30);

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
    std::thread::sleep(Duration::from_millis(10));
}

/// A command of the binary: no variables but those that a test gives.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_m3o-ingress"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Both streams of a process, as they came.
#[derive(Debug, Default)]
struct Written {
    text: Mutex<Vec<u8>>,
    more: Condvar,
}

/// A process of the binary. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    written: Arc<Written>,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// All that it wrote.
    pub(crate) text: String,
}

impl Process {
    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let written = Arc::new(Written::default());
        let readers = vec![
            written.read(child.stdout.take().unwrap()),
            written.read(child.stderr.take().unwrap()),
        ];
        Self {
            child,
            written,
            readers,
        }
    }

    /// Everything written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.text.lock().unwrap()).into_owned()
    }

    /// Waits until it has written what `find` looks for.
    #[track_caller]
    pub(crate) fn wrote<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + CAP;
        let mut over = false;
        let mut written = self.written.text.lock().unwrap();
        loop {
            let text = String::from_utf8_lossy(&written);
            if let Some(found) = find(&text) {
                return found;
            }
            // It may have written its last words between the two looks; the next turn reads them.
            assert!(!over, "ended before it wrote {what}:\n{text}");
            over = self.readers.iter().all(JoinHandle::is_finished);
            assert!(Instant::now() < deadline, "never wrote {what}:\n{text}");
            let short = Duration::from_millis(100);
            written = self.written.more.wait_timeout(written, short).unwrap().0;
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended, whoever else still writes to its streams.
    #[track_caller]
    pub(crate) fn exited(&mut self) -> ExitStatus {
        let deadline = Instant::now() + CAP;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still runs:\n{}", self.text());
            pause();
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let status = self.exited();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended {
            status,
            text: self.text(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already where its end was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Written {
    fn read(self: &Arc<Self>, mut stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let written = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                written
                    .text
                    .lock()
                    .unwrap()
                    .extend_from_slice(&buffer[..count]);
                written.more.notify_all();
            }
        })
    }
}

/// A process that serves.
#[derive(Debug)]
pub(crate) struct Ingress {
    pub(crate) process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

impl Ingress {
    /// `dev` on ports of its own, its store in `folder`.
    #[track_caller]
    pub(crate) fn dev(folder: &Path) -> Self {
        Self::start(dev_command(folder).current_dir(folder))
    }

    /// Starts a command that is to serve, and waits until it does.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let process = Process::spawn(command);
        let (http, https, admin) = process.wrote("where it serves", |text| {
            let line = text.lines().find(|line| {
                line.contains("serving") && line.contains("addresses") && line.contains("workers")
            })?;
            let (public, _) = line.split_once("admin")?;
            Some((
                address_after(public, "addresses")?,
                address_after(public, "https"),
                address_after(line, "admin")?,
            ))
        });
        Self {
            process,
            http,
            https,
            admin,
        }
    }

    /// The port of HTTPS.
    #[track_caller]
    pub(crate) fn https_port(&self) -> String {
        self.https.unwrap().port().to_string()
    }

    /// Ends it as an operator does, and expects that to go well.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.process.signal(Signal::TERM);
        let ended = self.process.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.text);
        ended.text
    }

    /// Ends it as a power cut does, but for what the system still holds.
    pub(crate) fn kill(self) {
        self.process.signal(Signal::KILL);
        self.process.end();
    }
}

/// `dev` on any ports, its store in `folder`.
pub(crate) fn dev_command(folder: &Path) -> Command {
    let folder = folder.to_str().unwrap();
    command(&[
        "dev",
        "--http",
        "127.0.0.1:0",
        "--https",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--data",
        folder,
    ])
}

/// `run` with `config` as its file, in `folder`.
pub(crate) fn run_command(folder: &Path, config: &str) -> Command {
    let file = folder.join("ingress.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = command(&["run", "--config", file.to_str().unwrap()]);
    command.current_dir(folder);
    command
}

/// Runs a command that is to end on its own.
#[track_caller]
pub(crate) fn ended(command: &mut Command) -> Ended {
    Process::spawn(command).end()
}

/// The first address on loopback after `word`.
fn address_after(line: &str, word: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(word)?;
    let from = &rest[rest.find("127.0.0.1:")?..];
    let end = from.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
    from[..end.unwrap_or(from.len())].parse().ok()
}
