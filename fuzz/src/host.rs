//! Authorities, and hosts beside the names that are configured.

use http::uri::Authority;
use m3o_ingress::host::{Host, Under};
use m3o_ingress::hosts::HostName;

use super::text::first_line;

/// The first line is an authority, the second a suffix.
pub fn check(input: &[u8]) {
    let Some((authority, suffix)) = first_line(input) else {
        return;
    };
    let Ok(host) = Host::parse(authority) else {
        return;
    };
    let name = host.name();
    assert!((1..=255).contains(&name.len()), "{name:?}");
    assert!(
        !name.bytes().any(|byte| byte.is_ascii_uppercase()),
        "{name:?}"
    );
    if let Ok(read) = authority.parse::<Authority>() {
        let their = read.host().to_ascii_lowercase();
        assert_eq!(name, their.strip_suffix('.').unwrap_or(&their));
        assert_eq!(host.port(), read.port_u16());
    }
    let with_port = format!("{name}.:8080");
    let again = Host::parse(&with_port);
    if !name.starts_with('[') {
        assert_eq!(again.expect("a host has any port").name(), name);
    }
    if let Ok(suffix) = suffix.parse::<HostName>() {
        let labels: Vec<&str> = name.split('.').collect();
        let known: Vec<&str> = suffix.as_str().split('.').collect();
        let expected = match labels.strip_suffix(known.as_slice()) {
            None => Under::Elsewhere,
            Some([]) => Under::Itself,
            Some([label]) => Under::Label(label),
            Some(_) => Under::Deeper,
        };
        assert_eq!(host.under(suffix.as_str()), expected, "{name} {suffix}");
    }
}
