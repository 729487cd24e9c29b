//! A browser over HTTPS: Chromium, which trusts our authority and nothing else. What it checks is in
//! tests/node/browser.mjs.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::process::{Ingress, run_command};
use crate::tools;

/// Lets the browser check what `mode` is about.
#[track_caller]
fn judge(mode: &str, ingress: &Ingress, paths: &[&Path]) {
    let port = ingress.https_port();
    let paths = paths.iter().map(|path| path.to_str().unwrap());
    let arguments: Vec<&str> = [mode, &port].into_iter().chain(paths).collect();
    let said = tools::node("browser.mjs", &arguments);
    assert!(said.ends_with("all is as expected\n"), "{said}");
}

#[test]
fn a_browser_opens_an_app_of_dev_over_http2_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = Ingress::dev(folder.path());
    judge("dev", &ingress, &[&folder.path().join("ca.crt")]);
    ingress.stop();
}

#[test]
fn a_browser_keeps_what_it_has_open_while_certificates_are_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let [authority, certs, prepared] = ["authority.crt", "certs", "prepared"].map(path);
    for made in [&certs, &prepared] {
        fs::create_dir(made).unwrap();
    }
    prepare(&authority, &prepared);
    for kind in ["crt", "key"] {
        let first = prepared.join("pair-0").with_extension(kind);
        fs::rename(first, certs.join("served").with_extension(kind)).unwrap();
    }
    let config = "
        listen = { http = '127.0.0.1:0', https = '127.0.0.1:0', admin = '127.0.0.1:0' }
        hosts = { app = 'app.localhost' }
        backends = { allow_private = true }
        platform.store = 'memory'
        tls = { certs = 'certs', watch = '20ms' }
    ";
    let ingress = Ingress::start(run_command(folder.path(), config).env("M3O_PLATFORM_KEY", "dev"));
    judge("swaps", &ingress, &[&authority, &certs, &prepared]);
    let text = ingress.stop();
    for path in ["/echo", "/events"] {
        let line = text.lines().find(|line| line.contains(path));
        let version = r#""network.protocol.version":"2""#;
        assert!(line.is_some_and(|line| line.contains(version)), "{text}");
    }
}

/// An authority, and pairs of it for the same names, each with its own name for a subject.
fn prepare(authority: &Path, pairs: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = parameters.self_signed(&key).unwrap();
    fs::write(authority, certificate.pem()).unwrap();
    let issuer = Issuer::new(parameters, key);
    for number in 0..=5 {
        let name = format!("pair-{number}");
        let key = KeyPair::generate().unwrap();
        let names = ["*.app.localhost", "localhost"].map(str::to_owned);
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name = Default::default();
        let subject = &mut parameters.distinguished_name;
        subject.push(DnType::CommonName, name.as_str());
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        let write = |kind: &str, pem: String| {
            fs::write(pairs.join(&name).with_extension(kind), pem).unwrap();
        };
        write("crt", certificate.pem());
        write("key", key.serialize_pem());
    }
}
