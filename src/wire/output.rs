//! What is to be written to a connection: small pieces gathered, a large one beside them uncopied.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Heads, chunk lines and small pieces of bodies.
    gathered: BytesMut,
    /// One large piece, after what is gathered.
    large: Bytes,
    /// And what comes after that.
    tail: &'static [u8],
}

/// Pieces up to this size are copied: cheaper than a slice of their own in the system call.
const SMALL: usize = 4 << 10;
/// With so much gathered it is time to write.
const FULL: usize = 16 << 10;

impl Output {
    /// Whether nothing is left to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Whether more may be put in before it is written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.large.is_empty() && self.gathered.len() < FULL
    }

    /// Where the lines of a head go. Only while it [has room](Self::has_room).
    pub fn text(&mut self) -> &mut BytesMut {
        debug_assert!(self.large.is_empty(), "a piece must not overtake another");
        &mut self.gathered
    }

    /// Adds `data` and then `tail`. Only while it [has room](Self::has_room).
    pub fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        debug_assert!(self.large.is_empty(), "a piece must not overtake another");
        if data.len() <= SMALL {
            self.gathered.extend_from_slice(&data);
            self.gathered.extend_from_slice(tail);
        } else {
            self.large = data;
            self.tail = tail;
        }
    }

    /// What is to be written next, for one system call.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        [&self.gathered[..], &self.large[..], self.tail].map(IoSlice::new)
    }

    /// The same, where it is one piece.
    pub(super) fn only(&self) -> Option<&[u8]> {
        self.large.is_empty().then_some(&self.gathered[..])
    }

    /// So much of it was written.
    pub(super) fn advance(&mut self, written: usize) {
        let gathered = written.min(self.gathered.len());
        self.gathered.advance(gathered);
        let large = (written - gathered).min(self.large.len());
        self.large.advance(large);
        self.tail = &self.tail[written - gathered - large..];
        if self.gathered.is_empty() && self.large.is_empty() {
            // The buffer starts anew, without a copy.
            self.gathered.clear();
            self.large = Bytes::new();
        }
    }

    /// Gives its memory back. Only when it is empty.
    pub(super) fn shrink(&mut self) {
        self.gathered = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when it is written `step` bytes at a time.
    fn written(output: &mut Output, step: usize) -> Vec<u8> {
        let mut whole = Vec::new();
        while !output.is_empty() {
            let next: Vec<u8> = output
                .slices()
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            let step = step.min(next.len());
            whole.extend_from_slice(&next[..step]);
            output.advance(step);
        }
        whole
    }

    #[test]
    fn everything_comes_out_in_order_however_little_is_written_at_once() {
        for large in [0, 1, SMALL, SMALL + 1, 3 * SMALL] {
            for step in [1, 7, 5000, usize::MAX] {
                let mut output = Output::default();
                output.text().extend_from_slice(b"head");
                output.push(Bytes::from_static(b"small"), b"\r\n");
                output.push(vec![b'x'; large].into(), b"tail");
                let expected = [b"headsmall\r\n", &vec![b'x'; large][..], b"tail"].concat();
                assert_eq!(written(&mut output, step), expected);
                assert!(output.has_room());
            }
        }
    }

    #[test]
    fn it_is_full_with_one_large_piece_or_many_small_ones() {
        let mut output = Output::default();
        output.push(vec![0; SMALL + 1].into(), b"");
        assert!(!output.has_room());
        let mut output = Output::default();
        while output.has_room() {
            output.push(vec![0; SMALL].into(), b"");
        }
        assert_eq!(output.gathered.len(), FULL);
    }
}
