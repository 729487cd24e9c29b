//! A line as Apache and nginx write the format `combined`:
//! `address - - [time] "request" status bytes "referer" "user agent"`.

use super::{Entry, foreign, number, stamp, version_text};

/// Appends the line.
pub(super) fn write(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(entry.client.as_bytes());
    out.extend_from_slice(b" - - [");
    stamp::common(entry.ended, out);
    out.extend_from_slice(b"] \"");
    if entry.is_request() {
        out.extend_from_slice(entry.method.as_bytes());
        out.push(b' ');
        escaped(out, &entry.path);
        if let Some(query) = &entry.query {
            out.push(b'?');
            escaped(out, query);
        }
        // nginx's names: those of HTTP/2 have a `.0`.
        let (version, rest) = match entry.version.map(version_text) {
            Some(version @ ("2" | "3")) => (version, ".0"),
            version => (version.unwrap_or("1.1"), ""),
        };
        out.extend_from_slice(b" HTTP/");
        out.extend_from_slice(version.as_bytes());
        out.extend_from_slice(rest.as_bytes());
    } else {
        out.push(b'-');
    }
    out.extend_from_slice(b"\" ");
    number(out, entry.status);
    out.push(b' ');
    number(out, entry.sent);
    for value in [entry.referer.as_deref(), entry.user_agent.as_deref()] {
        out.extend_from_slice(b" \"");
        escaped(out, value.filter(|value| !value.is_empty()).unwrap_or("-"));
        out.push(b'"');
    }
}

/// As nginx does: what ends a value, and what is not visible ASCII, as `\xXX`.
fn escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    for byte in foreign(text).bytes() {
        match byte {
            b'"' | b'\\' | ..0x20 | 0x7f.. => out.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
            plain => out.push(plain),
        }
    }
}
