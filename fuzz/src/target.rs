//! The URL of a backend, joined with the target of a request.

use http::Uri;
use m3o_ingress::resolve::Backend;

use super::text::first_line;

/// The first line is the URL of a backend, the rest a target.
pub fn check(input: &[u8]) {
    let Some((url, asked)) = first_line(input) else {
        return;
    };
    let (Ok(backend), Ok(asked)) = (Backend::parse(url), asked.parse::<Uri>()) else {
        return;
    };
    let Ok(joined) = backend.target(&asked) else {
        let length = url.len() + asked.to_string().len();
        assert!(
            length > 60_000,
            "only a target that is too long cannot be joined"
        );
        return;
    };
    let slash = if asked.path().starts_with('/') {
        ""
    } else {
        "/"
    };
    if asked.path() != "*" {
        let path = format!("{}{slash}{}", backend.path(), asked.path());
        assert_eq!(joined.path(), path);
    }
    let parsed = url::Url::parse(url).expect("the backend was parsed from it");
    let own = parsed.query().unwrap_or_default();
    let query = asked.query().unwrap_or_default();
    let and = if own.is_empty() || query.is_empty() {
        ""
    } else {
        "&"
    };
    assert_eq!(
        joined.query().unwrap_or_default(),
        format!("{own}{and}{query}")
    );
    let text = joined.as_str();
    assert!(!text.contains(|char: char| char.is_ascii_control() || matches!(char, ' ' | '#')));
}
