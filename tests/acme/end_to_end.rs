//! The whole ingress: it proves its names by its own listeners, and serves what it gets.

use m3o_ingress::config::{Config, Environment};
use m3o_ingress::ingress::{Ingress, Secrets};
use m3o_ingress::server::shutdown::stop_signal;
use m3o_ingress::telemetry::log::Log;
use m3o_ingress::telemetry::metrics::Metrics;

use crate::running::eventually;
use crate::whole::Whole;

/// In front of a remote API.
fn start(more: &str) -> Whole {
    let parts =
        |_| "[api]\naddress = 'http://127.0.0.1:1'\n[hosts]\nuser = 'user.ours.test'\n".to_owned();
    Whole::start(parts, more)
}

/// The names of the certificate that a client of `name` is shown.
fn shown(whole: &Whole, name: &str) -> Option<Vec<String>> {
    Some(whole.get(name, "/").ok()?.0)
}

#[test]
fn an_ingress_proves_its_names_by_its_own_listeners_and_serves_what_it_gets() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let more = format!("challenge = '{challenge}'\nnames = [['a.ours.test', 'b.ours.test']]");
        let whole = start(&more);
        let names = eventually(challenge, || shown(&whole, "b.ours.test"));
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[test]
fn the_first_client_of_a_known_name_waits_for_its_certificate_and_one_of_another_name_does_not() {
    let whole = start("on_demand = true\nnames = ['a.ours.test']");
    eventually("a certificate", || shown(&whole, "a.ours.test"));
    assert!(shown(&whole, "unknown.ours.test").is_none());
    let names = shown(&whole, "user.ours.test").unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_file_of_authorities_that_is_gone_by_the_start_is_called_by_its_key() {
    for key in ["tls.acme.ca", "backends.ca"] {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let file = folder.path().join("ca.pem");
        let certificate = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        std::fs::write(&file, certificate.cert.pem()).unwrap();
        let text = format!(
            "listen.http = '127.0.0.1:0'\nlisten.https = '127.0.0.1:0'\n\
             api.address = 'http://127.0.0.1:1'\ntls.certs = '{here}/none'\n\
             tls.acme.directory = 'https://127.0.0.1:1/'\ntls.acme.agree = true\n\
             tls.acme.folder = '{here}/acme'\n{key} = '{here}/ca.pem'\n"
        );
        let config = Config::parse("test", &text, &Environment::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let secrets = [("M3O_API_TOKEN", "token")].into_iter().collect();
        let secrets = Secrets::from_env(&config, &secrets).unwrap();
        let ingress = Ingress::bind(config, secrets, Log::discard(Metrics::new())).unwrap();
        std::fs::remove_file(&file).unwrap();
        let (_stopper, stop) = stop_signal();
        let error = ingress.run(stop).unwrap_err().to_string();
        let expected = format!("{key}: cannot read certificates from {here}/ca.pem");
        assert!(error.starts_with(&expected), "{error}");
    }
}
