//! Every line that the process writes: access log, events, panics.
//!
//! Lines wait in bounded buffers for a thread of their own (`queue`), which writes them to where they
//! belong (`output`). A full buffer or a full disk costs lines, counted, never a request its time.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::metrics::Metrics;
use super::{Config, Format};
use events::Filter;
use output::Output;
use queue::{Full, Queue};
use writer::{Outputs, write_lines};

mod events;
mod output;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

pub use events::EventWriter;
pub use output::BadFile;

/// The way into the log. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Option<Arc<Shared>>,
    metrics: Arc<Metrics>,
    /// Set where this log is the sink of events, and nothing else says what is written.
    filter: Arc<OnceLock<Filter>>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    /// A [`Style`].
    style: AtomicU8,
    /// A [`Layout`].
    layout: AtomicU8,
    /// The file of the access log; `None`: its lines go where all others go.
    file: Mutex<Option<PathBuf>>,
    /// Where the access log goes from now on, until the writer has seen it.
    change: Mutex<Option<Change>>,
}

#[derive(Debug)]
enum Change {
    /// Where all others go.
    Together,
    File(File),
}

/// What another configuration needs, opened.
#[derive(Debug)]
pub struct Opened {
    /// Where the access log goes, by its path, where that is elsewhere than now.
    change: Option<(Option<PathBuf>, Change)>,
    style: Style,
    layout: Layout,
    buffer: usize,
}

/// How lines look, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// How lines of the access log look, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// As Apache and nginx name it.
    Combined,
}

/// The thread that writes. It ends with [`Writer::finish`], or when this is dropped.
#[derive(Debug)]
pub struct Writer {
    log: Log,
    thread: JoinHandle<()>,
}

/// How long the last lines may take: whoever reads them may have stopped reading.
const PATIENCE: Duration = Duration::from_secs(2);

impl Log {
    /// A log that keeps nothing.
    #[must_use]
    pub fn discard(metrics: Arc<Metrics>) -> Self {
        Self {
            shared: None,
            metrics,
            filter: Arc::default(),
        }
    }

    /// Starts the thread that writes to `output`, where also the access log goes until
    /// [`apply`](Self::apply) says otherwise.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        style: Style,
        metrics: Arc<Metrics>,
        output: impl Write + Send + 'static,
    ) -> io::Result<Writer> {
        let layout = match style {
            Style::Human => Layout::Human,
            Style::Json => Layout::Json,
        };
        let shared = Arc::new(Shared {
            queue: Queue::new(usize::try_from(Config::default().buffer).unwrap_or(usize::MAX)),
            style: AtomicU8::new(style as u8),
            layout: AtomicU8::new(layout as u8),
            file: Mutex::default(),
            change: Mutex::default(),
        });
        let log = Self {
            shared: Some(Arc::clone(&shared)),
            metrics: Arc::clone(&metrics),
            filter: Arc::default(),
        };
        let outputs = Outputs {
            all: Output::new(output),
            access: None,
            metrics,
        };
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&shared, outputs))?;
        if let Some(shared) = &log.shared {
            shared.queue.written_by(thread.thread().clone());
            shared.queue.wake();
        }
        Ok(Writer { log, thread })
    }

    /// Opens what lines need to look, and go, as `config` says. Nothing changes before it is
    /// [applied](Self::apply). Its level is not looked at.
    ///
    /// # Errors
    /// When the file of the access log cannot be opened.
    pub fn open(&self, config: &Config) -> Result<Opened, BadFile> {
        let mut change = None;
        if let Some(shared) = &self.shared {
            let wanted = Some(&config.access_file).filter(|path| !path.as_os_str().is_empty());
            if lock(&shared.file).as_ref() != wanted {
                let opened = wanted.map(|path| output::open(path)).transpose()?;
                let to = opened.map_or(Change::Together, Change::File);
                change = Some((wanted.cloned(), to));
            }
        }
        Ok(Opened {
            change,
            style: config.style(),
            layout: config.layout(),
            buffer: usize::try_from(config.buffer).unwrap_or(usize::MAX),
        })
    }

    /// Lets lines look, and go, as was opened, from now on.
    pub fn apply(&self, opened: Opened) {
        let Some(shared) = &self.shared else { return };
        let Opened {
            change,
            style,
            layout,
            buffer,
        } = opened;
        if let Some((path, to)) = change {
            let mut file = lock(&shared.file);
            shared.change(to);
            *file = path;
        }
        shared.style.store(style as u8, Ordering::Relaxed);
        shared.layout.store(layout as u8, Ordering::Relaxed);
        shared.queue.bound(buffer);
    }

    /// Opens the file of the access log anew, because somebody has moved the old one away. A file that
    /// cannot be opened leaves the old one in its place, and the log says so.
    pub fn reopen(&self) {
        let Some(shared) = &self.shared else { return };
        let file = lock(&shared.file);
        let Some(path) = &*file else {
            tracing::info!("there is no log.access_file to reopen");
            return;
        };
        match output::open(path) {
            Ok(opened) => {
                shared.change(Change::File(opened));
                let file = Path::display(path);
                tracing::info!(%file, "reopened the access log");
            }
            Err(error) => {
                let error = error.to_string();
                tracing::error!(error, "the access log goes on in the file that it had");
            }
        }
    }

    /// The series that lost lines are counted in.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Whether anything that is written is kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// How lines look, but for those of the access log.
    #[must_use]
    pub fn style(&self) -> Style {
        let style = self
            .shared
            .as_ref()
            .map(|shared| shared.style.load(Ordering::Relaxed));
        match style {
            Some(style) if style == Style::Human as u8 => Style::Human,
            Some(_) | None => Style::Json,
        }
    }

    /// How lines of the access log look.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let layout = self
            .shared
            .as_ref()
            .map(|shared| shared.layout.load(Ordering::Relaxed));
        match layout {
            Some(layout) if layout == Layout::Human as u8 => Layout::Human,
            Some(layout) if layout == Layout::Combined as u8 => Layout::Combined,
            Some(_) | None => Layout::Json,
        }
    }

    /// Queues one line, its newline included. It is scrubbed before it leaves.
    pub fn write(&self, line: &[u8]) {
        if let Some(shared) = &self.shared {
            self.count(&shared.queue.event(line));
        }
    }

    /// Queues the line of the access log that `format` writes, its newline included: one whose secrets
    /// are hidden already.
    pub fn access(&self, format: impl FnOnce(&mut Vec<u8>)) {
        if let Some(shared) = &self.shared {
            self.count(&shared.queue.access(format));
        }
    }

    fn count(&self, queued: &Result<(), Full>) {
        if queued.is_err() {
            self.metrics.log_lines_dropped.inc();
        }
    }
}

impl Shared {
    fn change(&self, to: Change) {
        *lock(&self.change) = Some(to);
        self.queue.wake();
    }
}

impl Writer {
    /// The way in.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Writes what is queued and ends the thread; gives up on a reader that takes nothing for two
    /// seconds.
    pub fn finish(self) {
        self.end();
        let began = Instant::now();
        while !self.thread.is_finished() && began.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn end(&self) {
        if let Some(shared) = &self.log.shared {
            shared.queue.end();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Config {
    /// How lines look on standard output, but for those of the access log.
    #[must_use]
    pub fn style(&self) -> Style {
        match self.format {
            Format::Human => Style::Human,
            Format::Json => Style::Json,
            Format::Auto | Format::Combined if io::stdout().is_terminal() => Style::Human,
            Format::Auto | Format::Combined => Style::Json,
        }
    }

    /// How lines of the access log look. A file is no terminal.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match (self.format, self.style()) {
            (Format::Combined, _) => Layout::Combined,
            (Format::Auto, _) if !self.access_file.as_os_str().is_empty() => Layout::Json,
            (_, Style::Human) => Layout::Human,
            (_, Style::Json) => Layout::Json,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink in memory, for tests and tools.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// Everything written so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
