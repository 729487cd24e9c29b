//! The thread that writes: what waits is taken, and goes where it belongs.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::output::{Output, Written};
use super::{Change, Shared, lock};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::redact;

/// Between two looks at the buffers while there are lines.
const PAUSE: Duration = Duration::from_millis(50);

/// What the writer writes to.
pub(super) struct Outputs<W> {
    pub(super) all: Output<W>,
    /// Where lines of the access log go, if not there.
    pub(super) access: Option<Output<File>>,
    pub(super) metrics: Arc<Metrics>,
}

/// Writes until the queue has ended.
pub(super) fn write_lines<W: Write>(shared: &Shared, mut outputs: Outputs<W>) {
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
