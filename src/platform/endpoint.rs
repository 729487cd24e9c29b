//! Which call a path names.

/// The two names of a call, in the case that M3O writes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) service: String,
    pub(super) name: String,
}

impl Endpoint {
    /// Reads `/v1/<service>/<endpoint>`, or `/v1/<service>/<Service>/<endpoint>`.
    pub(super) fn of(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/v1/")?.split('/');
        let service = with_first(segments.next()?, char::to_ascii_lowercase)?;
        let mut name = segments.next()?;
        if let Some(last) = segments.next() {
            if with_first(name, char::to_ascii_lowercase)? != service {
                return None;
            }
            name = last;
        }
        let name = with_first(name, char::to_ascii_uppercase)?;
        segments.next().is_none().then_some(Self { service, name })
    }

    /// As errors name it: `app.Run`.
    pub(super) fn id(&self) -> String {
        format!("{}.{}", self.service, self.name)
    }
}

/// A clean segment with another first letter.
fn with_first(segment: &str, change: fn(&char) -> char) -> Option<String> {
    let clean = segment.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let first = segment.chars().next().filter(|_| clean)?;
    Some(format!("{}{}", change(&first), &segment[1..]))
}
