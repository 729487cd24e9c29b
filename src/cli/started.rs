//! What this process was started as: by whom, with which sockets, and what is to be started in its
//! place. Reads the environment, and takes what it announces.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use m3o_ingress::config::Environment;
use m3o_ingress::ingress::{Heir, Inheritance, Program, UPGRADE_STORE_VARIABLE, UPGRADE_VARIABLE};
use m3o_ingress::server::activation::{Announced, BadActivation};
use m3o_ingress::server::notify::{BadVariable, Notifier};
use m3o_ingress::server::passing::Channel;

use super::Failure;

/// A process that is to serve.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) environment: Environment,
    /// What another process gave it.
    pub(super) inheritance: Inheritance,
    /// What is started in its place.
    pub(super) program: Program,
}

/// What the environment announces and is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadStart {
    /// Sockets of systemd.
    #[error(transparent)]
    Activation(#[from] BadActivation),
    /// Where systemd is told how the service is.
    #[error(transparent)]
    Notify(#[from] BadVariable),
    /// A process that would hand over, and is none.
    #[error(
        "{UPGRADE_VARIABLE}: `{value}`: {source}; it is set for the process that an ingress starts at SIGUSR2: unset it"
    )]
    Upgrade {
        /// What the variable says.
        value: String,
        /// What is wrong.
        source: io::Error,
    },
    /// The process that hands over does not go through with it.
    #[error("the process before this one does not hand over: {0}")]
    Handover(#[source] io::Error),
}

impl BadStart {
    /// Whether whoever started this process is to blame.
    pub(super) fn is_configuration(&self) -> bool {
        match self {
            Self::Activation(_) | Self::Notify(_) | Self::Upgrade { .. } => true,
            Self::Handover(_) => false,
        }
    }
}

/// Serves as what this process was started as. Where it fails, the process that it was to replace hears
/// why and goes on. To be called before anything opens a file or begins a thread.
pub(super) fn started(serve: impl FnOnce(Started) -> Result<(), Failure>) -> Result<(), Failure> {
    let pid = std::process::id();
    let environment = Environment::of_this_process();
    let variable = |name| environment.value(name);
    let announced = Announced::read(variable, pid).map_err(BadStart::from)?;
    // First of all: what is opened from here on must not be taken for one of them.
    let mut sockets = announced.take().map_err(BadStart::from)?;
    let notifier = Notifier::read(variable, pid).map_err(BadStart::from)?;
    let before = match environment.value(UPGRADE_VARIABLE) {
        Some(value) => {
            let channel = channel(value, std::os::unix::process::parent_id());
            let channel = channel.map_err(|source| BadStart::Upgrade {
                value: value.to_owned(),
                source,
            })?;
            let store = environment.value(UPGRADE_STORE_VARIABLE).map(Path::new);
            let taken = Heir::new(channel, store);
            let (before, passed) = taken.map_err(BadStart::Handover)?;
            sockets.0.extend(passed.0);
            Some(before)
        }
        None => None,
    };
    let program = program();
    let served = serve(Started {
        environment,
        inheritance: Inheritance {
            sockets,
            before: before.clone(),
            notifier,
        },
        program,
    });
    if let (Err(failure), Some(before)) = (&served, before) {
        let text = failure.to_string();
        before.failed(text.strip_prefix("m3o-ingress: ").unwrap_or(&text));
    }
    served
}

/// The way to the process that the variable names.
fn channel(value: &str, parent: u32) -> io::Result<Channel> {
    let from: u32 = value
        .parse()
        .map_err(|_| io::Error::other("this is no number of a process"))?;
    if from != parent {
        return Err(io::Error::other(
            "that is not the process that started this one",
        ));
    }
    Channel::from_standard_input()
}

/// This program as it was started, so that a file that takes the place of its own is the next one.
fn program() -> Program {
    let mut line = std::env::args_os();
    let name = line.next().unwrap_or_default();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    Program {
        path: path(&name, &folders),
        arguments: line.collect(),
    }
}

/// The path that `name` leads by to this program, a link too; else where its file is.
fn path(name: &OsStr, folders: &OsStr) -> PathBuf {
    let own = Path::new("/proc/self/exe");
    let is_own = |path: &PathBuf| match (path.metadata(), own.metadata()) {
        (Ok(path), Ok(own)) => (path.dev(), path.ino()) == (own.dev(), own.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    };
    let named = match Path::new(name).components().count() {
        0 | 1 if !name.as_encoded_bytes().contains(&b'/') => {
            let candidates = std::env::split_paths(folders).map(|folder| folder.join(name));
            candidates.map(absolute).find(is_own)
        }
        _ => Some(absolute(PathBuf::from(name))).filter(is_own),
    };
    named.unwrap_or_else(|| std::env::current_exe().unwrap_or_else(|_| own.to_owned()))
}

/// The folder that is current may be another one later.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

impl From<BadStart> for Failure {
    fn from(error: BadStart) -> Self {
        Self::Start(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_what_its_name_leads_to_and_a_link_stays_one() {
        let own = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("ingress");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        let nowhere = std::ffi::OsString::from("/no/such/folder");
        assert_eq!(path(link.as_os_str(), &nowhere), link);
        let folders = std::env::join_paths([Path::new("/no/such/folder"), folder.path()]);
        assert_eq!(path("ingress".as_ref(), &folders.unwrap()), link);
        // A name that leads to something else, or to nothing, is not believed.
        for name in ["/bin/sh", "sh", "", "no-such-program"] {
            assert_eq!(path(name.as_ref(), &nowhere), own, "{name}");
        }
    }

    #[test]
    fn a_process_that_nobody_hands_over_to_says_so() {
        let check = |value: &str, parent: u32, words: &str| {
            let source = channel(value, parent).unwrap_err();
            let value = value.to_owned();
            let text = BadStart::Upgrade { value, source }.to_string();
            assert!(text.contains(words), "{text}");
            assert!(text.contains(UPGRADE_VARIABLE), "{text}");
        };
        for garbage in ["", "yes", "-1", "1 ", "99999999999999999999"] {
            check(garbage, 1, "no number of a process");
        }
        check("2", 1, "not the process that started this one");
        // The standard input of a test is no socket of an ingress.
        check("1", 1, "no socket of an ingress");
    }
}
