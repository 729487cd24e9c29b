//! Every line that the process writes: access log, events, panics.
//!
//! Lines wait in bounded buffers (`queue`) for a thread of their own (`writer`), one for events and one for
//! the access log, which writes them to where they belong (`output`). A full buffer or a full disk costs
//! lines, counted, never a request its time.

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
use writer::{write_access, write_events};

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
    events: Queue,
    access: Queue,
    /// A [`Style`].
    style: AtomicU8,
    /// A [`Layout`].
    layout: AtomicU8,
    /// The file of the access log; `None`: its lines go where all others go.
    file: Mutex<Option<PathBuf>>,
    /// Where the access log goes from now on, until its writer has seen it.
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

/// The threads that write. They end with [`Writer::finish`], or when this is dropped.
#[derive(Debug)]
pub struct Writer {
    log: Log,
    threads: Vec<JoinHandle<()>>,
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

    /// Starts the threads that write: events to `output`, where also the access log goes until
    /// [`apply`](Self::apply) says otherwise.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(
        style: Style,
        metrics: Arc<Metrics>,
        output: impl Write + Send + 'static,
    ) -> io::Result<Writer> {
        let layout = match style {
            Style::Human => Layout::Human,
            Style::Json => Layout::Json,
        };
        let most = usize::try_from(Config::default().buffer).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            events: Queue::in_order(most),
            access: Queue::of_each_thread(most),
            style: AtomicU8::new(style as u8),
            layout: AtomicU8::new(layout as u8),
            file: Mutex::default(),
            change: Mutex::default(),
        });
        let dropped = metrics.log_lines_dropped.clone();
        let all = Arc::new(Mutex::new(Output::new(output, dropped.clone())));
        // Where a thread is missing it is dropped, and ends the other one.
        let mut writer = Writer {
            log: Self {
                shared: Some(Arc::clone(&shared)),
                metrics,
                filter: Arc::default(),
            },
            threads: Vec::new(),
        };
        let own = (Arc::clone(&shared), Arc::clone(&all));
        let events = move || write_events(&own.0, &own.1);
        writer.spawn("log", &shared.events, events)?;
        let own = Arc::clone(&shared);
        let access = move || write_access(&own, &all, &dropped);
        writer.spawn("access-log", &shared.access, access)?;
        Ok(writer)
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
        shared.events.bound(buffer);
        shared.access.bound(buffer);
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
            let queued = shared.events.append(|lines| lines.extend_from_slice(line));
            self.count(&queued);
        }
    }

    /// Queues the line of the access log that `format` writes, its newline included: one whose secrets
    /// are hidden already.
    pub fn access(&self, format: impl FnOnce(&mut Vec<u8>)) {
        if let Some(shared) = &self.shared {
            self.count(&shared.access.append(format));
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
        self.access.wake();
    }
}

impl Writer {
    /// The way in.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Writes what is queued and ends the threads; gives up on a reader that takes nothing for two
    /// seconds.
    pub fn finish(self) {
        self.end();
        let began = Instant::now();
        let has_ended = || self.threads.iter().all(JoinHandle::is_finished);
        while !has_ended() && began.elapsed() < PATIENCE {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Starts the thread that writes what is in `queue`.
    fn spawn(
        &mut self,
        name: &str,
        queue: &Queue,
        write: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(write)?;
        queue.written_by(thread.thread().clone());
        self.threads.push(thread);
        Ok(())
    }

    fn end(&self) {
        if let Some(shared) = &self.log.shared {
            shared.events.end();
            shared.access.end();
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
