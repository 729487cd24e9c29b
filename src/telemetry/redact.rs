//! What may never be written down, and how it is kept out.
//!
//! Two nets: what a line is made of holds no secret to begin with ([`query`], [`path`]), and
//! every line passes [`scrub`] before it leaves the process, whoever wrote it.

use std::borrow::Cow;

/// What stands where a secret was.
pub const HIDDEN: &str = "[hidden]";

/// A query as it may be logged: the names stay, every value is hidden.
///
/// A value that is a secret to somebody cannot be told from one that is not.
#[must_use]
pub fn query(query: &str) -> String {
    let mut logged = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            logged.push('&');
        }
        match pair.split_once('=') {
            // A name without a value may be a secret in base64, whose padding looks like one.
            Some((name, value)) if is_plain_name(name) && !value.is_empty() => {
                logged.push_str(name);
                logged.push('=');
                logged.push_str(HIDDEN);
            }
            None if pair.is_empty() => {}
            // Without a `=` nobody can say which part is the value.
            Some(_) | None => logged.push_str(HIDDEN),
        }
    }
    logged
}

/// A path as it may be logged: `/user/<token>` hides its token.
#[must_use]
pub fn path(path: &str) -> Cow<'_, str> {
    let shown = path.trim_start_matches('/');
    match shown.split_once('/') {
        Some((first, rest)) if first.eq_ignore_ascii_case("user") && !rest.is_empty() => {
            Cow::Owned(format!("/user/{HIDDEN}"))
        }
        _ => Cow::Borrowed(path),
    }
}

/// A method as it may be logged. One that looks like none may be a piece of a body that was taken
/// for the next request; OpenTelemetry names it so.
#[must_use]
pub fn method(method: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    match method.len() <= 20 && method.bytes().all(plain) {
        true => method,
        false => "_OTHER",
    }
}

/// Hides what looks like a secret in a finished line.
#[must_use]
pub fn scrub(line: &str) -> Cow<'_, str> {
    let mut scrubbed: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some((start, end)) = next_secret(line, at) {
        let out = scrubbed.get_or_insert_with(|| String::with_capacity(line.len()));
        out.push_str(&line[copied..start]);
        out.push_str(HIDDEN);
        copied = end;
        at = end;
    }
    match scrubbed {
        Some(mut out) => {
            out.push_str(&line[copied..]);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(line),
    }
}

/// What a secret follows, in lower case. The secret ends at the first of [`ENDS`].
const MARKS: [&str; 9] = [
    "bearer ",
    "basic ",
    "api_key=",
    "token=",
    "password=",
    "secret=",
    "authorization: ",
    "cookie: ",
    "smtps://",
];

const ENDS_OF_FIELD: [char; 3] = ['"', '\'', '\n'];
const ENDS: [char; 8] = ['&', '"', '\'', ' ', ';', '\\', '\n', '>'];

/// The bytes from `from` on that are the next secret.
fn next_secret(line: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = line.as_bytes();
    (from..bytes.len()).find_map(|start| {
        if !line.is_char_boundary(start) {
            return None;
        }
        let mark = MARKS.iter().find(|mark| {
            bytes
                .get(start..start + mark.len())
                .is_some_and(|found| found.eq_ignore_ascii_case(mark.as_bytes()))
        })?;
        let secret = start + mark.len();
        // The whole of a field is secret, with the spaces in it.
        let ends = if mark.ends_with(": ") {
            &ENDS_OF_FIELD[..]
        } else {
            &ENDS[..]
        };
        let length = line[secret..].find(ends).unwrap_or(line.len() - secret);
        let already = line[secret..].starts_with(HIDDEN);
        (length > 0 && !already).then_some((secret, secret + length))
    })
}

fn is_plain_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_its_names_and_hides_its_values() {
        let check = |given, expected| assert_eq!(query(given), expected);
        check("api_key=canary&name=John", "api_key=[hidden]&name=[hidden]");
        check("canary", "[hidden]");
        check("a=b=canary", "a=[hidden]");
        check("api_key%3Dcanary=x", "[hidden]");
        check("", "");
        check("a=1&&c2VjcmV0=", "a=[hidden]&&[hidden]");
    }

    #[test]
    fn a_method_is_logged_that_could_be_one() {
        for known in ["GET", "PROPFIND", "VERSION-CONTROL"] {
            assert_eq!(method(known), known);
        }
        for other in ["canary", "CANARY0", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"] {
            assert_eq!(method(other), "_OTHER");
        }
    }

    #[test]
    fn the_token_in_a_path_is_hidden() {
        assert_eq!(path("/user/canary"), "/user/[hidden]");
        assert_eq!(path("//user/canary/x"), "/user/[hidden]");
        assert_eq!(path("/users/a"), "/users/a");
        assert_eq!(path("/u/abc"), "/u/abc");
    }

    #[test]
    fn a_finished_line_is_scrubbed_of_what_looks_like_a_secret() {
        let check = |given, expected| assert_eq!(scrub(given), expected);
        check("nothing here", "nothing here");
        check("sent Bearer canary to", "sent Bearer [hidden] to");
        check(
            r#"{"u":"?api_key=canary&x=1"}"#,
            r#"{"u":"?api_key=[hidden]&x=1"}"#,
        );
        check("TOKEN=canary token=canary", "TOKEN=[hidden] token=[hidden]");
        check("token=[hidden]", "token=[hidden]");
        check(
            "Authorization: Bearer canary\nx",
            "Authorization: [hidden]\nx",
        );
        check("\"Cookie: a=canary; b=canary\"", "\"Cookie: [hidden]\"");
        check("ö bearer ä", "ö bearer [hidden]");
    }
}
