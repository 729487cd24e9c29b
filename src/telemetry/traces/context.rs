//! Where in a trace a request stands, as `traceparent` and `tracestate` say it (W3C Trace Context,
//! level 2).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{NoContext, Timestamp, Uuid};

/// The id of a trace; never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// The id of a span; never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// A span that others may be children of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace that it is in.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// [`SAMPLED`] and [`RANDOM`].
    pub flags: u8,
}

/// The name of the field with a [`Context`].
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The name of the field with what those before us want to be told again.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag of what is recorded.
pub const SAMPLED: u8 = 1;
/// The flag of a trace whose id ends with seven random octets.
pub const RANDOM: u8 = 2;

impl TraceId {
    /// A new one, of `now`: a UUID of version 7. Its variant is in the octet before the last seven, which
    /// are random.
    pub(super) fn new(now: SystemTime) -> Self {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos());
        Self(Uuid::new_v7(now).into_bytes())
    }

    /// Its octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its last 56 bits, which are random.
    pub(super) fn randomness(self) -> u64 {
        let (_, low) = Uuid::from_bytes(self.0).as_u64_pair();
        low & ((1 << 56) - 1)
    }

    /// Appends its digits.
    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        hex(&self.0, out);
    }
}

impl SpanId {
    /// A new one: 62 random bits. The other two are that of a UUID, so that it is never zero.
    pub(super) fn new() -> Self {
        // The time is in the other half.
        let never = Timestamp::from_unix(NoContext, 0, 0);
        let (_, low) = Uuid::new_v7(never).as_u64_pair();
        Self(low.to_be_bytes())
    }

    /// Its octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Context {
    /// Reads a `traceparent`; `None` where it is malformed, and so to be ignored.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let [version] = unhex(&known[..2])?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            // What later versions add begins with a dash.
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let trace: [u8; 16] = unhex(&known[3..35])?;
        let span: [u8; 8] = unhex(&known[36..52])?;
        let [flags] = unhex(&known[53..])?;
        if !dashes || !fits || trace == [0; 16] || span == [0; 8] {
            return None;
        }
        let meant = match version {
            0 => SAMPLED | RANDOM,
            // Of later versions this flag alone is known.
            _ => SAMPLED,
        };
        Some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            flags: flags & meant,
        })
    }

    /// The one of a request; where it has more than one `traceparent`, none counts.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            _ => None,
        }
    }

    /// As a field value, in version 00.
    #[must_use]
    pub fn to_value(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(LENGTH);
        text.extend_from_slice(b"00-");
        hex(&self.trace.0, &mut text);
        text.push(b'-');
        hex(&self.span.0, &mut text);
        text.push(b'-');
        hex(&[self.flags], &mut text);
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
            .expect("digits and dashes are visible ASCII")
    }
}

/// Octets of a `traceparent` in version 00.
const LENGTH: usize = 55;

/// The `tracestate` of a request in one piece; `None` where there is none, or one that breaks a rule.
#[must_use]
pub fn state(headers: &HeaderMap) -> Option<String> {
    let mut state = String::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?;
        if state.len() + value.len() > MOST_STATE {
            return None;
        }
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(value);
    }
    let members = || {
        state
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
    };
    let count = members().count();
    ((1..=MOST_MEMBERS).contains(&count) && members().all(is_member)).then_some(state)
}

/// Octets of a `tracestate` that is passed on: as many as everybody is to keep.
const MOST_STATE: usize = 512;
/// Entries in it.
const MOST_MEMBERS: usize = 32;

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let begins = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: u8| begins(byte) || b"_-*/@".contains(&byte);
    let printable = |byte: u8| matches!(byte, 0x20..=0x7e) && !b",=".contains(&byte);
    (1..=256).contains(&key.len())
        && key.bytes().next().is_some_and(begins)
        && key.bytes().all(goes_on)
        && (1..=256).contains(&value.len())
        && value.bytes().all(printable)
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Digits in lower case, as the standard wants them.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FINE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        let fine = Context::parse(FINE.as_bytes()).unwrap();
        assert_eq!(fine.flags, SAMPLED);
        assert_eq!(fine.to_value(), FINE);
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let no_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        for bad in [
            "",
            &FINE[..54],
            &FINE.to_uppercase(),
            &FINE.replacen("00-", "ff-", 1),
            &FINE.replacen("00-", "0g-", 1),
            &FINE.replace('-', "_"),
            &format!("{FINE}-"),
            &format!("{FINE}0"),
            &format!(" {FINE}"),
            zero,
            no_span,
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn of_a_later_version_what_we_know_is_read() {
        let later = FINE.replacen("00-", "cc-", 1).replace("-01", "-ff");
        for text in [later.clone(), format!("{later}-what-the-future-will-be")] {
            let read = Context::parse(text.as_bytes()).unwrap();
            assert_eq!(read.flags, SAMPLED, "{text}");
        }
        assert_eq!(Context::parse(format!("{later}.").as_bytes()), None);
        let unsampled = FINE.replace("-01", "-fe");
        assert_eq!(Context::parse(unsampled.as_bytes()).unwrap().flags, RANDOM);
    }

    #[test]
    fn two_of_them_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(FINE));
        assert!(Context::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(FINE));
        assert!(Context::of(&headers).is_none());
    }

    #[test]
    fn a_tracestate_is_kept_whole_or_not_at_all() {
        let check = |values: &[&str], kept: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACESTATE, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(state(&headers).as_deref(), kept, "{values:?}");
        };
        check(&[], None);
        check(&["congo=t61rcWkgMzE"], Some("congo=t61rcWkgMzE"));
        check(&["a=1, b@c=2", "d=3"], Some("a=1, b@c=2,d=3"));
        check(&["a=1,,b=2"], Some("a=1,,b=2"));
        check(&[&format!("a={}", "x".repeat(257))], None);
        check(&["a"], None);
        check(&["A=1"], None);
        check(&["a=b=c"], None);
        let member = "a=1,";
        check(&[&member.repeat(33)], None);
        check(&[&"abc=1,".repeat(90)], None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(
            trace in any::<[u8; 16]>(),
            span in any::<[u8; 8]>(),
            flags in 0..4_u8,
        ) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let context = Context { trace: TraceId(trace), span: SpanId(span), flags };
            prop_assert_eq!(Context::parse(context.to_value().as_bytes()), Some(context));
        }

        #[test]
        fn nothing_else_is_taken_for_one(text in "[0-9a-fA-Fg-]{50,60}") {
            let is_one = text.len() >= LENGTH
                && text.split('-').map(str::len).take(4).eq([2, 32, 16, 2])
                && !text.contains(|c: char| c.is_ascii_uppercase() || c == 'g');
            if !is_one {
                prop_assert_eq!(Context::parse(text.as_bytes()), None);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = Context::parse(&bytes) {
                let value = context.to_value();
                prop_assert_eq!(&value.as_bytes()[2..53], &bytes[2..53]);
            }
        }
    }
}
