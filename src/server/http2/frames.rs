//! Reads the heads of the frames that a client sends, and of the rest only fields and settings: to count
//! what `h2` does not count, to check what it does not check, and to know what is still to come.

use h2::Reason;

use super::allowance::Allowance;
use super::fields::Fields;
use super::settings::Settings;
use crate::wire::server::PREFACE;

/// The frames of a client, as far as they have arrived.
#[derive(Debug)]
pub(super) struct Frames {
    /// What is left of the preface.
    preface: usize,
    head: [u8; HEAD],
    /// How much of the head is here.
    have: usize,
    /// What is left of the frame after its head.
    left: usize,
    kind: Kind,
    /// Whether a block of fields has begun, and not ended.
    in_block: bool,
    /// The stream of the last block.
    block: u32,
    /// Frames and blocks that have begun.
    begun: u64,
    /// The streams whose messages the client ended last.
    ended: Recent,
    /// Those that it reset last.
    reset: Recent,
    /// The last stream that was opened.
    last: u32,
    /// The fields that came, and whether this frame has some, and is the last of their block.
    fields: Fields,
    has_fields: bool,
    ends_block: bool,
    /// What it sets.
    sets: Option<Settings>,
    /// Whether a frame was there.
    is_open: bool,
    verdict: Verdict,
    resets: Allowance,
    settings: Allowance,
    others: Allowance,
}

/// Why the client is to be sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    None,
    Given(Reason),
    Told,
}

/// A frame, or a block of fields, of which more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Which one it is.
    number: u64,
    /// Whether it is a piece of a body.
    pub(super) is_data: bool,
}

/// The octets before the payload (RFC 9113, 4.1).
const HEAD: usize = 9;

/// What is told apart (RFC 9113, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Not sent by clients, or not known.
    Other,
}

/// All but the bit that is reserved.
const STREAM: u32 = u32::MAX >> 1;
/// As many streams that have ended are known.
const REMEMBERED: usize = 32;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Resets of streams: so many at once, one more a request that was answered, and so many a second.
const RESETS: (u32, u32) = (256, 32);
/// Settings: mostly there is one frame of them.
const SETTINGS: (u32, u32) = (32, 1);
/// Frames that carry nothing of a message.
const OTHERS: (u32, u32) = (1024, 128);
/// How many more of those come with a request, and with so many octets of answers: a client pings to
/// measure, and opens its windows as it reads.
const A_REQUEST: u32 = 4;
const A_FRAME_FOR: usize = 1 << 10;
/// A padded frame of this size may have nothing in it but padding.
const SMALL: usize = 256;

/// Where reading has to stop, as the client is to be sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    /// So much came before.
    pub(super) before: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            preface: PREFACE.len(),
            head: [0; HEAD],
            have: 0,
            left: 0,
            kind: Kind::Other,
            in_block: false,
            block: 0,
            begun: 0,
            ended: Recent::new(),
            reset: Recent::new(),
            last: 0,
            fields: Fields::new(),
            has_fields: false,
            ends_block: false,
            sets: None,
            is_open: false,
            verdict: Verdict::None,
            resets: Allowance::new(RESETS.0, RESETS.1),
            settings: Allowance::new(SETTINGS.0, SETTINGS.1),
            others: Allowance::new(OTHERS.0, OTHERS.1),
        }
    }

    /// Why the client is to be sent away; once.
    pub(super) fn verdict(&mut self) -> Option<Reason> {
        match self.verdict {
            Verdict::Given(reason) => {
                self.verdict = Verdict::Told;
                Some(reason)
            }
            Verdict::None | Verdict::Told => None,
        }
    }

    /// Whether nothing more is read.
    pub(super) fn is_over(&self) -> bool {
        self.verdict != Verdict::None
    }

    /// What has begun to arrive and is not whole.
    pub(super) fn part(&self) -> Option<Part> {
        let between = self.is_open && self.have == 0 && self.left == 0 && !self.in_block;
        (!between).then_some(Part {
            number: self.begun,
            is_data: self.left > 0 && self.kind == Kind::Data,
        })
    }

    /// A request was answered.
    pub(super) fn answered(&mut self) {
        self.resets.give(1);
    }

    /// So much was written to the client.
    pub(super) fn written(&mut self, length: usize) {
        let more = length.div_ceil(A_FRAME_FOR);
        self.others.give(u32::try_from(more).unwrap_or(u32::MAX));
    }

    /// Reads what came.
    ///
    /// # Errors
    /// At the head of a frame that is not to be read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut rest = bytes;
        let preface = self.preface.min(rest.len());
        self.preface -= preface;
        rest = &rest[preface..];
        while !rest.is_empty() {
            let (payload, after) = rest.split_at(self.left.min(rest.len()));
            if let Some(reason) = self.fault(payload) {
                self.verdict = Verdict::Given(reason);
                let before = bytes.len() - rest.len();
                return Err(Stop { before });
            }
            self.left -= payload.len();
            rest = after;
            let more = (HEAD - self.have).min(rest.len());
            if more == 0 {
                continue;
            }
            let before = bytes.len() - rest.len();
            if self.have == 0 && !self.in_block {
                self.begun += 1;
            }
            self.head[self.have..self.have + more].copy_from_slice(&rest[..more]);
            self.have += more;
            rest = &rest[more..];
            if self.have == HEAD {
                self.have = 0;
                if let Err(reason) = self.begin() {
                    self.verdict = Verdict::Given(reason);
                    return Err(Stop { before });
                }
            }
        }
        Ok(())
    }

    /// What is wrong with a payload, as far as it is read at all.
    fn fault(&mut self, payload: &[u8]) -> Option<Reason> {
        if payload.is_empty() {
            return None;
        }
        if self.has_fields {
            let read = self.fields.read(payload, self.left, self.ends_block);
            return read.err();
        }
        let is_too_large = self.sets.as_mut()?.has_bad_window(payload);
        is_too_large.then_some(Reason::FLOW_CONTROL_ERROR)
    }

    /// Begins the frame whose head is here.
    fn begin(&mut self) -> Result<(), Reason> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let kind = Kind::of(kind);
        let has = |flag| flags & flag != 0;
        // RFC 9113, 3.4: settings, and not an acknowledgement of ours, come first.
        if !self.is_open && (kind != Kind::Settings || has(ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.is_open = true;
        // RFC 9113, 4.2; `h2` knows of no other code than that of a faulty protocol.
        let fits = match kind {
            Kind::Priority => length == 5,
            Kind::Reset | Kind::WindowUpdate => length == 4,
            Kind::Settings if has(ACK) => length == 0,
            Kind::Settings => length.is_multiple_of(6),
            Kind::Ping => length == 8,
            Kind::GoAway => length >= 8,
            Kind::Headers => length >= usize::from(has(PADDED)) + 5 * usize::from(has(PRIORITY)),
            Kind::Data => length >= usize::from(has(PADDED)),
            Kind::Continuation | Kind::Other => true,
        };
        if !fits {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let [.., w, x, y, z] = self.head;
        let stream = u32::from_be_bytes([w, x, y, z]) & STREAM;
        // Within a block `h2` takes no other frame at all.
        if matches!(kind, Kind::Headers | Kind::Data) && !self.in_block {
            // RFC 9113, 5.1: of a message that has ended nothing more comes. What was reset is an error
            // of its stream, but for `h2` where fields come.
            let is_closed =
                self.ended.has(stream) || (kind == Kind::Headers && self.reset.has(stream));
            if is_closed {
                return Err(Reason::STREAM_CLOSED);
            }
            if kind == Kind::Headers {
                let are_trailers = stream <= self.last;
                self.block = stream;
                self.fields.begin(has(PADDED), has(PRIORITY), are_trailers);
            }
            self.last = self.last.max(stream);
            if has(END_STREAM) {
                self.ended.add(stream);
            }
        }
        let is_allowed = match kind {
            Kind::Headers => {
                self.others.give(A_REQUEST);
                true
            }
            Kind::Data if length == 0 => has(END_STREAM) || self.others.take(),
            Kind::Data => !(has(PADDED) && length <= SMALL) || self.others.take(),
            Kind::Reset => self.resets.take(),
            Kind::Settings if !has(ACK) => self.settings.take(),
            // `h2` counts them.
            Kind::Continuation => true,
            Kind::Settings
            | Kind::Priority
            | Kind::Ping
            | Kind::GoAway
            | Kind::WindowUpdate
            | Kind::Other => self.others.take(),
        };
        if !is_allowed {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        // Where a frame is out of place, that is its fault before all others.
        self.has_fields = match kind {
            Kind::Headers => !self.in_block && !stream.is_multiple_of(2),
            Kind::Continuation => self.in_block && stream == self.block,
            _ => false,
        };
        if kind == Kind::Continuation {
            self.fields.go_on();
        }
        self.ends_block = has(END_HEADERS);
        self.sets = (kind == Kind::Settings).then(Settings::new);
        if kind == Kind::Reset {
            self.reset.add(stream);
        }
        self.kind = kind;
        self.left = length;
        match kind {
            Kind::Headers | Kind::Continuation => self.in_block = !has(END_HEADERS),
            _ => {}
        }
        Ok(())
    }
}

/// The last few streams of a kind, in a circle.
#[derive(Debug)]
struct Recent {
    streams: [u32; REMEMBERED],
    next: usize,
}

impl Recent {
    fn new() -> Self {
        Self {
            streams: [0; REMEMBERED],
            next: 0,
        }
    }

    fn add(&mut self, stream: u32) {
        self.streams[self.next] = stream;
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Whether it is one of them. The connection itself is none.
    fn has(&self, stream: u32) -> bool {
        stream != 0 && self.streams.contains(&stream)
    }
}

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
