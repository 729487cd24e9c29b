//! What serde and the TOML reader say, in words for whoever wrote the file. Pure.

use toml::de::DeValue;

/// The closest of `known`, where one is close enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = |known: &str| (known.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|known| word.len().abs_diff(known.len()) <= allowed(known))
        .map(|known| (distance(word.as_bytes(), known.as_bytes()), known))
        .filter(|(distance, known)| *distance <= allowed(known))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The names in backticks after "expected" in serde's list of what it knows.
pub(super) fn expected_names(message: &str) -> Vec<&str> {
    let list = message.rfind("`, expected ").map_or("", |at| {
        let after = at + "`, expected ".len();
        &message[after..]
    });
    list.split('`').skip(1).step_by(2).collect()
}

/// The keys of `path` as one writes them: with quotes where there is more than a word.
pub(super) fn dotted<'a>(path: impl IntoIterator<Item = &'a String>) -> String {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let written = |step: &String| match step.bytes().all(is_word) && !step.is_empty() {
        true => step.clone(),
        false => format!("\"{}\"", shortened(step)),
    };
    let steps: Vec<String> = path.into_iter().map(written).collect();
    steps.join(".")
}

/// ``a``, ``b`` or ``c``.
pub(super) fn one_of(names: &[&str], quote: char) -> String {
    let quoted: Vec<String> = names
        .iter()
        .map(|name| format!("{quote}{name}{quote}"))
        .collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Why `value` cannot stand where it does. `example` is how the key is written, or empty.
pub(super) fn unfit(message: &str, value: &DeValue<'_>, example: &str) -> String {
    let like = match example {
        "" => String::new(),
        example => format!(": write it like `{example}`"),
    };
    let found = shown(value);
    match message {
        _ if message.starts_with("invalid type") || message.starts_with("invalid value") => {
            let expected = message
                .rsplit_once(", expected ")
                .map_or("", |(_, end)| end);
            match kind(expected) {
                Some(kind) => format!("{found} stands where {kind} belongs{like}"),
                None => format!("{found} stands where {expected} belongs"),
            }
        }
        _ if message.starts_with("unknown variant") => {
            let names = expected_names(message);
            format!("{found} is not known here: write {}", one_of(&names, '"'))
        }
        "wanted string or table" => format!("{found} stands where a text belongs{like}"),
        "invalid socket address syntax" => format!(
            "{found} is no address: write an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\""
        ),
        "invalid IP address syntax" => {
            format!("{found} is no network: write it like \"10.0.0.0/8\" or \"fd00::/8\"")
        }
        _ if message.ends_with("overflowed") => format!("{found} is too large"),
        _ => message.to_owned(),
    }
}

/// Why `value` cannot stand where the section `name` belongs.
pub(super) fn no_section(value: &DeValue<'_>, name: &str) -> String {
    let found = shown(value);
    format!("{found} stands where a section belongs: write `[{name}]` above its keys")
}

/// What serde's names of Rust types mean to somebody else.
fn kind(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "a string" | "path string" | "socket address" | "IPv4 or IPv6 network address" => "a text",
        "a boolean" => "true or false",
        "usize" | "u64" => "a whole number from 0 up",
        "a text or a list of texts" => "a text or a list of texts",
        _ => return None,
    })
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("`{}`", shortened(text)),
        DeValue::Integer(number) => format!("`{}`", shortened(&number.to_string())),
        DeValue::Float(number) => format!("`{}`", shortened(number.as_str())),
        DeValue::Boolean(switch) => format!("`{switch}`"),
        DeValue::Datetime(date) => format!("`{date}`"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// One line, and not a long one.
pub(super) fn shortened(text: &str) -> String {
    let line: String = text.chars().take(60).collect();
    let dots = if line.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", line.escape_debug())
}

/// Insertions, deletions, changes, and swaps of neighbours (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let change = above[j] + usize::from(x != y);
            let mut least = change.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let known = ["address", "token_env", "http", "https", "app", "url"];
        let check = |word, expected| assert_eq!(nearest(word, known), expected, "{word}");
        check("adress", Some("address"));
        check("token-env", Some("token_env"));
        check("htpp", Some("http"));
        check("httpss", Some("https"));
        check("ap", Some("app"));
        check("ulr", Some("url"));
        check("colour", None);
        check("", None);
    }

    #[test]
    fn serdes_list_of_names_is_read() {
        let check = |message, expected: &[&str]| assert_eq!(expected_names(message), expected);
        check("unknown field `x`, expected `a` or `b`", &["a", "b"]);
        check(
            "unknown field `x`, expected one of `a`, `b`, `c`",
            &["a", "b", "c"],
        );
        check("unknown field `x`, there are no fields", &[]);
        assert_eq!(one_of(&["a", "b", "c"], '`'), "`a`, `b` or `c`");
        assert_eq!(one_of(&["a"], '"'), "\"a\"");
    }
}
