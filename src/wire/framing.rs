//! Where a body ends (RFC 9112, 6 and 7): what the head says of it. `decoder` reads it.

use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode, Version};

use super::head::BadHead;

pub use decoder::{BadFraming, Decoder, Found};

mod decoder;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many bytes; with 0 there is none.
    Exact(u64),
    /// As its chunks say.
    Chunked,
    /// Until the connection ends. Only responses can have that.
    UntilClose,
}

const TWICE: BadHead =
    BadHead::Malformed("the length of the body is given more than once, or in two ways");
const LENGTH: BadHead = BadHead::Malformed("the length of the body is no number");
const CODING: BadHead =
    BadHead::Malformed("the transfer coding of the body is not to be relied on");

/// The length of a request's body (RFC 9112, 6.3).
///
/// # Errors
/// When it can be read in two ways.
pub fn of_request(version: Version, headers: &HeaderMap) -> Result<Length, BadHead> {
    let declared = headers.get(header::CONTENT_LENGTH);
    let Some(coding) = headers.get(header::TRANSFER_ENCODING) else {
        let Some(declared) = declared else {
            return Ok(Length::Exact(0));
        };
        if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
            return Err(TWICE);
        }
        return number(declared).map(Length::Exact).ok_or(LENGTH);
    };
    if declared.is_some() {
        return Err(TWICE);
    }
    chunked(version, headers, coding)
}

/// The length of a response's body to a request that was HEAD or not (RFC 9112, 6.3).
///
/// Where both fields are there the coding counts; the caller must not trust the connection after it.
///
/// # Errors
/// When it can be read in two ways.
pub fn of_response(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    to_head: bool,
) -> Result<Length, BadHead> {
    let declared = match headers.get(header::CONTENT_LENGTH) {
        Some(first) => {
            let mut all = headers.get_all(header::CONTENT_LENGTH).iter();
            if all.any(|other| other != first) {
                return Err(TWICE);
            }
            Some(number(first).ok_or(LENGTH)?)
        }
        None => None,
    };
    let coding = headers.get(header::TRANSFER_ENCODING);
    let coded = coding
        .map(|coding| chunked(version, headers, coding))
        .transpose()?;
    if to_head || is_bodiless(status) {
        return Ok(Length::Exact(0));
    }
    Ok(coded.unwrap_or_else(|| declared.map_or(Length::UntilClose, Length::Exact)))
}

/// Whether a response of this status never has a body (RFC 9110, 6.4.1).
#[must_use]
pub fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn chunked(version: Version, headers: &HeaderMap, coding: &HeaderValue) -> Result<Length, BadHead> {
    let single = headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1;
    if version == Version::HTTP_10 || !single {
        return Err(CODING);
    }
    let coding = coding.as_bytes();
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Length::Chunked);
    }
    let last = coding
        .rsplit(|byte| *byte == b',')
        .next()
        .unwrap_or_default();
    let unknown_first =
        last.len() < coding.len() && last.trim_ascii().eq_ignore_ascii_case(b"chunked");
    Err(if unknown_first {
        BadHead::Coding
    } else {
        CODING
    })
}

/// Digits and nothing else.
fn number(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a name that `http` took as one of HTTP/2 is a token, as all over HTTP/1.1 are: it lets a
/// quotation mark pass (RFC 9110, 5.6.2).
#[must_use]
pub fn is_token(name: &header::HeaderName) -> bool {
    !name.as_str().contains('"')
}

/// Whether a field may come after a body: none that is none, frames a message, routes it, speaks for a
/// client or belongs to one connection (RFC 9110, 6.5.1).
#[must_use]
pub fn may_trail(name: &header::HeaderName) -> bool {
    if !is_token(name) {
        return false;
    }
    let name = name.as_str();
    !matches!(
        name,
        "age"
            | "authorization"
            | "cache-control"
            | "cdn-loop"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "expect"
            | "expires"
            | "forwarded"
            | "host"
            | "keep-alive"
            | "location"
            | "max-forwards"
            | "pragma"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "range"
            | "retry-after"
            | "set-cookie"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "vary"
            | "via"
            | "warning"
            | "www-authenticate"
            | "x-real-ip"
            | "x-request-id"
    ) && !name.starts_with("x-forwarded-")
        && !name.starts_with("if-")
        && !name.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_request_has_one_length_or_is_refused() {
        let check = |fields: &[_], expected| {
            let length = of_request(Version::HTTP_11, &headers(fields));
            assert_eq!(length, expected, "{fields:?}");
        };
        let length = |value| [("content-length", value)];
        let coding = |value| [("transfer-encoding", value)];
        check(&[], Ok(Length::Exact(0)));
        check(&length("0"), Ok(Length::Exact(0)));
        check(&length("17"), Ok(Length::Exact(17)));
        check(&length("18446744073709551615"), Ok(Length::Exact(u64::MAX)));
        for value in [
            "",
            "+1",
            "-1",
            "0x10",
            "1 ",
            "1,1",
            "1;",
            "18446744073709551616",
            "1e3",
            "\u{661}",
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                let mut map = HeaderMap::new();
                map.insert(header::CONTENT_LENGTH, value);
                assert_eq!(of_request(Version::HTTP_11, &map), Err(LENGTH), "{map:?}");
            }
        }
        check(&[length("5")[0], length("5")[0]], Err(TWICE));
        check(&[length("5")[0], coding("chunked")[0]], Err(TWICE));
        check(&[coding("chunked")[0], length("5")[0]], Err(TWICE));
        check(&coding("chunked"), Ok(Length::Chunked));
        check(&coding("Chunked"), Ok(Length::Chunked));
        check(&coding("gzip, chunked"), Err(BadHead::Coding));
        for value in [
            "gzip",
            "chunked, gzip",
            "identity",
            "xchunked",
            "chunked;q=1",
            "",
            "\"chunked\"",
        ] {
            check(&coding(value), Err(CODING));
        }
        check(&[coding("chunked")[0], coding("chunked")[0]], Err(CODING));
        let old = of_request(Version::HTTP_10, &headers(&coding("chunked")));
        assert_eq!(old, Err(CODING));
    }

    #[test]
    fn a_response_ends_as_its_head_says() {
        let check = |status: u16, to_head, fields: &[_], expected| {
            let status = StatusCode::from_u16(status).unwrap();
            let length = of_response(status, Version::HTTP_11, &headers(fields), to_head);
            assert_eq!(length, expected, "{status} {fields:?}");
        };
        let five = ("content-length", "5");
        let chunked = ("transfer-encoding", "chunked");
        check(200, false, &[], Ok(Length::UntilClose));
        check(200, false, &[five], Ok(Length::Exact(5)));
        check(200, false, &[five, five], Ok(Length::Exact(5)));
        check(200, false, &[five, chunked], Ok(Length::Chunked));
        check(200, true, &[five], Ok(Length::Exact(0)));
        check(200, true, &[chunked], Ok(Length::Exact(0)));
        check(204, false, &[five], Ok(Length::Exact(0)));
        check(304, false, &[five], Ok(Length::Exact(0)));
        check(200, false, &[five, ("content-length", "6")], Err(TWICE));
        check(204, false, &[("content-length", "x")], Err(LENGTH));
        check(200, false, &[("transfer-encoding", "gzip")], Err(CODING));
    }
}
