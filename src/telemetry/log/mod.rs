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
use super::{Config, Format, redact};
use events::Filter;
use output::{Output, Written};
use queue::{Full, Queue};

mod events;
mod output;
mod queue;

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

/// Between two looks at the buffers while there are lines.
const PAUSE: Duration = Duration::from_millis(50);

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

    /// Lets lines look, and go, as `config` says, from now on. Its level is not looked at.
    ///
    /// # Errors
    /// When the file of the access log cannot be opened. Then nothing changes.
    pub fn apply(&self, config: &Config) -> Result<(), BadFile> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        let mut file = lock(&shared.file);
        let wanted = Some(&config.access_file).filter(|path| !path.as_os_str().is_empty());
        if file.as_ref() != wanted {
            shared.change(match wanted {
                Some(path) => Change::File(output::open(path)?),
                None => Change::Together,
            });
            *file = wanted.cloned();
        }
        shared.style.store(config.style() as u8, Ordering::Relaxed);
        shared
            .layout
            .store(config.layout() as u8, Ordering::Relaxed);
        let most = usize::try_from(config.buffer).unwrap_or(usize::MAX);
        shared.queue.bound(most);
        Ok(())
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

/// What the writer writes to.
struct Outputs<W> {
    all: Output<W>,
    /// Where lines of the access log go, if not there.
    access: Option<Output<File>>,
    metrics: Arc<Metrics>,
}

fn write_lines<W: Write>(shared: &Shared, mut outputs: Outputs<W>) {
    let (mut lines, mut spare) = (Vec::new(), Vec::new());
    loop {
        // Asked before the last look, so that nothing is left behind.
        let ended = shared.queue.has_ended();
        match lock(&shared.change).take() {
            Some(Change::Together) => outputs.access = None,
            Some(Change::File(file)) => match &mut outputs.access {
                Some(access) => access.replace(file),
                None => outputs.access = Some(Output::new(file)),
            },
            None => {}
        }
        shared.queue.take_events(&mut lines, &mut spare);
        let mut idle = lines.is_empty();
        if !idle {
            let text = String::from_utf8_lossy(&lines);
            // Where this cannot be written there is nowhere to say so.
            let written = outputs.all.write(redact::scrub(&text).as_bytes());
            outputs.count(&written);
            lines.clear();
        }
        shared.queue.take_access(&mut lines, &mut spare);
        idle = idle && lines.is_empty();
        if !lines.is_empty() {
            match &mut outputs.access {
                Some(access) => {
                    let written = access.write(&lines);
                    outputs.count(&written);
                    tell(&written);
                }
                None => {
                    let written = outputs.all.write(&lines);
                    outputs.count(&written);
                }
            }
            lines.clear();
            lines.shrink_to(1 << 20);
        }
        match (ended, idle) {
            (true, _) => return,
            (false, true) => shared.queue.sleep(),
            (false, false) => std::thread::park_timeout(PAUSE),
        }
    }
}

impl<W> Outputs<W> {
    fn count(&self, written: &Written) {
        if let Written::Lost { lines, .. } = written {
            self.metrics.log_lines_dropped.inc_by(*lines as u64);
        }
    }
}

/// Says where the access log stops, and where it goes on.
fn tell(written: &Written) {
    match written {
        Written::Lost {
            error, tell: true, ..
        } => tracing::warn!(
            %error,
            "the access log cannot be written: its lines are dropped and counted until it can"
        ),
        Written::Again => tracing::info!("the access log is written again"),
        Written::Lost { .. } | Written::All => {}
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    fn line(text: &str) -> impl FnOnce(&mut Vec<u8>) {
        move |out| out.extend_from_slice(text.as_bytes())
    }

    #[test]
    fn every_line_is_scrubbed_and_written_before_the_end() {
        let output = Capture::default();
        let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
        writer.log().write(b"one token=canary\n");
        writer.log().write(b"two\n");
        writer.log().access(line("three\n"));
        writer.finish();
        assert_eq!(output.text(), "one token=[hidden]\ntwo\nthree\n");
    }

    #[test]
    fn what_threads_write_at_once_stays_in_lines() {
        let output = Capture::default();
        let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
        let threads: Vec<_> = (0..20)
            .map(|number| {
                let log = writer.log();
                std::thread::spawn(move || {
                    for count in 0..500 {
                        log.access(line(&format!("{number} {count}\n")));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        writer.finish();
        let text = output.text();
        let mut lines: Vec<(u32, u32)> = text
            .lines()
            .map(|line| {
                let (number, count) = line.split_once(' ').unwrap();
                (number.parse().unwrap(), count.parse().unwrap())
            })
            .collect();
        lines.sort_unstable();
        let all = (0..20).flat_map(|number| (0..500).map(move |count| (number, count)));
        assert!(lines.into_iter().eq(all));
    }

    /// A reader that takes nothing until it is told to go.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
            let _never = self.0.recv();
            Ok(0)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_costs_lines_and_counts_them() {
        let metrics = Metrics::new();
        let (_stays, never) = sync_channel(0);
        let writer = Log::start(Style::Json, Arc::clone(&metrics), Stuck(never)).unwrap();
        let config = Config {
            buffer: 4096,
            ..Config::default()
        };
        writer.log().apply(&config).unwrap();
        // What is taken to be written has left its buffer.
        for _ in 0..2000 {
            writer.log().access(line("a line of the log\n"));
        }
        assert!(metrics.log_lines_dropped.get() > 1000);
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_the_end_up_for_a_moment_only() {
        let (_stays, never) = sync_channel(0);
        let writer = Log::start(Style::Json, Metrics::new(), Stuck(never)).unwrap();
        writer.log().write(b"line\n");
        writer.finish();
    }

    #[test]
    fn the_access_log_moves_to_a_file_and_back_without_a_line_lost_or_doubled() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let output = Capture::default();
        let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
        let log = writer.log();
        let to = |file: PathBuf| Config {
            access_file: file,
            format: Format::Combined,
            ..Config::default()
        };
        log.apply(&to(path("access.log"))).unwrap();
        assert_eq!(log.layout(), Layout::Combined);
        for number in 0..1000 {
            if number == 300 {
                std::fs::rename(path("access.log"), path("old.log")).unwrap();
            }
            // As logrotate does, some time after it has moved the file.
            if number == 500 {
                log.reopen();
            }
            log.access(line(&format!("{number}\n")));
        }
        assert!(log.apply(&to(folder.path().to_owned())).is_err());
        log.write(b"event\n");
        writer.finish();
        let read = |name| std::fs::read_to_string(path(name)).unwrap_or_default();
        let text = read("old.log") + &read("access.log");
        let numbers = text.lines().map(|line| line.parse::<u32>().unwrap());
        assert!(numbers.eq(0..1000), "{text}");
        assert_eq!(output.text(), "event\n");
    }
}
