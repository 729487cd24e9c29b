//! One sink for every line the process writes: access log, events, panics.
//!
//! Lines go through a bounded queue to a thread of their own, which scrubs and writes them; a full
//! queue costs lines, counted, never a request its time.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

use super::metrics::Metrics;
use super::{Config, Format, Level, redact};

/// Lines that may wait to be written.
const QUEUE: usize = 8192;

/// The way into the sink. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Option<SyncSender<Message>>,
    style: Style,
    metrics: Arc<Metrics>,
    /// Set where this log is the sink of events, and nothing else says what is written.
    filter: Arc<OnceLock<Filter>>,
}

/// What says which events are written.
struct Filter(Box<dyn Fn(Level) + Send + Sync>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Filter")
    }
}

/// How lines look, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    End,
}

/// The thread that writes. Ended by [`Writer::finish`].
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
            lines: None,
            style: Style::Json,
            metrics,
            filter: Arc::default(),
        }
    }

    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        style: Style,
        metrics: Arc<Metrics>,
        output: impl Write + Send + 'static,
    ) -> io::Result<Writer> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&receiver, output))?;
        let log = Self {
            lines: Some(sender),
            style,
            metrics,
            filter: Arc::default(),
        };
        Ok(Writer { log, thread })
    }

    /// The series that lost lines are counted in.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Whether anything that is written is kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// How lines look.
    #[must_use]
    pub fn style(&self) -> Style {
        self.style
    }

    /// Queues one line, its newline included.
    pub fn write(&self, line: Vec<u8>) {
        let Some(lines) = &self.lines else { return };
        match lines.try_send(Message::Line(line)) {
            // Disconnected: the process is ending and has written its last line.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.metrics.log_lines_dropped.inc(),
        }
    }

    /// Makes this log the sink of every `tracing` event and of panics, for the whole process.
    ///
    /// `RUST_LOG` speaks over `level`.
    pub fn take_events(&self, level: Level) {
        let said = EnvFilter::try_from_default_env().ok();
        let is_ours = said.is_none();
        let events = tracing_subscriber::fmt()
            .with_env_filter(said.unwrap_or_else(|| EnvFilter::new(level.filter())))
            .with_writer(self.clone());
        // A second ingress in one process keeps the first one's sink.
        let filter = match self.style {
            Style::Human => {
                let events = events.with_ansi(false).with_target(false);
                let events = events.with_filter_reloading();
                let filter = Filter::over(events.reload_handle());
                events.try_init().is_ok().then_some(filter)
            }
            Style::Json => {
                let events = events.json().flatten_event(true).with_target(false);
                let events = events.with_filter_reloading();
                let filter = Filter::over(events.reload_handle());
                events.try_init().is_ok().then_some(filter)
            }
        };
        if let Some(filter) = filter.filter(|_| is_ours) {
            let _once_a_process = self.filter.set(filter);
        }
        std::panic::set_hook(Box::new(|panic| {
            let place = panic
                .location()
                .map_or_else(String::new, ToString::to_string);
            // What a panic says may be made of anything: only where it happened is written.
            tracing::error!(
                place,
                "a task panicked; a request that it carried got a 500, or was cut off"
            );
        }));
    }
}

impl Log {
    /// Writes events from `level` up from now on, unless `RUST_LOG` says what is written.
    pub fn set_level(&self, level: Level) {
        if let Some(Filter(set)) = self.filter.get() {
            set(level);
        }
    }
}

impl Filter {
    fn over<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        Self(Box::new(move |level| {
            // It fails where the sink is gone, and with it all who could write.
            let _gone = handle.reload(EnvFilter::new(level.filter()));
        }))
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
        let Some(lines) = &self.log.lines else { return };
        let began = Instant::now();
        let mut told = false;
        while !self.thread.is_finished() && began.elapsed() < PATIENCE {
            told = told || !matches!(lines.try_send(Message::End), Err(TrySendError::Full(_)));
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

impl Config {
    /// How lines look on standard output.
    #[must_use]
    pub fn style(&self) -> Style {
        match self.format {
            Format::Human => Style::Human,
            Format::Json => Style::Json,
            Format::Auto if io::stdout().is_terminal() => Style::Human,
            Format::Auto => Style::Json,
        }
    }
}

impl Level {
    fn filter(self) -> &'static str {
        match self {
            Self::Error => "error",
            // `h2` warns of what a client does wrong, as often as it does.
            Self::Warn => "warn,h2=error",
            Self::Info => "info,h2=error",
            // Libraries at this level speak of bytes on the wire: only our own events.
            Self::Debug => "info,h2=error,m3o_ingress=debug",
            Self::Trace => "info,h2=error,m3o_ingress=trace",
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = EventWriter;

    fn make_writer(&'a self) -> EventWriter {
        EventWriter {
            log: self.clone(),
            line: Vec::new(),
        }
    }
}

/// Collects one event and queues it when dropped.
#[derive(Debug)]
pub struct EventWriter {
    log: Log,
    line: Vec<u8>,
}

impl Write for EventWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        self.log.write(std::mem::take(&mut self.line));
    }
}

fn write_lines(lines: &Receiver<Message>, mut output: impl Write) {
    let mut buffer = Vec::with_capacity(64 << 10);
    while let Ok(first) = lines.recv() {
        let mut ended = !append(&mut buffer, first);
        // What has piled up meanwhile leaves in one write.
        while !ended
            && buffer.len() < 64 << 10
            && let Ok(next) = lines.try_recv()
        {
            ended = !append(&mut buffer, next);
        }
        // Where the log cannot be written there is nowhere to say so.
        let _unwritable = output.write_all(&buffer).and_then(|()| output.flush());
        buffer.clear();
        if ended {
            return;
        }
    }
}

/// False at the end.
fn append(buffer: &mut Vec<u8>, message: Message) -> bool {
    let Message::Line(line) = message else {
        return false;
    };
    buffer.extend_from_slice(redact::scrub(&String::from_utf8_lossy(&line)).as_bytes());
    true
}

/// A sink in memory, for tests and tools.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// Everything written so far.
    #[must_use]
    pub fn text(&self) -> String {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_scrubbed_and_written_before_the_end() {
        let output = Capture::default();
        let writer = Log::start(Style::Json, Metrics::new(), output.clone()).unwrap();
        writer.log().write(b"one token=canary\n".to_vec());
        writer.log().write(b"two\n".to_vec());
        writer.finish();
        assert_eq!(output.text(), "one token=[hidden]\ntwo\n");
    }

    #[test]
    fn a_full_queue_costs_lines_and_counts_them() {
        let metrics = Metrics::new();
        let (sender, receiver) = sync_channel(1);
        let log = Log {
            lines: Some(sender),
            style: Style::Json,
            metrics: Arc::clone(&metrics),
            filter: Arc::default(),
        };
        log.write(b"kept\n".to_vec());
        log.write(b"lost\n".to_vec());
        assert_eq!(metrics.log_lines_dropped.get(), 1);
        assert!(matches!(receiver.recv(), Ok(Message::Line(line)) if line == b"kept\n"));
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_the_end_up_for_a_moment_only() {
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
        let (_stays, never) = sync_channel(0);
        let writer = Log::start(Style::Json, Metrics::new(), Stuck(never)).unwrap();
        writer.log().write(b"line\n".to_vec());
        writer.finish();
    }
}
