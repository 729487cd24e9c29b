//! Which call a path names.

use std::borrow::Cow;

/// The two names of a call, in the case that M3O writes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint<'a> {
    pub(super) service: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
}

impl<'a> Endpoint<'a> {
    /// Reads `/v1/<service>/<endpoint>`, or `/v1/<service>/<Service>/<endpoint>`.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let mut segments = path.strip_prefix("/v1/")?.split('/');
        let service = with_first(segments.next()?, u8::to_ascii_lowercase)?;
        let mut name = segments.next()?;
        if let Some(last) = segments.next() {
            if with_first(name, u8::to_ascii_lowercase)? != service {
                return None;
            }
            name = last;
        }
        let name = with_first(name, u8::to_ascii_uppercase)?;
        segments.next().is_none().then_some(Self { service, name })
    }

    /// As errors name it: `app.Run`.
    pub(super) fn id(&self) -> String {
        format!("{}.{}", self.service, self.name)
    }
}

/// A clean segment with another first letter.
fn with_first(segment: &str, change: fn(&u8) -> u8) -> Option<Cow<'_, str>> {
    let clean = segment.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let first = segment.bytes().next().filter(|_| clean)?;
    let changed = change(&first);
    if changed == first {
        return Some(Cow::Borrowed(segment));
    }
    let mut text = segment.to_owned();
    text.replace_range(..1, char::from(changed).encode_utf8(&mut [0; 4]));
    Some(Cow::Owned(text))
}
