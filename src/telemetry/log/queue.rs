//! Lines on their way to the thread that writes: a buffer for each thread that has lines to write.
//!
//! A line is formatted where it will be taken from. The lock of a buffer is that of its own thread,
//! but for the moment in which the writer takes all there is; the writer is woken once where it
//! sleeps, and otherwise looks by itself. So a request pays for its line, and for no wake-up.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use memchr::memrchr;

/// Buffers of the access log. Threads beyond that share.
const SHARDS: usize = 16;

/// What a buffer keeps of its room once a burst is over.
const KEPT: usize = 64 << 10;

/// All buffers.
#[derive(Debug)]
pub(super) struct Queue {
    shards: [Shard; SHARDS],
    events: Shard,
    /// Octets that each may hold.
    most: AtomicUsize,
    /// Set while the writer waits to be woken.
    asleep: AtomicBool,
    ended: AtomicBool,
    writer: OnceLock<Thread>,
}

/// One buffer, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Vec<u8>>);

/// A line found no room.
#[derive(Debug)]
pub(super) struct Full;

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

impl Queue {
    /// Empty buffers of `most` octets each.
    pub(super) fn new(most: usize) -> Self {
        Self {
            shards: Default::default(),
            events: Shard::default(),
            most: AtomicUsize::new(most),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// The thread that writes, once it is there.
    pub(super) fn written_by(&self, thread: Thread) {
        let _first = self.writer.set(thread);
    }

    pub(super) fn bound(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Appends what `format` writes: one line of the access log.
    pub(super) fn access(&self, format: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        let index = SHARD.get().unwrap_or_else(|| {
            let index = NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS;
            SHARD.set(Some(index));
            index
        });
        self.append(&self.shards[index], format)
    }

    /// Appends one line of another kind.
    pub(super) fn event(&self, line: &[u8]) -> Result<(), Full> {
        self.append(&self.events, |lines| lines.extend_from_slice(line))
    }

    fn append(&self, shard: &Shard, format: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        let most = self.most.load(Ordering::Relaxed);
        let mut lines = shard.lock();
        let before = lines.len();
        if before >= most {
            return Err(Full);
        }
        format(&mut lines);
        let after = lines.len();
        if after > most {
            lines.truncate(before);
            return Err(Full);
        }
        drop(lines);
        let half_full = before < most / 2 && after >= most / 2;
        // The writer says that it sleeps before it looks a last time, under the same lock.
        if half_full || self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
        Ok(())
    }

    /// Has the writer look now.
    pub(super) fn wake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Tells the writer to end with what is there.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Moves all lines of the access log behind those in `lines`; `spare` is empty, and stays so.
    pub(super) fn take_access(&self, lines: &mut Vec<u8>, spare: &mut Vec<u8>) {
        for shard in &self.shards {
            shard.take(lines, spare);
        }
    }

    /// Moves all other lines behind those in `lines`.
    pub(super) fn take_events(&self, lines: &mut Vec<u8>, spare: &mut Vec<u8>) {
        self.events.take(lines, spare);
    }

    /// Blocks the writer until there is something to do. It may also return for nothing.
    pub(super) fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        let mut shards = self.shards.iter().chain([&self.events]);
        if shards.all(|shard| shard.lock().is_empty()) && !self.has_ended() {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(|poisoned| {
            // A panic left a line half written: it goes, and those before it stay.
            self.0.clear_poison();
            let mut lines = PoisonError::into_inner(poisoned);
            let whole = memrchr(b'\n', &lines).map_or(0, |end| end + 1);
            lines.truncate(whole);
            lines
        })
    }

    fn take(&self, lines: &mut Vec<u8>, spare: &mut Vec<u8>) {
        {
            let mut own = self.lock();
            if own.is_empty() {
                return;
            }
            std::mem::swap(&mut *own, spare);
        }
        lines.extend_from_slice(spare);
        spare.clear();
        spare.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_finds_no_room_leaves_no_part_of_itself() {
        let queue = Queue::new(10);
        let line = |text: &str| queue.access(|lines| lines.extend_from_slice(text.as_bytes()));
        assert!(line("12345\n").is_ok());
        assert!(line("1234567\n").is_err());
        assert!(line("123\n").is_ok());
        assert!(line("\n").is_err());
        let (mut lines, mut spare) = (Vec::new(), Vec::new());
        queue.take_access(&mut lines, &mut spare);
        assert_eq!(lines, b"12345\n123\n");
        assert!(line("\n").is_ok());
    }

    #[test]
    fn a_panic_while_a_line_is_made_costs_that_line() {
        let queue = Queue::new(100);
        assert!(queue.event(b"whole\n").is_ok());
        let made = std::panic::catch_unwind(|| {
            queue.append(&queue.events, |lines| {
                lines.extend_from_slice(b"half");
                panic!("of a test");
            })
        });
        assert!(made.is_err());
        assert!(queue.event(b"next\n").is_ok());
        let (mut lines, mut spare) = (Vec::new(), Vec::new());
        queue.take_events(&mut lines, &mut spare);
        assert_eq!(lines, b"whole\nnext\n");
    }
}
