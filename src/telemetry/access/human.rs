//! A line for people.

use super::{Entry, Outcome, foreign, milliseconds, number, stamp};

/// Appends the line.
pub(super) fn write(entry: &Entry<'_>, out: &mut Vec<u8>) {
    stamp::iso(entry.ended, out);
    out.push(b' ');
    number(out, entry.status);
    word(out, entry.method);
    out.push(b' ');
    escaped(out, entry.host.as_deref().unwrap_or("-"));
    escaped(out, &entry.path);
    if let Some(query) = &entry.query {
        out.push(b'?');
        escaped(out, query);
    }
    out.push(b' ');
    milliseconds(out, entry.took);
    out.extend_from_slice(b" ms");
    word(out, entry.route);
    for known in [entry.cache, entry.error].into_iter().flatten() {
        word(out, known);
    }
    if entry.outcome != Outcome::Complete {
        word(out, entry.outcome.as_str());
    }
    out.push(b' ');
    out.extend_from_slice(entry.client.as_bytes());
    out.push(b' ');
    escaped(out, entry.request_id);
    if let Some(cause) = entry.cause {
        out.extend_from_slice(b" (");
        escaped(out, cause);
        out.push(b')');
    }
}

fn word(out: &mut Vec<u8>, word: &str) {
    out.push(b' ');
    out.extend_from_slice(word.as_bytes());
}

/// What somebody else wrote, and a terminal may show.
fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut utf8 = [0; 4];
    for shown in foreign(text).escape_debug() {
        out.extend_from_slice(shown.encode_utf8(&mut utf8).as_bytes());
    }
}
