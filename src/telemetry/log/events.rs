//! What `tracing` and panics say, as lines of the log.

use std::io::{self, Write};

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::Handle;

use super::{Log, Style};
use crate::telemetry::Level;

impl Log {
    /// Makes this log the sink of every `tracing` event and of panics, for the whole process.
    ///
    /// `RUST_LOG` speaks over `level`.
    pub fn take_events(&self, level: Level) {
        let said = EnvFilter::try_from_default_env().ok();
        let is_ours = said.is_none();
        let filter = said.unwrap_or_else(|| EnvFilter::new(level.filter()));
        let lines = Lines {
            log: self.clone(),
            human: Format::default().with_ansi(false).with_target(false),
            json: Format::default()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_target(false),
        };
        let events = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .event_format(lines)
            .with_writer(self.clone())
            .with_filter_reloading();
        let filter = Filter::over(events.reload_handle());
        // A second ingress in one process keeps the first one's sink.
        if events.try_init().is_ok() && is_ours {
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

    /// Writes events from `level` up from now on, unless `RUST_LOG` says what is written.
    pub fn set_level(&self, level: Level) {
        if let Some(Filter(set)) = self.filter.get() {
            set(level);
        }
    }
}

/// What says which events are written.
pub(super) struct Filter(Box<dyn Fn(Level) + Send + Sync>);

impl Filter {
    fn over<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        Self(Box::new(move |level| {
            // It fails where the sink is gone, and with it all who could write.
            let _gone = handle.reload(EnvFilter::new(level.filter()));
        }))
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Filter")
    }
}

/// Each event in the style that the log has then.
struct Lines {
    log: Log,
    human: Format<Full>,
    json: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        match self.log.style() {
            Style::Human => self.human.format_event(context, writer, event),
            Style::Json => self.json.format_event(context, writer, event),
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
        self.log.write(&self.line);
    }
}
