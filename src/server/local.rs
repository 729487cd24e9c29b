//! A Unix socket for whoever may open its file: bound under its name as a whole, served on this thread.

use std::fmt;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::connection;
use super::current::Current;
use super::drain::Drain;
use super::settings::ConnectionSettings;
use super::shutdown::{Stage, Stop};
use crate::telemetry::metrics::Metrics;
use crate::wire::timer::Timer;
use crate::wire::{Handler, Peer, Scheme};

/// Connections at once; others wait to be accepted.
const MOST_CONNECTIONS: usize = 16;
/// Connections that may wait.
const BACKLOG: i32 = 64;
/// After `accept` failed: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers that are under way may take at the end.
const DRAIN: Duration = Duration::from_secs(1);
/// What the system takes as the path of a socket (unix(7)), without the zero at its end.
const LONGEST: usize = 107;

/// A bound socket, not yet served.
#[derive(Debug)]
pub struct LocalSocket {
    listener: StdUnixListener,
    /// What it is called when it has taken its name.
    path: PathBuf,
    name: Name,
}

/// The file of a socket of ours. Removed when dropped, if it is ours then.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why there is no socket at a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No path of a file.
    #[error("`{path}` is no path of a file to be made")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// Longer than the system takes.
    #[error(
        "`{path}` is too long for a Unix socket, which has a path of at most {LONGEST} bytes: take a shorter one"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("`{path}` is there and is no socket: remove it, or take another path")]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// The folder cannot be made.
    #[error("the folder of `{path}` cannot be made: {source}")]
    Folder {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on `{path}`: {source}")]
    Other {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Who is at the other end of a connection, as the system knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// The process, where it is told.
    pub pid: Option<i32>,
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "user {}", self.uid)?;
        match self.pid {
            Some(pid) => write!(out, ", process {pid}"),
            None => Ok(()),
        }
    }
}

/// Whether `path` can be the path of a socket.
///
/// # Errors
/// When it names no file, or is too long.
pub fn check_path(path: &Path) -> Result<(), Error> {
    let own = || path.to_owned();
    let Some(name) = path.file_name() else {
        return Err(Error::NoFile { path: own() });
    };
    let (whole, name) = (path.as_os_str().len(), name.len());
    // It is bound under another name first.
    if whole - name + name.max(TEMPORARY) > LONGEST {
        return Err(Error::TooLong { path: own() });
    }
    Ok(())
}

/// The length of a temporary name: a dot, and a number in hexadecimal.
const TEMPORARY: usize = 9;

impl LocalSocket {
    /// Listens for the user of this process alone, under a name that nobody knows until it
    /// [takes](LocalSocket::take_name) that of `path`. A folder that is missing is made, a socket that is
    /// there is replaced: the name goes over to this one at once.
    ///
    /// # Errors
    /// When that cannot be, or another kind of file is there.
    pub fn bind_aside(path: &Path) -> Result<Self, Error> {
        check_path(path)?;
        let other = |source| Error::Other {
            path: path.to_owned(),
            source,
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| Error::Folder {
                path: path.to_owned(),
                source,
            })?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(Error::Occupied {
                    path: path.to_owned(),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(other(error)),
        }
        // Aside and then renamed: nobody finds a name behind which nobody listens.
        let random = uuid::Uuid::now_v7().as_u128() as u32;
        let aside = path.with_file_name(format!(".{random:08x}"));
        Self::bind_as(path, &aside).map_err(|error| {
            // Not there where the failure was to make it.
            let _ = std::fs::remove_file(&aside);
            other(error)
        })
    }

    /// Whether somebody listens at `path`.
    #[must_use]
    pub fn is_answered(path: &Path) -> bool {
        let connected = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Where many wait already, this is not to.
            socket.set_nonblocking(true)?;
            socket.connect(&SockAddr::unix(path)?)
        };
        match connected() {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Has its name lead to it, and no more to whoever had it before.
    ///
    /// # Errors
    /// When the folder does not take it.
    pub fn take_name(&mut self) -> Result<(), Error> {
        if self.name.path != self.path {
            let renamed = std::fs::rename(&self.name.path, &self.path);
            renamed.map_err(|source| Error::Other {
                path: self.path.clone(),
                source,
            })?;
            self.name.path.clone_from(&self.path);
        }
        Ok(())
    }

    fn bind_as(path: &Path, aside: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(aside)?)?;
        // Before it listens, so there is no moment in which another user could connect.
        std::fs::set_permissions(aside, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let made = std::fs::symlink_metadata(aside)?;
        Ok(Self {
            listener: socket.into(),
            path: path.to_owned(),
            name: Name {
                path: aside.to_owned(),
                device: made.dev(),
                inode: made.ino(),
            },
        })
    }

    /// Serves until `stop` drains, each connection with the handler that `greet` has for its caller.
    ///
    /// # Errors
    /// When the runtime does not take the socket.
    pub async fn serve<H: Handler + 'static>(
        self,
        greet: impl Fn(Option<Caller>) -> H,
        settings: ConnectionSettings,
        metrics: Arc<Metrics>,
        mut stop: Stop,
    ) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener)?;
        let drain = Rc::new(Drain::default());
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.reached(Stage::Draining) => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a local connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let current = Current::new(greet(caller(&stream)), settings.clone());
            let drained = drain.join();
            let metrics = Arc::clone(&metrics);
            tasks.spawn_local(async move {
                let peer = Peer::new(NOWHERE, Scheme::Http, Timer::new());
                let serving = connection::serve(stream, place, peer, current, drained);
                if AssertUnwindSafe(serving).catch_unwind().await.is_err() {
                    metrics.panics.inc();
                }
            });
        }
        drop((listener, self.name));
        drain.begin();
        tasks.close();
        let _late = tokio::time::timeout(DRAIN, tasks.wait()).await;
        Ok(())
    }
}

/// A connection of this machine has no address of the network.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The next connection, when there is a place for it.
async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn caller(stream: &UnixStream) -> Option<Caller> {
    let known = stream.peer_cred().ok()?;
    Some(Caller {
        uid: known.uid(),
        pid: known.pid(),
    })
}

impl Drop for Name {
    fn drop(&mut self) {
        // A process that took the name over has another file there.
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|there| there.dev() == self.device && there.ino() == self.inode);
        if is_ours {
            // Nobody is left who could do anything about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn bind(path: &Path) -> Result<LocalSocket, Error> {
        let mut bound = LocalSocket::bind_aside(path)?;
        bound.take_name()?;
        Ok(bound)
    }

    fn said(path: &Path) -> String {
        bind(path).unwrap_err().to_string()
    }

    #[test]
    fn a_socket_is_for_its_user_alone_and_its_name_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/control");
        let socket = bind(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        UnixStream::connect(&path).unwrap();
        let names = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "no other name is left");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_one_of_another_process_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody listens, but the file is there");
        assert!(!LocalSocket::is_answered(&path));
        let first = bind(&path).unwrap();
        assert!(LocalSocket::is_answered(&path));
        UnixStream::connect(&path).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_is_bound_aside_leaves_the_name_to_the_one_before_until_it_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let inode = || std::fs::metadata(&path).unwrap().ino();
        let first = bind(&path).unwrap();
        let before = inode();
        drop(LocalSocket::bind_aside(&path).unwrap());
        let mut second = LocalSocket::bind_aside(&path).unwrap();
        assert_eq!(inode(), before);
        second.take_name().unwrap();
        assert_ne!(inode(), before);
        drop(first);
        UnixStream::connect(&path).unwrap();
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "no other name is left");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "a letter").unwrap();
        assert!(said(&path).ends_with("is no socket: remove it, or take another path"));
        assert_eq!(std::fs::read(&path).unwrap(), b"a letter");
        assert!(said(folder.path()).contains("is no socket"));
        assert!(said(&path.join("socket")).starts_with("the folder of"));
        assert!(said(Path::new("/")).contains("no path of a file"));
    }

    #[test]
    fn a_path_has_as_many_bytes_as_the_system_takes() {
        let folder = tempfile::tempdir().unwrap();
        let left = LONGEST - folder.path().as_os_str().len() - 1;
        let longest = folder.path().join("x".repeat(left));
        drop(bind(&longest).unwrap());
        let longer = folder.path().join("x".repeat(left + 1));
        let text = said(&longer);
        assert!(text.contains("at most 107 bytes"), "{text}");
        // The name under which it is made counts too.
        let deep = folder.path().join("x".repeat(left - 5));
        let text = said(&deep.join("abcd"));
        assert!(text.contains("at most 107 bytes"), "{text}");
    }
}
