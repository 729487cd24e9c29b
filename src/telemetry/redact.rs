//! What may never be written down, and how it is kept out.
//!
//! Two nets: what a line is made of holds no secret to begin with ([`host`], [`path`], [`query`]), and
//! every line passes [`scrub`] before it leaves the process, whoever wrote it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::host::Host;

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
            // A name without a value may be a secret in base64: `=` alone is its padding.
            Some((name, value))
                if is_plain_name(name) && value.bytes().any(|byte| byte != b'=') =>
            {
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

/// A host as it may be logged: without user information, and only where it is one at all. What else
/// stands there may be anything.
#[must_use]
pub fn host(authority: &str) -> &str {
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    match Host::parse(host) {
        Ok(_) => host,
        Err(_) => HIDDEN,
    }
}

/// A path as it may be logged: `/user/<token>` hides its token however it is spelt, and an encoded
/// question mark hides the query that somebody meant it to begin.
#[must_use]
pub fn path(path: &str) -> Cow<'_, str> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut segments = decoded
        .split('/')
        .filter(|segment| !matches!(*segment, "" | "." | ".."));
    if let (Some(first), Some(_token)) = (segments.next(), segments.next())
        && first.eq_ignore_ascii_case("user")
    {
        return Cow::Owned(format!("/user/{HIDDEN}"));
    }
    let mut threes = path.as_bytes().windows(3);
    match threes.position(|three| three.eq_ignore_ascii_case(b"%3f")) {
        Some(mark) => Cow::Owned(format!("{}{HIDDEN}", &path[..mark + 3])),
        None => Cow::Borrowed(path),
    }
}

/// A `Referer` as it may be logged: where it is on `host`, which the request is for, by the rules of
/// [`path`] and [`query`]; else its origin alone, which is what browsers tell others.
#[must_use]
pub fn referer(referer: &str, own_host: Option<&str>) -> String {
    let Some((scheme @ ("http" | "https"), rest)) = referer.split_once("://") else {
        return HIDDEN.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let known = host(authority);
    let mut logged = format!("{scheme}://{known}");
    if known == HIDDEN || own_host.is_none_or(|own| !own.eq_ignore_ascii_case(known)) {
        return logged;
    }
    let target = target.split('#').next().unwrap_or_default();
    let (named, asked) = match target.split_once('?') {
        Some((named, asked)) => (named, Some(asked)),
        None => (target, None),
    };
    logged.push_str(&path(named));
    if let Some(asked) = asked {
        logged.push('?');
        logged.push_str(&query(asked));
    }
    logged
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

/// What a secret follows, in lower case.
const MARKS: [&str; 6] = [
    "bearer ",
    "basic ",
    "authorization: ",
    "cookie: ",
    "smtp://",
    "smtps://",
];

/// What names a secret, in lower case: `token=`, `token%3D`, or with a value in quotes `"token": "` and
/// `token: "`, as JSON and `Debug` do.
const NAMES: [&str; 9] = [
    "api_key",
    "api-key",
    "api%5fkey",
    "apikey",
    "token",
    "password",
    "secret",
    "authorization",
    "cookie",
];

const ENDS_OF_FIELD: [char; 3] = ['"', '\'', '\n'];
const ENDS: [char; 8] = ['&', '"', '\'', ' ', ';', '\\', '\n', '>'];
const ENDS_OF_AUTHORITY: [char; 8] = ['/', '?', '#', '"', '\'', ' ', '\\', '\n'];

/// The bytes from `from` on that are the next secret.
fn next_secret(line: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = line.as_bytes();
    let mut at = from;
    let mut starts = std::iter::from_fn(|| {
        let mut pairs = bytes.get(at..)?.iter().zip(bytes.get(at + 1..)?);
        let found = pairs.position(|(first, second)| may_begin(*first, *second))?;
        at += found + 1;
        Some(at - 1)
    });
    starts.find_map(|start| {
        let (secret, end) = secret_at_start(line.get(start..)?)?;
        (end > secret).then_some((start + secret, start + end))
    })
}

/// Whether two bytes are those that a mark or a name begins with.
fn may_begin(first: u8, second: u8) -> bool {
    FIRST[usize::from(first)] & SECOND[usize::from(second)] != 0
}

/// For each byte, with which of [`BEGINNINGS`] it is the first.
const FIRST: [u8; 256] = beginnings(0);
/// For each byte, in which of them it is the second.
const SECOND: [u8; 256] = beginnings(1);

/// How marks and names begin: any of the first bytes, then any of the second.
const BEGINNINGS: [[&[u8]; 2]; 6] = [
    [b"/", b"/"],
    [b"a", b"up"],
    [b"b", b"ea"],
    [b"ct", b"o"],
    [b"p", b"a"],
    [b"s", b"me"],
];

const fn beginnings(place: usize) -> [u8; 256] {
    let mut table = [0; 256];
    let mut group = 0;
    while group < BEGINNINGS.len() {
        let bytes = BEGINNINGS[group][place];
        let mut at = 0;
        while at < bytes.len() {
            table[bytes[at] as usize] |= 1 << group;
            table[bytes[at].to_ascii_uppercase() as usize] |= 1 << group;
            at += 1;
        }
        group += 1;
    }
    table
}

/// Where the secret is in `rest`, if a mark of one stands at its start.
fn secret_at_start(rest: &str) -> Option<(usize, usize)> {
    let first = rest.as_bytes()[0].to_ascii_lowercase();
    if first == b'/' {
        return user_information(rest);
    }
    let begins = |mark: &&&str| {
        let found = rest.as_bytes().get(..mark.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(mark.as_bytes()))
    };
    let (named, ends) = if let Some(mark) = MARKS.iter().find(begins) {
        // The whole of a field is secret, with the spaces in it.
        let is_field = mark.ends_with(": ");
        let ends = if is_field { &ENDS_OF_FIELD[..] } else { &ENDS };
        (mark.len(), ends)
    } else {
        let name = NAMES.iter().find(begins)?.len();
        (name + after_name(&rest[name..])?, &ENDS[..])
    };
    let named = named + spaces(&rest[named..]);
    let value = &rest[named..];
    let secret = named + quote(value).unwrap_or(0);
    if rest[secret..].starts_with(HIDDEN) {
        return None;
    }
    let length = match &rest[named..secret] {
        "" => value.find(ends),
        opening => closing(&rest[secret..], opening),
    };
    Some((secret, length.map_or(rest.len(), |length| secret + length)))
}

/// How long what stands between a name and its value is, the opening quote not counted: `=`, or a
/// colon where a quote follows.
fn after_name(rest: &str) -> Option<usize> {
    let before = spaces(rest);
    let sign = &rest[before..];
    if sign.starts_with('=') {
        return Some(before + 1);
    }
    if sign
        .get(..3)
        .is_some_and(|sign| sign.eq_ignore_ascii_case("%3d"))
    {
        return Some(before + 3);
    }
    let named = quote(rest).unwrap_or(0);
    let after = rest[named..].strip_prefix(':')?;
    let gap = spaces(after);
    quote(&after[gap..]).map(|_length| named + 1 + gap)
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start_matches(' ').len()
}

/// How long the quote is that `text` begins with: a line of JSON escapes those of what it quotes.
fn quote(text: &str) -> Option<usize> {
    let unescaped = text.strip_prefix('\\').unwrap_or(text);
    let is_quoted = unescaped.starts_with(['"', '\'']);
    is_quoted.then_some(text.len() - unescaped.len() + 1)
}

/// Where a text that began with `opening` ends: at such a quote that is no part of it, as an escaped
/// one is, and at the latest with its line.
fn closing(text: &str, opening: &str) -> Option<usize> {
    let is_escaped = opening.starts_with('\\');
    let quote = opening.as_bytes().last()?;
    let mut backslashes = 0;
    for (at, byte) in text.bytes().enumerate() {
        // Within quotes that are escaped, all others are escaped twice.
        let ends = match is_escaped {
            true => backslashes % 4 <= 1,
            false => backslashes % 2 == 0,
        };
        match byte {
            b'\n' => return Some(at),
            b'\\' => backslashes += 1,
            byte if byte == *quote && ends => return Some(at - backslashes % 2),
            _ => backslashes = 0,
        }
    }
    None
}

/// In `//user:password@host`, what stands before the `@`. What is longer than any host and has none
/// may have been cut before it.
fn user_information(rest: &str) -> Option<(usize, usize)> {
    let authority = rest.strip_prefix("//")?;
    let end = authority.find(ENDS_OF_AUTHORITY);
    let authority = &authority[..end.unwrap_or(authority.len())];
    let secret = match authority.rfind('@') {
        Some(at) => at,
        None if authority.len() >= LONGEST_AUTHORITY => authority.len(),
        None => return None,
    };
    (&authority[..secret] != HIDDEN).then_some((2, 2 + secret))
}

/// Octets of a host and a port, and more than that.
pub(super) const LONGEST_AUTHORITY: usize = 512;

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
        check("c2VjcmV0==", "[hidden]");
        check("a==b", "a=[hidden]");
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
    fn a_host_is_logged_that_is_one() {
        for known in ["m3o.app", "localhost:8080", "[::1]:80", "127.0.0.1"] {
            assert_eq!(host(known), known);
        }
        assert_eq!(host("user:canary@m3o.app"), "m3o.app");
        for other in [
            "user:canary",
            "a?code=canary",
            "a, canary",
            "canary@",
            "canary/",
            "",
        ] {
            assert_eq!(host(other), HIDDEN, "{other}");
        }
    }

    #[test]
    fn a_referer_is_told_as_far_as_browsers_tell_others() {
        let check = |given, expected| assert_eq!(referer(given, Some("m3o.app")), expected);
        check(
            "https://m3o.app/a?b=canary#canary",
            "https://m3o.app/a?b=[hidden]",
        );
        check("https://u:canary@m3o.app", "https://m3o.app");
        check("http://M3O.app/user/canary", "http://M3O.app/user/[hidden]");
        check("https://user.m3o.com/canary?canary", "https://user.m3o.com");
        check("https://m3o.app:canary/", "https://[hidden]");
        for other in [
            "canary",
            "javascript:canary",
            "ftp://m3o.app/canary",
            "",
            "://canary",
        ] {
            check(other, HIDDEN);
        }
        assert_eq!(referer("https://m3o.app/canary", None), "https://m3o.app");
    }

    #[test]
    fn every_mark_and_name_is_looked_for() {
        for mark in MARKS.iter().chain(&NAMES).chain(&["//"]) {
            let [first, second, ..] = mark.as_bytes() else {
                panic!("{mark}")
            };
            assert!(may_begin(*first, *second), "{mark}");
            assert!(may_begin(first.to_ascii_uppercase(), *second));
        }
    }

    #[test]
    fn the_token_in_a_path_is_hidden() {
        assert_eq!(path("/user/canary"), "/user/[hidden]");
        assert_eq!(path("//user/canary/x"), "/user/[hidden]");
        for spelt in [
            "/%75ser/canary",
            "/user%2fcanary",
            "/./user/canary",
            "/User//canary",
        ] {
            assert_eq!(path(spelt), "/user/[hidden]", "{spelt}");
        }
        assert_eq!(path("/u/x%3ftoken%3Dcanary"), "/u/x%3f[hidden]");
        assert_eq!(path("/ö/%C3%B6/%3F"), "/ö/%C3%B6/%3F[hidden]");
        assert_eq!(path("/v1/user/login"), "/v1/user/login");
        assert_eq!(path("/user/"), "/user/");
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
        check("api%5Fkey%3Dcanary x", "api%5Fkey%3D[hidden] x");
        check("Api-Key=canary", "Api-Key=[hidden]");
        check(
            r#"{"token": "canary", "a": 1}"#,
            r#"{"token": "[hidden]", "a": 1}"#,
        );
        check(
            r#"{\"password\":\"can ary\"}"#,
            r#"{\"password\":\"[hidden]\"}"#,
        );
        check(
            "at http://user:can@ary@host/x@y",
            "at http://[hidden]@host/x@y",
        );
        check("smtp://u:canary@host", "smtp://[hidden]");
        check("http://host/a@b //c", "http://host/a@b //c");
        check(
            "the token is unknown: a secret",
            "the token is unknown: a secret",
        );
        check("token", "token");
        check("tokenäö", "tokenäö");
    }

    #[test]
    fn a_secret_in_quotes_is_hidden_up_to_the_quote_that_ends_it() {
        let check = |given, expected| assert_eq!(scrub(given), expected);
        check(
            r#"a="1" token="can ary" b="2""#,
            r#"a="1" token="[hidden]" b="2""#,
        );
        check(
            r#"{"m":"password=\"can ary\" x"}"#,
            r#"{"m":"password=\"[hidden]\" x"}"#,
        );
        check("secret='can\"ary' x", "secret='[hidden]' x");
        check("token = canary x", "token = [hidden] x");
        check(
            r#"Key { token: "it's \"canary\"", id: 1 }"#,
            r#"Key { token: "[hidden]", id: 1 }"#,
        );
        check(r#"token="canary\\" x"#, r#"token="[hidden]" x"#);
        check(
            r#"{\"token\":\"can\\\"ary\\\\\",\"a\":1}"#,
            r#"{\"token\":\"[hidden]\",\"a\":1}"#,
        );
        check("Bearer   canary x", "Bearer   [hidden] x");
        check(r#"cookie: "a=canary; b" x"#, r#"cookie: "[hidden]" x"#);
        check("token=\"canary\nnext", "token=\"[hidden]\nnext");
        check(r#"token="" x"#, r#"token="" x"#);
        check("token: canary", "token: canary");
        check("//[hidden]@host", "//[hidden]@host");
    }
}
