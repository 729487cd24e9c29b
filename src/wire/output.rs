//! What is to be written to a connection: small pieces gathered, a large one beside them uncopied, or one
//! in a pipe.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use super::pipe::Pipe;

/// Bytes on their way out, in order.
#[derive(Default)]
pub struct Output {
    /// Heads, chunk lines and small pieces of bodies.
    gathered: BytesMut,
    /// One large piece, after what is gathered.
    large: Bytes,
    /// And what comes after that.
    tail: &'static [u8],
    /// One that never comes here, after all that.
    piped: Option<Pipe>,
}

/// Pieces up to this size are copied: cheaper than a slice of their own in the system call.
const SMALL: usize = 4 << 10;
/// With so much gathered it is time to write.
const FULL: usize = 16 << 10;
/// What is copied at once.
const PIECE: usize = 2 << 10;
/// So many pieces are more than TLS takes at once, 64 KiB.
pub(super) const PIECES: usize = 40;

impl std::fmt::Debug for Output {
    /// Without the bytes: heads have secrets in them.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let piped = self.piped.as_ref().map_or(0, Pipe::len);
        let length = self.gathered.len() + self.large.len() + self.tail.len() + piped;
        out.debug_struct("Output")
            .field("length", &length)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Whether nothing is left to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_written() && self.piped.is_none()
    }

    /// Whether nothing is left but what is piped.
    fn is_written(&self) -> bool {
        self.gathered.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Whether more may be put in before it is written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_order() && self.gathered.len() < FULL
    }

    /// Where the lines of a head go. Only while it [has room](Self::has_room).
    pub fn text(&mut self) -> &mut BytesMut {
        debug_assert!(self.has_order(), "a piece must not overtake another");
        &mut self.gathered
    }

    /// Adds `data` and then `tail`. Only while it [has room](Self::has_room).
    pub fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        debug_assert!(self.has_order(), "a piece must not overtake another");
        if data.len() <= SMALL {
            self.gathered.extend_from_slice(&data);
            self.gathered.extend_from_slice(tail);
        } else {
            self.large = data;
            self.tail = tail;
        }
    }

    /// Adds what is in `pipe`. Only while it [has room](Self::has_room).
    pub fn pipe(&mut self, pipe: Pipe) {
        debug_assert!(self.has_order(), "a piece must not overtake another");
        self.piped = Some(pipe).filter(|pipe| !pipe.is_empty());
    }

    /// Whether what is added now comes after all that is there.
    fn has_order(&self) -> bool {
        self.is_gathered() && self.piped.is_none()
    }

    /// Whether what is written next is one piece.
    fn is_gathered(&self) -> bool {
        self.large.is_empty() && self.tail.is_empty()
    }

    /// What is to be sent next, where that is in a pipe.
    pub(super) fn piped(&mut self) -> Option<&mut Pipe> {
        let is_next = self.is_written();
        self.piped.as_mut().filter(|_| is_next)
    }

    /// Some of what is piped was sent.
    pub(super) fn settle(&mut self) {
        // An empty pipe is of use to others.
        self.piped.take_if(|pipe| pipe.is_empty());
    }

    /// Reads what is piped, to be written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read_out(&mut self) -> io::Result<()> {
        match self.piped.take() {
            Some(pipe) => pipe.read_out(&mut self.gathered),
            None => Ok(()),
        }
    }

    /// What is to be written next, for one system call.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        [&self.gathered[..], &self.large[..], self.tail].map(IoSlice::new)
    }

    /// The same [in pieces](in_pieces).
    pub(super) fn pieces<'a>(&'a self, room: &mut [IoSlice<'a>]) -> usize {
        in_pieces([&self.gathered[..], &self.large[..], self.tail], room)
    }

    /// The same, where it is one piece.
    pub(super) fn only(&self) -> Option<&[u8]> {
        self.is_gathered().then_some(&self.gathered[..])
    }

    /// So much of it was written.
    pub(super) fn advance(&mut self, written: usize) {
        let gathered = written.min(self.gathered.len());
        self.gathered.advance(gathered);
        let large = (written - gathered).min(self.large.len());
        self.large.advance(large);
        self.tail = &self.tail[written - gathered - large..];
        if self.large.is_empty() {
            // What it was a part of is not kept in memory by an empty rest.
            self.large = Bytes::new();
        }
    }

    /// Gives its memory back. Only when it is empty.
    pub(super) fn shrink(&mut self) {
        self.gathered = BytesMut::new();
    }
}

/// Cuts `parts` into pieces for whoever copies them, as far as there is `room`: how many they are.
///
/// More than such a piece glibc leaves to an instruction (`rep movsb`) that takes fifteen times as long on
/// some processors, where source and target are at nearly the same place in their pages. TLS copies into
/// records, where that is so for all.
pub fn in_pieces<'a>(parts: impl IntoIterator<Item = &'a [u8]>, room: &mut [IoSlice<'a>]) -> usize {
    let pieces = parts.into_iter().flat_map(|part| part.chunks(PIECE));
    let slots = room.iter_mut().zip(pieces);
    slots
        .map(|(slot, piece)| *slot = IoSlice::new(piece))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written next, as [`Link`](super::super::link::Link) asks for it.
    fn next(output: &Output) -> Vec<u8> {
        match output.only() {
            Some(only) => only.to_vec(),
            None => joined(&output.slices()),
        }
    }

    fn joined(slices: &[IoSlice<'_>]) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    /// What comes out when `pieces` go in as soon as there is room, and `step` bytes are written at
    /// a time.
    fn written(pieces: &[Bytes], step: usize) -> Vec<u8> {
        let mut output = Output::default();
        let mut pieces = pieces.iter();
        let mut whole = Vec::new();
        loop {
            while output.has_room() {
                let Some(piece) = pieces.next() else { break };
                output.text().extend_from_slice(b"<");
                output.push(piece.clone(), b">\r\n");
            }
            if output.is_empty() {
                return whole;
            }
            let next = next(&output);
            assert!(!next.is_empty(), "nothing to write, and not empty");
            let step = step.min(next.len());
            whole.extend_from_slice(&next[..step]);
            output.advance(step);
        }
    }

    #[test]
    fn everything_comes_out_in_order_however_little_is_written_at_once() {
        let sizes = [
            0,
            1,
            SMALL,
            SMALL + 1,
            3 * SMALL,
            5,
            2 * SMALL,
            SMALL + 1,
            1,
        ];
        let pieces = sizes.map(|size| Bytes::from(vec![b'x'; size]));
        let expected: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| [b"<", &piece[..], b">\r\n"].concat())
            .collect();
        for step in [
            1,
            2,
            3,
            7,
            SMALL + 2,
            SMALL + 3,
            SMALL + 4,
            5000,
            usize::MAX,
        ] {
            assert!(written(&pieces, step) == expected, "{step}");
        }
    }

    #[test]
    fn pieces_are_small_and_leave_nothing_out() {
        let mut output = Output::default();
        output.text().extend_from_slice(&[b'h'; PIECE + 1]);
        output.push(vec![b'x'; 3 * PIECE].into(), b"\r\n");
        let whole = next(&output);
        let mut room = [IoSlice::new(&[]); PIECES];
        let count = output.pieces(&mut room);
        assert_eq!(count, 6);
        assert!(room.iter().all(|piece| piece.len() <= PIECE));
        assert_eq!(joined(&room[..count]), whole);
        assert_eq!(output.pieces(&mut room[..2]), 2);
        assert_eq!(joined(&room[..2]), whole[..PIECE + 1]);
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
