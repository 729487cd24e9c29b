//! A program that makes and removes records: `COMMAND present|cleanup NAME VALUE`.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::{Action, Record};
use crate::acme::config::Hook;

/// Why a hook did nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::acme) enum HookError {
    /// It could not be started.
    #[error("it cannot be started: {0}")]
    Start(#[source] io::Error),
    /// It ended badly.
    #[error("it ended with {status}{}", said(.text))]
    Failed {
        /// Its exit code, or the signal that ended it.
        status: ExitStatus,
        /// What it wrote last on its standard error.
        text: String,
    },
    /// It took longer than `tls.acme.dns.hook.timeout`, and was killed.
    #[error("it did not end in time, and was killed")]
    TimedOut,
}

/// What a program of ours may see of the environment: none of our secrets are in there.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// As much of what it says is told.
const MOST_TEXT: usize = 512;

/// After it ended, its last words are waited for so long: a child of its own may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs it and waits for its end.
pub(super) async fn run(hook: &Hook, action: Action, record: &Record) -> Result<(), HookError> {
    let mut words = hook.command.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command
        .args(words)
        .args([&action.to_string(), &record.name, &record.value])
        .env_clear()
        .envs(
            PASSED_ON
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .env("ACME_ACTION", action.to_string())
        .env("ACME_NAME", &record.name)
        .env("ACME_VALUE", &record.value)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn().map_err(HookError::Start)?;
    let ended = tokio::time::timeout(hook.timeout, end(child)).await;
    let (status, text) = ended
        .map_err(|_| HookError::TimedOut)?
        .map_err(HookError::Start)?;
    match status.success() {
        true => Ok(()),
        false => Err(HookError::Failed { status, text }),
    }
}

/// Waits for the end of a program; dropped before, it kills it.
async fn end(mut child: Child) -> io::Result<(ExitStatus, String)> {
    let mut errors = child.stderr.take();
    let mut group = Group::of(&child);
    let mut text = Tail::default();
    let status = {
        let wait = child.wait();
        let mut wait = std::pin::pin!(wait);
        loop {
            tokio::select! {
                status = &mut wait => break status?,
                () = text.read(&mut errors), if errors.is_some() => {}
            }
        }
    };
    group.is_over();
    let rest = async {
        while errors.is_some() {
            text.read(&mut errors).await;
        }
    };
    let _late = tokio::time::timeout(LAST_WORDS, rest).await;
    Ok((status, text.into_words()))
}

/// A program and all that it started.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The last that a program wrote.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads once; at the end, or when that fails, there is nothing to read from any more.
    async fn read<R: AsyncRead + Unpin>(&mut self, from: &mut Option<R>) {
        let Some(reader) = from else { return };
        let mut buffer = [0; 1024];
        match reader.read(&mut buffer).await {
            Ok(length) if length > 0 => {
                self.0.extend_from_slice(&buffer[..length]);
                let old = self.0.len().saturating_sub(MOST_TEXT);
                self.0.drain(..old);
            }
            Ok(_) | Err(_) => *from = None,
        }
    }

    fn into_words(self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn said(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(", and said: {text}"),
    }
}
