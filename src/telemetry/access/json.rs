//! A line as one JSON object, its fields named as OpenTelemetry names them.

use super::{Entry, foreign, milliseconds, number, stamp, version_text};
use crate::telemetry::client::Side;

/// Appends the object.
pub(super) fn write(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.reserve(ROOM);
    out.extend_from_slice(b"{\"timestamp\":\"");
    stamp::iso(entry.ended, out);
    out.extend_from_slice(b"\",\"type\":\"access\",\"client.address\":\"");
    out.extend_from_slice(entry.client.as_bytes());
    out.push(b'"');
    word(out, "http.request.method", entry.method);
    word(out, "url.scheme", entry.scheme.as_str());
    text(out, "server.address", entry.host.as_deref());
    if entry.is_request() {
        text(out, "url.path", Some(&entry.path));
    }
    text(out, "url.query", entry.query.as_deref());
    if let Some(version) = entry.version {
        word(out, "network.protocol.version", version_text(version));
    }
    known(out, "tls.protocol.version", entry.tls);
    key(out, "http.response.status_code");
    number(out, entry.status);
    key(out, "duration_ms");
    milliseconds(out, entry.took);
    key(out, "http.request.body.size");
    number(out, entry.received);
    key(out, "http.response.body.size");
    number(out, entry.sent);
    word(out, "route", entry.route);
    known(out, "app", entry.app);
    known(out, "cache", entry.cache);
    word(out, "outcome", entry.outcome.as_str());
    known(out, "proxy_error", entry.error);
    text(out, "cause", entry.cause);
    if let Some(call) = entry.call {
        let (address, duration) = match call.side {
            Side::Backend => ("backend.address", "backend.duration_ms"),
            Side::Upstream => ("upstream.address", "upstream.duration_ms"),
        };
        text(out, address, call.address.to_str().ok());
        if let (Some(took), Some(_)) = (call.took, call.status) {
            key(out, duration);
            milliseconds(out, took);
        }
    }
    text(out, "user_agent.original", entry.user_agent.as_deref());
    if let Some(id) = entry.trace_id {
        key(out, "trace_id");
        out.push(b'"');
        id.write_to(out);
        out.push(b'"');
    }
    if let Some(share) = entry.sampled {
        key(out, "sample_rate");
        out.extend_from_slice(share.to_string().as_bytes());
    }
    text(out, "request_id", Some(entry.request_id));
    out.push(b'}');
}

/// More than most lines need.
const ROOM: usize = 1024;

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A field of our own words, which need no escapes.
fn word(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn known(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        word(out, name, value);
    }
}

/// A field of what somebody else wrote.
fn text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        key(out, name);
        out.push(b'"');
        escaped(out, &foreign(value));
        out.push(b'"');
    }
}

/// Appends the inside of a string (RFC 8259, 7).
fn escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| IS_ESCAPED[usize::from(*byte)]) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        rest = &rest[at + 1..];
        if matches!(byte, b'"' | b'\\') {
            out.extend_from_slice(&[b'\\', byte]);
        } else {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    out.extend_from_slice(rest);
}

/// Controls, quotes and backslashes.
const IS_ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0x7f] = true;
    table
};

const HEX: [u8; 16] = *b"0123456789abcdef";
