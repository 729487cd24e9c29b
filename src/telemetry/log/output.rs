//! Where lines leave the process: an output that may fail, and take lines again later.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::{memchr, memchr_iter, memrchr};
use prometheus::IntCounter;
use rustix::fs::OFlags;
use tokio::time::Instant;

/// A file of the access log that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log.access_file: `{path}` cannot be opened: {source}", path = path.display())]
pub struct BadFile {
    path: PathBuf,
    source: io::Error,
}

/// Opens the file of an access log, or makes it: 0640, as those who read logs are of its group.
///
/// It is opened without waiting: a pipe that nobody reads is an error, and one that is full a line
/// that is lost.
pub(super) fn open(path: &Path) -> Result<File, BadFile> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
        .map_err(|source| BadFile {
            path: path.to_owned(),
            source,
        })
}

/// An output, and what is owed to it.
pub(super) struct Output<W> {
    /// What is left of a line that was written in part: it goes first, so that no line begins within
    /// another.
    rest: Vec<u8>,
    failing: bool,
    told: Option<Instant>,
    /// Counts the lines that are lost.
    dropped: IntCounter,
    to: W,
}

/// What came of writing.
#[derive(Debug)]
pub(super) enum Written {
    /// Everything is out.
    All,
    /// The same, for the first time after a failure.
    Again,
    /// Whole lines are lost, and counted.
    Lost {
        error: io::Error,
        /// Whether somebody is to be told: that is said now and then.
        tell: bool,
    },
}

/// Between two times that a failure is told.
const TELL: Duration = Duration::from_secs(60);

/// How long a pipe may be full before lines are lost.
const FULL: Duration = Duration::from_millis(200);

impl<W: Write> Output<W> {
    pub(super) fn new(to: W, dropped: IntCounter) -> Self {
        Self {
            to,
            dropped,
            rest: Vec::new(),
            failing: false,
            told: None,
        }
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> Written {
        let mut rest = std::mem::take(&mut self.rest);
        let (count, failed) = write_some(&mut self.to, &rest);
        if let Some(error) = failed {
            rest.drain(..count);
            self.rest = rest;
            return self.lost(lines, error);
        }
        let (count, failed) = write_some(&mut self.to, lines);
        let Some(error) = failed else {
            return match std::mem::take(&mut self.failing) {
                true => Written::Again,
                false => Written::All,
            };
        };
        let is_torn = count > memrchr(b'\n', &lines[..count]).map_or(0, |end| end + 1);
        let next = match is_torn {
            true => memchr(b'\n', &lines[count..]).map_or(lines.len(), |end| count + end + 1),
            false => count,
        };
        self.rest.extend_from_slice(&lines[count..next]);
        self.lost(&lines[next..], error)
    }

    fn lost(&mut self, lines: &[u8], error: io::Error) -> Written {
        self.failing = true;
        let tell = self.told.is_none_or(|told| told.elapsed() >= TELL);
        if tell {
            self.told = Some(Instant::now());
        }
        let count = memchr_iter(b'\n', lines).count();
        self.dropped.inc_by(count as u64);
        Written::Lost { error, tell }
    }
}

impl<W> Output<W> {
    /// Counts the line that was cut, if its rest goes nowhere any more.
    fn abandon(&mut self) {
        if !self.rest.is_empty() {
            self.rest.clear();
            self.dropped.inc();
        }
    }
}

impl<W> Drop for Output<W> {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Output<File> {
    /// Goes on in `file`, which may be the same one.
    pub(super) fn replace(&mut self, file: File) {
        let place = |file: &File| file.metadata().map(|is| (is.dev(), is.ino())).ok();
        if place(&self.to) != place(&file) {
            self.abandon();
        }
        self.to = file;
    }
}

/// Writes as much as can be written, and says why that is not all.
fn write_some(to: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut count = 0;
    let mut full: Option<Instant> = None;
    while count < bytes.len() {
        match to.write(&bytes[count..]) {
            Ok(0) => return (count, Some(io::ErrorKind::WriteZero.into())),
            Ok(more) => {
                count += more;
                full = None;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if full.get_or_insert_with(Instant::now).elapsed() >= FULL {
                    return (count, Some(error));
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Err(error) => return (count, Some(error)),
        }
    }
    (count, to.flush().err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::counter;

    /// A disk with room for so many octets.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let count = data.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(&data[..count]);
            self.room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn on_disk(room: usize) -> (Output<Disk>, IntCounter) {
        let written = Vec::new();
        let lost = counter("lost", "of a test");
        (Output::new(Disk { written, room }, lost.clone()), lost)
    }

    #[test]
    fn a_line_that_was_cut_and_goes_no_further_is_lost() {
        for (room, lines) in [(4, 0), (5, 1), (7, 1), (8, 0)] {
            let (mut output, lost) = on_disk(room);
            let _full = output.write(b"one\ntwo\n");
            let counted = lost.get();
            drop(output);
            assert_eq!(lost.get() - counted, lines, "{room}");
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| open(&folder.path().join(name)).unwrap();
        let lost = counter("lost", "of a test");
        let mut output = Output::new(at("access.log"), lost.clone());
        output.rest.extend_from_slice(b"cut\n");
        output.replace(at("access.log"));
        assert_eq!(lost.get(), 0, "it is the same file");
        output.replace(at("other.log"));
        assert_eq!(lost.get(), 1);
    }

    #[test]
    fn on_a_full_disk_lines_are_lost_whole_wherever_it_became_full() {
        for room in 0..=12 {
            let (mut output, lost) = on_disk(room);
            let mut told = 0;
            for lines in ["one\ntwo\n", "six\n", "ten\n"] {
                if let Written::Lost { tell, .. } = output.write(lines.as_bytes()) {
                    told += usize::from(tell);
                }
            }
            assert!(told <= 1, "{told}");
            output.to.room = 100;
            let again = output.write(b"new\n");
            assert!(matches!(again, Written::Again), "{room}: {again:?}");
            assert!(matches!(output.write(b"end\n"), Written::All));
            let text = String::from_utf8(std::mem::take(&mut output.to.written)).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len() as u64 + lost.get(), 6, "{room}: {text}");
            assert!(text.ends_with("new\nend\n"), "{room}: {text}");
            for line in lines {
                assert_eq!(line.len(), 3, "{room}: {text}");
            }
        }
    }

    #[test]
    fn a_file_is_made_for_its_group_to_read() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let file = open(&path).unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("log.access_file: `"), "{error}");
    }
}
