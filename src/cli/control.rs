//! Asks a running ingress over its control socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use m3o_ingress::config::{Environment, Reached};
use m3o_ingress::units::duration;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Failure;

/// How the ingress is found.
#[derive(Debug, Args)]
pub(super) struct ControlFlags {
    /// The control socket [default: `listen.control` of the configuration]
    #[arg(long, value_name = "PATH", env = "M3O_INGRESS_CONTROL")]
    control: Option<PathBuf>,
}

impl ControlFlags {
    /// Whether the command line or the environment says it.
    pub(super) fn is_set(&self) -> bool {
        self.control.is_some()
    }
}

/// How an answer is printed.
#[derive(Debug, Args)]
pub(super) struct JsonFlag {
    /// Prints JSON
    #[arg(long, env = "M3O_INGRESS_JSON")]
    pub(super) json: bool,
}

/// A running ingress.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    /// How long an answer may take.
    patience: Duration,
}

/// Why there is no answer that says what was asked.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody says where the socket is.
    Nowhere { config: PathBuf },
    /// Nobody listens there.
    Silent { path: PathBuf, source: io::Error },
    /// The connection broke, or what came back is no answer.
    Broken { place: String, reason: String },
    /// The ingress says no.
    Refused { status: u16, detail: String },
}

impl NoAnswer {
    /// 2 where the question was wrong, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Nowhere { .. } | Self::Refused { status: 400, .. } => 2,
            Self::Silent { .. } | Self::Broken { .. } | Self::Refused { .. } => 1,
        }
    }
}

/// How long most answers may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to see whether anybody listens.
const KNOCK: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const LARGEST: u64 = 64 << 20;

impl Control {
    /// The one that the flag names, else the configuration at `config`.
    pub(super) fn find(flags: &ControlFlags, config: &Path) -> Result<Self, Failure> {
        let path = match &flags.control {
            Some(path) => path.clone(),
            None => Reached::load(config, &Environment::of_this_process())
                .map_err(Failure::Configuration)?
                .control
                .ok_or_else(|| {
                    let config = config.to_owned();
                    Failure::Control(NoAnswer::Nowhere { config })
                })?,
        };
        Ok(Self {
            path,
            patience: PATIENCE,
        })
    }

    /// The same, where an answer may take longer than others.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where it is asked.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anybody listens there.
    pub(super) fn listens(&self) -> bool {
        connect(&self.path, KNOCK).is_ok()
    }

    /// What came back is no answer.
    pub(super) fn broken(&self, reason: &dyn fmt::Display) -> Failure {
        Failure::Control(NoAnswer::Broken {
            place: shown(&self.path).display().to_string(),
            reason: reason.to_string(),
        })
    }

    /// Asks for `target`.
    pub(super) fn get(&self, target: &str) -> Result<Value, Failure> {
        self.ask("GET", target, "")
    }

    /// Tells it to do `target`.
    pub(super) fn post(&self, target: &str, body: &Value) -> Result<Value, Failure> {
        self.ask("POST", target, &body.to_string())
    }

    /// Whether it takes requests.
    pub(super) fn is_ready(&self) -> Result<bool, Failure> {
        Ok(self.get("/status")?["ready"] == true)
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Result<Value, Failure> {
        let late = |error: &io::Error| self.broken(&reason(error, self.patience));
        let stream = connect(&self.path, self.patience);
        let mut stream = stream.map_err(|source| match source.kind() {
            // The queue is full: somebody listens, and is stuck.
            io::ErrorKind::WouldBlock => late(&source),
            _ => {
                let path = self.path.clone();
                Failure::Control(NoAnswer::Silent { path, source })
            }
        })?;
        let answer = exchange(&mut stream, method, target, body);
        let answer = answer.map_err(|error| late(&error))?;
        let (status, body) = read(&answer).ok_or_else(|| self.broken(&"it is not whole"))?;
        let value: Value = serde_json::from_slice(body).map_err(|error| self.broken(&error))?;
        if status == 200 {
            return Ok(value);
        }
        let detail = value["detail"].as_str().unwrap_or_default().to_owned();
        Err(Failure::Control(NoAnswer::Refused { status, detail }))
    }
}

/// A connection on which nothing, not even its beginning, takes longer than `patience`.
fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_read_timeout(Some(patience))?;
    // For a place in the queue of the listener too (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// What is told of an error on a connection that has so much time.
pub(super) fn reason(error: &io::Error, patience: Duration) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("none came within {}", duration::format(patience))
        }
        _ => error.to_string(),
    }
}

/// The path that is tried, wherever this is read.
fn shown(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn exchange(
    stream: &mut UnixStream,
    method: &str,
    target: &str,
    body: &str,
) -> io::Result<Vec<u8>> {
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body of an answer of ours, which says how long it is.
fn read(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (
        std::str::from_utf8(&answer[..end]).ok()?,
        &answer[end + 4..],
    );
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = length.trim().parse().ok()?;
    Some((status, body.get(..length)?))
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere { config } => write!(
                out,
                "{}: listen.control: it is not set, so a running ingress cannot be asked: set it and start the ingress anew, or name a socket with --control PATH",
                config.display()
            ),
            Self::Silent { path, source } => {
                write!(
                    out,
                    "m3o-ingress: nothing listens at {} ({source}): is the ingress running, as this user, with this listen.control?",
                    shown(path).display()
                )?;
                match path.is_relative() {
                    true => write!(
                        out,
                        " `{}` is relative to this folder: name the socket with --control PATH",
                        path.display()
                    ),
                    false => Ok(()),
                }
            }
            Self::Broken { place, reason } => {
                write!(out, "m3o-ingress: no answer from {place}: {reason}")
            }
            Self::Refused { detail, .. } => out.write_str(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(read(whole), Some((200, &b"{}"[..])));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
        assert_eq!(read(b"\r\n\r\n"), None);
        assert_eq!(read(b"HTTP/1.1 many\r\ncontent-length: 0\r\n\r\n"), None);
    }

    #[test]
    fn who_listens_and_does_not_answer_is_late() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let control = Control {
            path: path.clone(),
            patience: Duration::from_millis(1),
        };
        let told = |failure: Failure| {
            let text = failure.to_string();
            let end = format!("no answer from {}: none came within 1ms", path.display());
            assert!(text.ends_with(&end), "{text}");
        };
        told(control.get("/status").unwrap_err());
        // The first has left, and nobody has accepted it: there is no place in the queue.
        told(control.get("/status").unwrap_err());
    }
}
