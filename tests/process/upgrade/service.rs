//! A service whose process changes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::{Ended, Ingress, eventually};

/// A service; whichever process serves it ends with its test.
pub(crate) struct Service {
    pub(crate) ingress: Ingress,
    current: Current,
    upgrades: usize,
}

/// The process that serves now.
struct Current {
    pid: Pid,
    /// Whether it was started here: then the test ends it anyhow.
    is_first: bool,
}

impl Service {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let ingress = Ingress::start(command);
        Self {
            current: Current {
                pid: ingress.process.pid(),
                is_first: true,
            },
            upgrades: 0,
            ingress,
        }
    }

    /// Asks for an upgrade, and waits for nothing.
    pub(crate) fn ask(&self) {
        kill_process(self.current.pid, Signal::USR2).unwrap();
    }

    /// Replaces the process that serves, and waits until the new one does.
    #[track_caller]
    pub(crate) fn upgrade(&mut self) {
        self.ask();
        self.upgraded();
    }

    /// Waits until an upgrade that was asked for is done.
    #[track_caller]
    pub(crate) fn upgraded(&mut self) {
        let upgrades = self.upgrades;
        self.current.pid = self.wrote("that it was upgraded", |text| {
            let lines = text
                .lines()
                .filter(|line| line.contains("upgraded: the new"));
            pid(lines.collect::<Vec<_>>().get(upgrades)?)
        });
        self.current.is_first = false;
        self.upgrades += 1;
        // Each says by itself what it does.
        self.wrote("that the new one serves", |text| {
            let serving = text.matches(r#""message":"serving""#).count();
            (serving == upgrades + 2).then_some(())
        });
    }

    /// Waits until all processes before the one that serves have ended, the first with 0.
    #[track_caller]
    pub(crate) fn the_old_ones_end(&mut self) {
        assert_eq!(self.ingress.process.exited().code(), Some(0));
        let upgrades = self.upgrades;
        self.wrote("that they stopped", |text| {
            let stopped = text.matches(r#""message":"stopped""#).count();
            (stopped == upgrades).then_some(())
        });
    }

    /// Asks for an upgrade that fails, and gives why.
    #[track_caller]
    pub(crate) fn fails_to_upgrade(&self) -> String {
        let before = failures(&self.ingress.process.text()).count();
        self.ask();
        self.wrote("why it was not upgraded", |text| {
            failures(text).nth(before).map(str::to_owned)
        })
    }

    #[track_caller]
    pub(crate) fn wrote<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        self.ingress.process.wrote(what, find)
    }

    /// What was written when the process that serves began to.
    pub(crate) fn serving(&self) -> Value {
        let text = self.ingress.process.text();
        let line = text
            .lines()
            .rfind(|line| line.contains(r#""message":"serving""#));
        serde_json::from_str(line.unwrap()).unwrap()
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Pid {
        self.current.pid
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.current.pid, signal).unwrap();
    }

    /// Ends it as an operator does.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        self.await_end();
    }

    /// Ends it as a power cut does.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    #[track_caller]
    fn await_end(mut self) {
        if self.current.is_first {
            self.ingress.process.exited();
        } else {
            let pid = self.current.pid;
            eventually("its end", || (!is_alive(pid)).then_some(()));
        }
    }

    /// Waits for the end of one that was not upgraded.
    #[track_caller]
    pub(crate) fn end(self) -> Ended {
        self.ingress.process.end()
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if !self.is_first && is_alive(self.pid) {
            let _gone = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// The lines that say why there was no upgrade.
fn failures(text: &str) -> impl Iterator<Item = &str> {
    let is_one = |line: &&str| line.contains("the upgrade has failed");
    text.lines().filter(is_one)
}

/// Whether a process is there, and is no zombie.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|status| {
        let state = status.rsplit(") ").next();
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    })
}

/// The number in a line of the log.
pub(crate) fn pid(line: &str) -> Option<Pid> {
    let line: Value = serde_json::from_str(line).ok()?;
    Pid::from_raw(i32::try_from(line["pid"].as_i64()?).ok()?)
}

/// The binary by a link in `folder`, which can be led elsewhere.
pub(crate) struct Binary(PathBuf);

impl Binary {
    pub(crate) fn link(folder: &Path) -> Self {
        let link = folder.join("m3o-ingress");
        let binary = Self(link);
        binary.leads_to(Path::new(env!("CARGO_BIN_EXE_m3o-ingress")));
        binary
    }

    pub(crate) fn leads_to(&self, program: &Path) {
        // Gone already the first time.
        let _ = std::fs::remove_file(&self.0);
        std::os::unix::fs::symlink(program, &self.0).unwrap();
    }

    /// `run` with a file that is there.
    pub(crate) fn run(&self, file: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command
            .args(["run", "--config"])
            .arg(file)
            .env_clear()
            .current_dir(file.parent().unwrap())
            .stdin(Stdio::null());
        command
    }
}
