//! Looks for pseudo-fields in trailers, where there must be none (RFC 9113, 8.1), and `h2` would drop
//! them in silence. Reads the names of a block in passing (RFC 7541, 6), but for those that it takes
//! from the dynamic table.

/// The trailers of a message, as far as they were read.
#[derive(Debug)]
pub(super) struct Trailers {
    /// What comes before the fields in this frame.
    before: usize,
    is_padded: bool,
    /// What comes after them.
    padding: usize,
    step: Step,
}

/// What the next octet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The first of a field.
    Field,
    /// One more of a number, before something else.
    Number(Before),
    /// The first of the length of a text.
    Length(Text),
    /// One of a text, of which there are so many.
    Text(Text, u64),
    /// The first of a name.
    Name { length: u64, is_coded: bool },
}

/// What comes after a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Field,
    Value,
    /// The number is the length of a text, which has grown to this, by the power of two that is next.
    Text {
        text: Text,
        is_coded: bool,
        length: u64,
        shift: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    Value,
}

/// Pseudo-fields are the first entries of the static table (RFC 7541, A).
const PSEUDO: std::ops::RangeInclusive<u8> = 1..=14;
/// A colon, and what Huffman's code makes of it, in seven bits (RFC 7541, B).
const COLON: u8 = b':';
const CODED_COLON: u8 = 0b101_1100;

impl Trailers {
    /// In a frame that may have padding, and a priority before the fields.
    pub(super) fn new(is_padded: bool, has_priority: bool) -> Self {
        Self {
            before: usize::from(is_padded) + 5 * usize::from(has_priority),
            is_padded,
            padding: 0,
            step: Step::Field,
        }
    }

    /// Goes on in the next frame of the block.
    pub(super) fn go_on(&mut self) {
        (self.before, self.is_padded, self.padding) = (0, false, 0);
    }

    /// Whether there is a pseudo-field in `payload`, of a frame of which `left` is what comes with it
    /// and after it.
    pub(super) fn has_pseudo(&mut self, payload: &[u8], left: usize) -> bool {
        let mut left = left;
        for &octet in payload {
            if self.before > 0 {
                self.before -= 1;
                if std::mem::take(&mut self.is_padded) {
                    self.padding = usize::from(octet);
                }
            } else if left > self.padding && self.is_pseudo(octet) {
                return true;
            }
            left -= 1;
        }
        false
    }

    /// Takes one octet; whether a pseudo-field begins there.
    fn is_pseudo(&mut self, octet: u8) -> bool {
        let (next, is_pseudo) = match self.step {
            Step::Field => return self.begin(octet),
            Step::Number(before) => (Step::after_number(before, octet), false),
            Step::Length(text) => {
                let (is_coded, length) = (octet & 0x80 != 0, u64::from(octet & 0x7f));
                let whole = Step::of_text(text, is_coded, length);
                let more = Step::Number(Before::Text {
                    text,
                    is_coded,
                    length,
                    shift: 0,
                });
                (if length == 0x7f { more } else { whole }, false)
            }
            Step::Text(text, left) => (Step::in_text(text, left - 1), false),
            Step::Name { length, is_coded } => {
                let first = if is_coded { octet >> 1 } else { octet };
                let colon = if is_coded { CODED_COLON } else { COLON };
                (Step::in_text(Text::Name, length - 1), first == colon)
            }
        };
        self.step = next;
        is_pseudo
    }

    fn begin(&mut self, octet: u8) -> bool {
        // How many bits the number has in this octet, and what comes after it.
        let (bits, after) = match octet.leading_zeros() {
            0 => (7, Before::Field),
            1 => (6, Before::Value),
            2 => (5, Before::Field),
            _ => (4, Before::Value),
        };
        let most = (1_u8 << bits) - 1;
        let number = octet & most;
        self.step = match after {
            _ if number == most => Step::Number(after),
            Before::Value if number == 0 => Step::Length(Text::Name),
            Before::Value => Step::Length(Text::Value),
            Before::Field | Before::Text { .. } => Step::Field,
        };
        // Five bits are a size of the table, and no field.
        bits != 5 && number != most && PSEUDO.contains(&number)
    }
}

impl Step {
    fn after_number(before: Before, octet: u8) -> Self {
        let has_more = octet & 0x80 != 0;
        match before {
            Before::Field if !has_more => Self::Field,
            Before::Value if !has_more => Self::Length(Text::Value),
            Before::Field | Before::Value => Self::Number(before),
            Before::Text {
                text,
                is_coded,
                length,
                shift,
            } => {
                // `h2` ends what is longer than its limits.
                let more = u64::from(octet & 0x7f) << shift.min(32);
                let length = length.saturating_add(more);
                if !has_more {
                    return Self::of_text(text, is_coded, length);
                }
                Self::Number(Before::Text {
                    text,
                    is_coded,
                    length,
                    shift: shift.min(32) + 7,
                })
            }
        }
    }

    fn of_text(text: Text, is_coded: bool, length: u64) -> Self {
        match (text, length) {
            (Text::Name, 1..) => Self::Name { length, is_coded },
            (text, length) => Self::in_text(text, length),
        }
    }

    fn in_text(text: Text, left: u64) -> Self {
        match (text, left) {
            (Text::Name, 0) => Self::Length(Text::Value),
            (Text::Value, 0) => Self::Field,
            (text, left) => Self::Text(text, left),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has_pseudo(block: &[u8]) -> bool {
        Trailers::new(false, false).has_pseudo(block, block.len())
    }

    #[test]
    fn a_pseudo_field_is_found_however_it_is_written() {
        let long = [&[0x10, 0x7f, 0x01][..], &[b'a'; 128], &[0]].concat();
        for before in [
            &[][..],
            &[0x10, 1, b'x', 2, b':', b'b'],
            &[0x3f, 0x21],
            &[0xbe],
            &long,
        ] {
            for pseudo in [
                &[0x83][..],
                &[0x8e],
                &[0x44, 1, b'/'],
                &[0x04, 1, b'/'],
                &[0x14, 1, b'/'],
                &[0x10, 2, b':', b'x', 0],
                &[0x40, 2, b':', b'x', 0],
                &[0x00, 0x82, 0xb9, 0xff, 0],
            ] {
                assert!(
                    has_pseudo(&[before, pseudo].concat()),
                    "{before:?} {pseudo:?}"
                );
            }
        }
    }

    #[test]
    fn other_fields_are_none() {
        for block in [
            &[0x8f][..],
            &[0xff, 0x03],
            &[0x10, 4, b'a', b':', b'c', b'd', 1, b':'],
            &[0x5f, 1, b':'],
            &[0x7f, 0x80, 0x01, 1, b':'],
            &[0x0f, 0x00, 1, b':'],
            &[0x1f, 0x05, 0x81, 0xb9],
            &[0x21],
            &[0x2e],
        ] {
            assert!(!has_pseudo(block), "{block:?}");
        }
    }

    #[test]
    fn neither_padding_nor_a_priority_is_a_field() {
        let payload = [2, 0x83, 0x83, 0x83, 0x83, 0x83, 0x8f, 0x83, 0x83];
        let mut trailers = Trailers::new(true, true);
        let (first, rest) = payload.split_at(4);
        assert!(!trailers.has_pseudo(first, payload.len()));
        assert!(!trailers.has_pseudo(rest, rest.len()));
        trailers.go_on();
        assert!(trailers.has_pseudo(&[0x83], 1));
    }

    proptest! {
        #[test]
        fn names_and_values_of_any_length_are_passed_over(
            fields in prop::collection::vec(("[a-z:]{0,300}", "[a-z:]{0,300}"), 0..8),
        ) {
            let mut block = Vec::new();
            for (name, value) in &fields {
                block.push(0x10);
                for text in [name, value] {
                    let mut length = text.len();
                    if length < 127 {
                        block.push(length as u8);
                    } else {
                        block.push(127);
                        length -= 127;
                        while length >= 128 {
                            block.push((length % 128) as u8 | 0x80);
                            length /= 128;
                        }
                        block.push(length as u8);
                    }
                    block.extend_from_slice(text.as_bytes());
                }
            }
            let expected = fields.iter().any(|(name, _)| name.starts_with(':'));
            prop_assert_eq!(has_pseudo(&block), expected);
        }

        #[test]
        fn no_octets_are_too_strange(block in prop::collection::vec(any::<u8>(), 0..300)) {
            let _found = has_pseudo(&block);
        }
    }
}
