//! Lines on their way to the thread that writes them.
//!
//! A line is formatted where it will be taken from. Lines of requests have a buffer for each thread, whose
//! lock nobody else holds but for the moment in which the writer takes all there is; threads beyond the
//! number of [`Sharded`]'s places share one. The writer is woken once where it sleeps, and otherwise looks
//! by itself. So a request pays for its line, and for no wake-up.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use memchr::memrchr;

use crate::telemetry::shards::Sharded;

/// What a buffer keeps of its room once a burst is over.
const KEPT: usize = 64 << 10;

/// Lines for one writer.
#[derive(Debug)]
pub(super) struct Queue {
    shards: Sharded<Shard>,
    /// Octets that each buffer may hold.
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

impl Queue {
    /// A buffer for each thread, of `most` octets. Lines of two threads may change places.
    pub(super) fn of_each_thread(most: usize) -> Self {
        Self::over(Sharded::new(), most)
    }

    /// One buffer of `most` octets, whose lines keep their order.
    pub(super) fn in_order(most: usize) -> Self {
        Self::over(Sharded::whole(), most)
    }

    fn over(shards: Sharded<Shard>, most: usize) -> Self {
        Self {
            shards,
            most: AtomicUsize::new(most),
            asleep: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// The thread that writes, once it is there. It looks at once.
    pub(super) fn written_by(&self, thread: Thread) {
        let _first = self.writer.set(thread);
        self.wake();
    }

    pub(super) fn bound(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Appends what `format` writes: one line.
    pub(super) fn append(&self, format: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        let most = self.most.load(Ordering::Relaxed);
        let mut lines = self.shards.mine().place().lock();
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

    /// Moves all lines behind those in `lines`; `spare` is empty, and stays so.
    pub(super) fn take(&self, lines: &mut Vec<u8>, spare: &mut Vec<u8>) {
        for shard in self.shards.iter() {
            shard.take(lines, spare);
        }
    }

    /// Blocks the writer until there is something to do. It may also return for nothing.
    pub(super) fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        let is_empty = |shard: &Shard| shard.lock().is_empty();
        if self.shards.iter().all(is_empty) && !self.has_ended() {
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

    fn append(queue: &Queue, text: &str) -> Result<(), Full> {
        queue.append(|lines| lines.extend_from_slice(text.as_bytes()))
    }

    fn taken(queue: &Queue) -> String {
        let (mut lines, mut spare) = (Vec::new(), Vec::new());
        queue.take(&mut lines, &mut spare);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_line_that_finds_no_room_leaves_no_part_of_itself() {
        let queue = Queue::of_each_thread(10);
        assert!(append(&queue, "12345\n").is_ok());
        assert!(append(&queue, "1234567\n").is_err());
        assert!(append(&queue, "123\n").is_ok());
        assert!(append(&queue, "\n").is_err());
        assert_eq!(taken(&queue), "12345\n123\n");
        assert!(append(&queue, "\n").is_ok());
    }

    #[test]
    fn a_panic_while_a_line_is_made_costs_that_line() {
        let queue = Queue::in_order(100);
        assert!(append(&queue, "whole\n").is_ok());
        let made = std::panic::catch_unwind(|| {
            queue.append(|lines| {
                lines.extend_from_slice(b"half");
                panic!("of a test");
            })
        });
        assert!(made.is_err());
        assert!(append(&queue, "next\n").is_ok());
        assert_eq!(taken(&queue), "whole\nnext\n");
    }

    #[test]
    fn what_is_in_order_stays_so_from_thread_to_thread() {
        let queue = Queue::in_order(100);
        for number in 0..9 {
            let line = format!("{number}\n");
            std::thread::scope(|scope| scope.spawn(|| append(&queue, &line)).join().unwrap())
                .unwrap();
        }
        assert_eq!(taken(&queue), "0\n1\n2\n3\n4\n5\n6\n7\n8\n");
    }
}
