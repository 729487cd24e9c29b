//! The time in a line: the second is written down once, and not for each line anew.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

/// One second, as lines write it.
struct Second {
    number: u64,
    /// `2026-11-25T06:12:29`.
    iso: String,
    /// `25/Nov/2026:06:12:29 +0000`.
    common: String,
}

thread_local! {
    static LAST: RefCell<Option<Second>> = const { RefCell::new(None) };
}

/// Appends it to the microsecond (RFC 3339).
pub(super) fn iso(time: SystemTime, out: &mut Vec<u8>) {
    let micros = with_second(time, |second| out.extend_from_slice(second.iso.as_bytes()));
    out.push(b'.');
    let mut scale = 100_000;
    while scale > 0 {
        out.push(b'0' + (micros / scale % 10) as u8);
        scale /= 10;
    }
    out.push(b'Z');
}

/// Appends it as Apache's common log does.
pub(super) fn common(time: SystemTime, out: &mut Vec<u8>) {
    with_second(time, |second| {
        out.extend_from_slice(second.common.as_bytes());
    });
}

/// Gives the microseconds after the second.
fn with_second(time: SystemTime, use_it: impl FnOnce(&Second)) -> u32 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    LAST.with_borrow_mut(|last| {
        if last
            .as_ref()
            .is_none_or(|last| last.number != since.as_secs())
        {
            *last = Some(Second::new(since.as_secs()));
        }
        last.as_ref().map(use_it);
    });
    since.subsec_micros()
}

impl Second {
    fn new(number: u64) -> Self {
        let time = jiff::Timestamp::UNIX_EPOCH
            .checked_add(Duration::from_secs(number))
            .unwrap_or_default();
        Self {
            number,
            iso: time.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            common: time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_each_layout_wants_it() {
        let check = |millis: u64, expected_iso: &str, expected_common: &str| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let (mut short, mut long) = (Vec::new(), Vec::new());
            iso(time, &mut short);
            common(time, &mut long);
            assert_eq!(String::from_utf8(short).unwrap(), expected_iso);
            assert_eq!(String::from_utf8(long).unwrap(), expected_common);
        };
        check(
            1_795_587_149_042,
            "2026-11-25T06:12:29.042000Z",
            "25/Nov/2026:06:12:29 +0000",
        );
        check(
            1_795_587_150_000,
            "2026-11-25T06:12:30.000000Z",
            "25/Nov/2026:06:12:30 +0000",
        );
        check(
            0,
            "1970-01-01T00:00:00.000000Z",
            "01/Jan/1970:00:00:00 +0000",
        );
    }
}
