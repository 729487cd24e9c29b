//! The threads that write: one for events, one for lines of the access log, so that an output that takes
//! nothing holds up only what belongs there.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::IntCounter;

use super::output::{Output, Written};
use super::queue::Queue;
use super::{Change, Shared, lock};
use crate::telemetry::redact;

/// Between two looks at the buffers while there are lines.
const PAUSE: Duration = Duration::from_millis(50);

/// Writes events to `all` until their queue has ended.
pub(super) fn write_events<W: Write>(shared: &Shared, all: &Mutex<Output<W>>) {
    drain(&shared.events, |lines| {
        if !lines.is_empty() {
            let text = String::from_utf8_lossy(lines);
            // Where this cannot be written there is nowhere to say so.
            let _lost = lock(all).write(redact::scrub(&text).as_bytes());
        }
    });
}

/// Writes lines of the access log, until their queue has ended, to the file that they have, and without
/// one to `all`. What is lost of them is counted in `dropped`.
pub(super) fn write_access<W: Write>(
    shared: &Shared,
    all: &Mutex<Output<W>>,
    dropped: &IntCounter,
) {
    let mut own: Option<Output<File>> = None;
    drain(&shared.access, |lines| {
        match (lock(&shared.change).take(), &mut own) {
            (Some(Change::Together), _) => own = None,
            (Some(Change::File(file)), Some(own)) => own.replace(file),
            (Some(Change::File(file)), None) => own = Some(Output::new(file, dropped.clone())),
            (None, _) => {}
        }
        match &mut own {
            _ if lines.is_empty() => {}
            Some(own) => tell(&own.write(lines)),
            None => {
                let _lost = lock(all).write(lines);
            }
        }
    });
}

/// Gives `write` what is in `queue`, again and again until it has ended; also nothing, when it was woken
/// for something else.
fn drain(queue: &Queue, mut write: impl FnMut(&[u8])) {
    let (mut lines, mut spare) = (Vec::new(), Vec::new());
    loop {
        // Asked before the last look, so that nothing is left behind.
        let ended = queue.has_ended();
        queue.take(&mut lines, &mut spare);
        write(&lines);
        let idle = lines.is_empty();
        lines.clear();
        lines.shrink_to(1 << 20);
        match (ended, idle) {
            (true, _) => return,
            (false, true) => queue.sleep(),
            (false, false) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// Says where the access log stops, and where it goes on.
fn tell(written: &Written) {
    match written {
        Written::Lost { error, tell: true } => tracing::warn!(
            %error,
            "the access log cannot be written: its lines are dropped and counted until it can"
        ),
        Written::Again => tracing::info!("the access log is written again"),
        Written::Lost { .. } | Written::All => {}
    }
}
