//! Where the frames of a WebSocket end (RFC 6455, 5.2), for whoever puts one of its own between them.

/// Follows frames that pass by, a piece at a time.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Octets of the head of a frame that have passed.
    head: usize,
    /// Of these, the last ones that say how long it is.
    length: u64,
    /// How many those are in all: none where the second octet says it.
    length_octets: usize,
    is_masked: bool,
    /// Octets of a frame behind its head that are still to come.
    left: u64,
    closes: bool,
}

/// The opcode of a frame that ends the connection (RFC 6455, 5.5.1).
const CLOSE: u8 = 8;
const MASKING_KEY: u64 = 4;

impl Frames {
    /// Takes what passes next; gives where in it the last whole frame ends.
    pub(super) fn follow(&mut self, data: &[u8]) -> Option<usize> {
        let mut last = None;
        let mut at = 0;
        while at < data.len() {
            if self.left == 0 {
                self.take_head(data[at]);
                at += 1;
            } else {
                let here = (data.len() - at) as u64;
                let passing = self.left.min(here);
                self.left -= passing;
                at += usize::try_from(passing).expect("no more than there is");
            }
            if self.is_between() {
                last = Some(at);
            }
        }
        last
    }

    /// Whether no frame is under way.
    pub(super) fn is_between(&self) -> bool {
        self.head == 0 && self.left == 0
    }

    /// Whether a frame has passed, or begun to, that ends the connection.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    fn take_head(&mut self, octet: u8) {
        match self.head {
            0 => self.closes |= octet & 0x0f == CLOSE,
            1 => {
                self.is_masked = octet & 0x80 != 0;
                (self.length, self.length_octets) = match octet & 0x7f {
                    126 => (0, 2),
                    127 => (0, 8),
                    length => (length.into(), 0),
                };
            }
            _ => self.length = self.length << 8 | u64::from(octet),
        }
        self.head += 1;
        if self.head == 2 + self.length_octets {
            let key = if self.is_masked { MASKING_KEY } else { 0 };
            self.left = self.length.saturating_add(key);
            self.head = 0;
            self.length_octets = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with `length` octets of content.
    fn frame(opcode: u8, is_masked: bool, length: usize) -> Vec<u8> {
        let mask = if is_masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0xff; 4].iter().take(if is_masked { 4 } else { 0 }));
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn a_frame_that_closes_is_seen_when_it_begins() {
        let mut frames = Frames::default();
        frames.follow(&frame(1, false, 8));
        assert!(!frames.closes(), "what is in a message closes nothing");
        frames.follow(&frame(CLOSE, false, 2)[..1]);
        assert!(frames.closes() && !frames.is_between());
    }

    #[test]
    fn no_length_is_too_large_to_follow() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 0xff]);
        assert_eq!(frames.follow(&[0xff; 64]), None);
        assert!(!frames.is_between());
    }

    proptest! {
        #[test]
        fn the_end_of_the_last_whole_frame_is_found_however_they_are_cut(
            parts in prop::collection::vec(
                (0_u8..=10, any::<bool>(), prop_oneof![0_usize..200, 65_530_usize..65_540]), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut stream = Vec::new();
            let mut ends = Vec::new();
            for (opcode, is_masked, length) in parts {
                stream.extend(frame(opcode, is_masked, length));
                ends.push(stream.len());
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let mut frames = Frames::default();
            let mut from = 0;
            for to in cuts {
                let last = ends.iter().copied().rfind(|end| *end > from && *end <= to);
                let found = frames.follow(&stream[from..to]).map(|at| at + from);
                prop_assert_eq!(found, last);
                prop_assert_eq!(frames.is_between(), to == 0 || ends.contains(&to));
                from = to;
            }
        }
    }
}
