//! How inputs of several parts are taken apart.

/// The first line of `input` and what comes after it; `None` where one of the two is not UTF-8.
pub(super) fn first_line(input: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(input).ok()?;
    Some(text.split_once('\n').unwrap_or((text, "")))
}
