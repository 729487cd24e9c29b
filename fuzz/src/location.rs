//! Where redirects lead: those that we send, and those of backends.

use http::{HeaderMap, HeaderValue, header};
use m3o_ingress::destination::Destination;
use m3o_ingress::proxy::headers;
use m3o_ingress::resolve::Backend;
use m3o_ingress::wire::Scheme;

use super::text::first_line;

/// The first line is where a redirect leads, the rest the URL of the backend that sends it.
pub fn check(input: &[u8]) {
    let Some((location, backend)) = first_line(input) else {
        return;
    };
    if let Ok(destination) = Destination::parse(location) {
        assert_eq!(destination.as_str(), location, "to the byte");
        leads(location);
    }
    if let Ok(destination) = Destination::encode(location) {
        leads(destination.as_str());
        assert!(Destination::parse(destination.as_str()).is_ok());
    }
    if let (Ok(location), Ok(backend)) = (HeaderValue::from_str(location), Backend::parse(backend))
    {
        mapped(&location, &backend);
    }
}

/// `text` is what every browser reads in one way: an absolute web URL.
fn leads(text: &str) {
    let url = url::Url::parse(text).expect("it is a URL");
    assert!(matches!(url.scheme(), "http" | "https"), "{text:?}");
    assert!(
        url.host_str().is_some_and(|host| !host.is_empty()),
        "{text:?}"
    );
    assert!(
        url.username().is_empty() && url.password().is_none(),
        "{text:?}"
    );
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\'),
        "{text:?}"
    );
}

/// A redirect within the backend's origin becomes one within ours, any other stays as it is.
fn mapped(location: &HeaderValue, backend: &Backend) {
    let mut fields = HeaderMap::new();
    fields.insert(header::LOCATION, location.clone());
    let ours = HeaderValue::from_static("blog.m3o.app");
    headers::map_to_public(&mut fields, backend, Scheme::Https, &ours);
    let sent = &fields[header::LOCATION];
    if sent == location {
        return;
    }
    let text = sent.to_str().expect("a public URL is ASCII");
    assert!(text.starts_with("https://blog.m3o.app"), "{text:?}");
    let rest = &text["https://blog.m3o.app".len()..];
    assert!(
        rest.is_empty() || rest.starts_with(['/', '?', '#']),
        "{text:?}"
    );
    let was = url::Url::parse(location.to_str().expect("it was read")).expect("it is a URL");
    let origin = backend.origin();
    assert_eq!(was.scheme(), origin.scheme().as_str(), "{location:?}");
    let host = was.host_str().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    assert_eq!(host, origin.host(), "{location:?}");
    assert_eq!(
        was.port_or_known_default(),
        Some(origin.port()),
        "{location:?}"
    );
}
