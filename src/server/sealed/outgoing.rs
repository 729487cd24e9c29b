//! Sealed records on their way out.

use std::cell::Cell;

/// Bytes that are to be sent, in order.
///
/// They are in memory that the connections of a thread use in turn, until they have to wait: then in as much
/// as they need.
#[derive(Default)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    /// Where it ends.
    end: usize,
}

thread_local! {
    /// Room for what is sent next. Empty while somebody has it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// As much as is sent at once, sealed, behind some tickets.
pub(super) const ROOM: usize = 72 << 10;

/// More than sealing adds to a record.
pub(super) const ADDED: usize = 64;

impl Outgoing {
    /// What is to be sent next.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.sent..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.end
    }

    /// Where `least` bytes or more go.
    pub(super) fn room(&mut self, least: usize) -> &mut [u8] {
        if self.buffer.len() - self.end < least {
            let waiting = self.waiting().len();
            let mut room = SPARE.take();
            if room.len() < waiting + least {
                room = vec![0; ROOM.max(waiting + least)];
            }
            room[..waiting].copy_from_slice(self.waiting());
            self.buffer = room;
            self.sent = 0;
            self.end = waiting;
        }
        &mut self.buffer[self.end..]
    }

    /// So much was put there.
    pub(super) fn put(&mut self, length: usize) {
        self.end += length;
    }

    /// So much was sent.
    pub(super) fn advance(&mut self, length: usize) {
        self.sent += length;
        if self.is_empty() {
            give_back(std::mem::take(self).buffer);
        }
    }

    /// Keeps what has to wait, and nothing more.
    pub(super) fn settle(&mut self) {
        let kept = self.waiting().to_vec();
        let end = kept.len();
        let before = Self {
            buffer: kept,
            sent: 0,
            end,
        };
        give_back(std::mem::replace(self, before).buffer);
    }
}

fn give_back(room: Vec<u8>) {
    if room.len() == ROOM {
        SPARE.set(room);
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outgoing")
            .field("waiting", &self.waiting().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(outgoing: &mut Outgoing, bytes: &[u8]) {
        outgoing.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        outgoing.put(bytes.len());
    }

    #[test]
    fn everything_is_sent_in_order_also_where_it_has_to_wait() {
        let mut outgoing = Outgoing::default();
        put(&mut outgoing, b"one ");
        put(&mut outgoing, b"two ");
        outgoing.advance(2);
        outgoing.settle();
        assert_eq!(outgoing.buffer.len(), 6, "no more than what waits");
        put(&mut outgoing, b"three");
        assert_eq!(outgoing.waiting(), b"e two three");
        outgoing.advance(11);
        assert!(outgoing.is_empty());
        assert_eq!(outgoing.buffer.capacity(), 0);
    }

    #[test]
    fn connections_use_the_same_memory_in_turn_and_never_at_once() {
        let place = |outgoing: &Outgoing| outgoing.buffer.as_ptr();
        let (mut one, mut other) = (Outgoing::default(), Outgoing::default());
        put(&mut one, b"one");
        let first = place(&one);
        put(&mut other, b"other");
        assert_ne!(place(&other), first);
        one.advance(3);
        let mut third = Outgoing::default();
        put(&mut third, b"third");
        assert_eq!(place(&third), first);
        assert_eq!(other.waiting(), b"other");
    }

    #[test]
    fn what_is_larger_than_the_room_has_room_of_its_own() {
        let mut outgoing = Outgoing::default();
        put(&mut outgoing, b"some");
        put(&mut outgoing, &vec![b'x'; ROOM]);
        assert_eq!(outgoing.waiting().len(), ROOM + 4);
        outgoing.advance(ROOM + 4);
        assert!(outgoing.is_empty());
    }
}
