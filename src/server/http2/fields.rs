//! Reads the blocks of fields that a client sends in passing (RFC 7541, 6), without their texts. `h2`
//! would drop a pseudo-field among trailers in silence, where there must be none (RFC 9113, 8.1), and
//! end what cannot be read with the code of another fault (RFC 9113, 4.3). What Huffman's code is wrong
//! in is left to it.

use h2::Reason;

/// The fields of a connection, as far as they were read.
#[derive(Debug)]
pub(super) struct Fields {
    /// What comes before the fields in this frame.
    before: usize,
    is_padded: bool,
    /// What comes after them.
    padding: usize,
    are_trailers: bool,
    /// Whether this block had a field.
    has_begun: bool,
    step: Step,
    /// Whether the field of now is kept in the table, and is a pseudo-field.
    is_kept: bool,
    is_pseudo: bool,
    /// How many fields were ever kept.
    kept: u64,
    /// Which of those that were kept last are pseudo-fields: the lowest bit is for the last one.
    pseudo: u128,
}

/// What the next octet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The first of a field.
    Field,
    /// One more of a number, which has grown to `value`, by the power of two that is next.
    Number { what: What, value: u64, shift: u32 },
    /// The first of the length of a text.
    Length(Text),
    /// The first of a name.
    Name { length: u64, is_coded: bool },
    /// One of a text, of which there are so many.
    Text(Text, u64),
}

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Which field it is.
    Field,
    /// Which field has this name; zero where the name follows.
    Name,
    /// The size of the table.
    Size,
    Length {
        text: Text,
        is_coded: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    Value,
}

/// The last entry of the static table, and those of pseudo-fields (RFC 7541, A).
const STATIC: u64 = 61;
const PSEUDO: std::ops::RangeInclusive<u64> = 1..=14;
/// A colon, and what Huffman's code makes of it, in seven bits (RFC 7541, B).
const COLON: u8 = b':';
const CODED_COLON: u8 = 0b101_1100;
/// No number of more bits is read.
const BITS: u32 = 28;

impl Fields {
    pub(super) fn new() -> Self {
        Self {
            before: 0,
            is_padded: false,
            padding: 0,
            are_trailers: false,
            has_begun: false,
            step: Step::Field,
            is_kept: false,
            is_pseudo: false,
            kept: 0,
            pseudo: 0,
        }
    }

    /// Begins a block, in a frame that may have padding, and a priority before the fields.
    pub(super) fn begin(&mut self, is_padded: bool, has_priority: bool, are_trailers: bool) {
        self.before = usize::from(is_padded) + 5 * usize::from(has_priority);
        (self.is_padded, self.padding) = (is_padded, 0);
        self.are_trailers = are_trailers;
        self.has_begun = false;
        self.step = Step::Field;
    }

    /// Goes on in the next frame of the block.
    pub(super) fn go_on(&mut self) {
        (self.before, self.is_padded, self.padding) = (0, false, 0);
    }

    /// Reads `payload`, of a frame of which `left` is what comes with it and after it; `is_last` says
    /// that the block ends with the frame.
    ///
    /// # Errors
    /// When there is a pseudo-field in trailers, or what cannot be read.
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        left: usize,
        is_last: bool,
    ) -> Result<(), Reason> {
        let mut rest = payload;
        while self.before > 0
            && let Some((&octet, after)) = rest.split_first()
        {
            self.before -= 1;
            if std::mem::take(&mut self.is_padded) {
                self.padding = usize::from(octet);
            }
            rest = after;
        }
        let after = left - payload.len();
        let padding = self.padding.saturating_sub(after).min(rest.len());
        rest = &rest[..rest.len() - padding];
        while let Some((&octet, others)) = rest.split_first() {
            rest = match self.step {
                // Texts are passed over at once.
                Step::Text(text, length) => {
                    let most = usize::try_from(length).unwrap_or(usize::MAX);
                    let here = most.min(rest.len());
                    self.in_text(text, length - here as u64);
                    &rest[here..]
                }
                _ => {
                    self.take(octet)?;
                    others
                }
            };
        }
        // `h2` knows of padding that is longer than its frame.
        let is_cut = is_last && after == 0 && self.before == 0 && self.step != Step::Field;
        match is_cut {
            true => Err(Reason::COMPRESSION_ERROR),
            false => Ok(()),
        }
    }

    fn take(&mut self, octet: u8) -> Result<(), Reason> {
        match self.step {
            Step::Field => self.begin_field(octet),
            Step::Number { what, value, shift } => {
                if shift > BITS {
                    return Err(Reason::COMPRESSION_ERROR);
                }
                let value = value + (u64::from(octet & 0x7f) << shift);
                if octet & 0x80 == 0 {
                    return self.counted(what, value);
                }
                self.step = Step::Number {
                    what,
                    value,
                    shift: shift + 7,
                };
                Ok(())
            }
            Step::Length(text) => {
                let is_coded = octet & 0x80 != 0;
                self.number(What::Length { text, is_coded }, octet, 7)
            }
            Step::Name { length, is_coded } => {
                let first = if is_coded { octet >> 1 } else { octet };
                let colon = if is_coded { CODED_COLON } else { COLON };
                self.named(first == colon)?;
                self.in_text(Text::Name, length - 1);
                Ok(())
            }
            Step::Text(text, left) => {
                self.in_text(text, left - 1);
                Ok(())
            }
        }
    }

    fn begin_field(&mut self, octet: u8) -> Result<(), Reason> {
        // How many bits the number has in this octet, and what it says.
        let (bits, what) = match octet.leading_zeros() {
            0 => (7, What::Field),
            1 => (6, What::Name),
            2 => (5, What::Size),
            _ => (4, What::Name),
        };
        // RFC 7541, 4.2: the size changes before the first field.
        if what == What::Size && self.has_begun {
            return Err(Reason::COMPRESSION_ERROR);
        }
        self.has_begun = what != What::Size;
        self.is_kept = bits == 6;
        self.number(what, octet, bits)
    }

    /// Begins a number in the low bits of an octet (RFC 7541, 5.1).
    fn number(&mut self, what: What, octet: u8, bits: u32) -> Result<(), Reason> {
        let most = (1_u8 << bits) - 1;
        let value = u64::from(octet & most);
        if value < u64::from(most) {
            return self.counted(what, value);
        }
        let shift = 0;
        self.step = Step::Number { what, value, shift };
        Ok(())
    }

    /// Goes on after a number.
    fn counted(&mut self, what: What, number: u64) -> Result<(), Reason> {
        match what {
            What::Field => {
                self.refer(number)?;
                self.step = Step::Field;
            }
            What::Name if number == 0 => self.step = Step::Length(Text::Name),
            What::Name => {
                self.refer(number)?;
                self.step = Step::Length(Text::Value);
            }
            What::Size if number > u64::from(super::HEADER_TABLE) => {
                return Err(Reason::COMPRESSION_ERROR);
            }
            What::Size => self.step = Step::Field,
            What::Length { text, is_coded } => match (text, number) {
                (Text::Name, 1..) => {
                    let length = number;
                    self.step = Step::Name { length, is_coded };
                }
                (Text::Name, 0) => {
                    self.is_pseudo = false;
                    self.in_text(text, 0);
                }
                (Text::Value, _) => self.in_text(text, number),
            },
        }
        Ok(())
    }

    /// Takes a name from the tables. Those that were dropped for others are gone for `h2` too.
    fn refer(&mut self, index: u64) -> Result<(), Reason> {
        if index == 0 || index > STATIC + self.kept {
            return Err(Reason::COMPRESSION_ERROR);
        }
        let is_pseudo = match index.checked_sub(STATIC + 1) {
            None => PSEUDO.contains(&index),
            Some(ago @ 0..128) => self.pseudo >> ago & 1 == 1,
            Some(_) => false,
        };
        self.named(is_pseudo)
    }

    fn named(&mut self, is_pseudo: bool) -> Result<(), Reason> {
        self.is_pseudo = is_pseudo;
        match is_pseudo && self.are_trailers {
            true => Err(Reason::PROTOCOL_ERROR),
            false => Ok(()),
        }
    }

    /// Goes on where so much of a text is left.
    fn in_text(&mut self, text: Text, left: u64) {
        self.step = match (text, left) {
            (text, 1..) => Step::Text(text, left),
            (Text::Name, 0) => Step::Length(Text::Value),
            (Text::Value, 0) => {
                if std::mem::take(&mut self.is_kept) {
                    self.kept += 1;
                    self.pseudo = self.pseudo << 1 | u128::from(self.is_pseudo);
                }
                Step::Field
            }
        };
    }
}

#[cfg(test)]
mod tests;
