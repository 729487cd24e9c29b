//! The checks of `[tls.acme]` that a type cannot express.

use std::path::Path;
use std::time::Duration;

use super::Config;
use super::check::authority_file;
use super::report::Report;
use crate::acme::{self, config::Challenge};
use crate::mail::check_address;

/// Runs them all.
pub(super) fn all(config: &Config, report: &mut Report<'_>) {
    let Some(acme) = &config.tls.acme else {
        return;
    };
    served(config, report);
    agreement(acme, report);
    binding(acme, report);
    authority_file("tls.acme.ca", &acme.ca, report);
    folder(config, report);
    names(acme, report);
    ways(config, acme, report);
    dns(acme, report);
    numbers(acme, report);
}

/// A certificate is there to be served.
fn served(config: &Config, report: &mut Report<'_>) {
    let https = ["listen", "https"].map(str::to_owned);
    if config.listen.https.is_empty() && !report.is_gone(&https) {
        report.add(
            "tls.acme",
            "nothing would serve its certificates: set `listen.https`, or leave the section out",
        );
    }
}

fn agreement(acme: &acme::Config, report: &mut Report<'_>) {
    if !acme.agree {
        report.add(
            "tls.acme.agree",
            "an authority gives certificates to those only who agree to its terms of service: read them, and write `agree = true`",
        );
    }
    for (index, address) in acme.contact.iter().enumerate() {
        if check_address(address).is_err() {
            let message = format!("`{address}` is no mail address: write it like \"ops@m3o.com\"");
            report.add(&format!("tls.acme.contact.{index}"), message);
        }
    }
}

fn binding(acme: &acme::Config, report: &mut Report<'_>) {
    let (missing, there) = match (&acme.eab_kid, &acme.eab_key_env) {
        (Some(_), None) => ("eab_key_env", "eab_kid"),
        (None, Some(_)) => ("eab_kid", "eab_key_env"),
        _ => return,
    };
    let message = format!("`{missing}` is missing: a binding is an identifier and a key");
    report.add(&format!("tls.acme.{there}"), message);
}

fn folder(config: &Config, report: &mut Report<'_>) {
    if config.acme_folder().is_none() {
        report.add(
            "tls.acme.folder",
            "there is no store whose folder could hold the account and the certificates: name a folder",
        );
    }
}

fn names(acme: &acme::Config, report: &mut Report<'_>) {
    for (index, names) in acme.names.iter().enumerate() {
        let key = format!("tls.acme.names.{index}");
        let first = names.first();
        if acme.names[..index]
            .iter()
            .any(|other| other.first() == first)
        {
            let message = format!("two certificates begin with `{first}`, which names their file");
            report.add(&key, message);
        }
        let wildcard = names.iter().find(|name| name.is_wildcard());
        if let Some(name) = wildcard.filter(|_| !acme.can_prove_wildcards()) {
            let message = format!(
                "`{name}` can be proven by dns-01 alone: it needs [tls.acme.dns.update] or [tls.acme.dns.hook], and dns-01 in `challenge`"
            );
            report.add(&key, message);
        }
    }
}

fn ways(config: &Config, acme: &acme::Config, report: &mut Report<'_>) {
    let usable = |way: &Challenge| match way {
        Challenge::Dns01 => acme.dns.is_some(),
        Challenge::TlsAlpn01 => !config.listen.https.is_empty(),
        Challenge::Http01 => !config.listen.http.is_empty(),
    };
    let key = "tls.acme.challenge";
    if !acme.challenge.iter().any(usable) {
        report.add(
            key,
            "none of these can be met: http-01 needs `listen.http`, tls-alpn-01 `listen.https`, dns-01 [tls.acme.dns]",
        );
    }
    let on_demand = |way: &&Challenge| **way != Challenge::Dns01 && usable(way);
    if acme.on_demand && !acme.challenge.iter().any(|way| on_demand(&way)) {
        report.add(
            "tls.acme.on_demand",
            "a client that waits cannot wait for the DNS: add http-01 or tls-alpn-01 to `challenge`",
        );
    }
}

fn dns(acme: &acme::Config, report: &mut Report<'_>) {
    let Some(dns) = &acme.dns else {
        return;
    };
    let gone = ["tls", "acme", "dns"].map(str::to_owned);
    match (&dns.update, &dns.hook) {
        (Some(_), Some(_)) => report.add(
            "tls.acme.dns.hook",
            "[tls.acme.dns.update] and [tls.acme.dns.hook] exclude each other: leave one of them out",
        ),
        (None, None) if !report.is_gone(&gone) => report.add(
            "tls.acme.dns",
            "it names no way: add [tls.acme.dns.update] or [tls.acme.dns.hook]",
        ),
        _ => {}
    }
    let program = dns.hook.as_ref().map(|hook| hook.command.first());
    let absolute = |program: &String| Path::new(program).is_absolute();
    match program {
        Some(Some(program)) if absolute(program) && !Path::new(program).is_file() => {
            let message = format!("`{program}` does not exist");
            report.add("tls.acme.dns.hook.command", message);
        }
        Some(program) if !program.is_some_and(absolute) => report.add(
            "tls.acme.dns.hook.command",
            "it begins with the whole path of a program: write it like [\"/usr/local/bin/dns-hook\"]",
        ),
        _ => {}
    }
}

fn numbers(acme: &acme::Config, report: &mut Report<'_>) {
    let counts = [
        ("orders", acme.orders),
        ("on_demand_per_peer", acme.on_demand_per_peer as usize),
        ("on_demand_overall", acme.on_demand_overall as usize),
        ("on_demand_waiting", acme.on_demand_waiting),
        ("on_demand_certificates", acme.on_demand_certificates),
    ];
    for (key, count) in counts {
        if count == 0 {
            let message = "`0` lets nothing through: it is at least 1";
            report.add(&format!("tls.acme.{key}"), message);
        }
    }
    let update = acme.dns.as_ref().and_then(|dns| dns.update.as_ref());
    let hook = acme.dns.as_ref().and_then(|dns| dns.hook.as_ref());
    let spans = [
        ("timeout", Some(acme.timeout)),
        ("order_timeout", Some(acme.order_timeout)),
        ("retry", Some(acme.retry)),
        ("retry_most", Some(acme.retry_most)),
        ("on_demand_period", Some(acme.on_demand_period)),
        ("dns.update.wait", update.map(|update| update.wait)),
        ("dns.hook.timeout", hook.map(|hook| hook.timeout)),
    ];
    for (key, span) in spans {
        if span == Some(Duration::ZERO) {
            report.add(&format!("tls.acme.{key}"), "`0s` leaves no time at all");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};

    /// `[tls.acme]` with these lines has a problem that says so.
    #[track_caller]
    fn check(lines: &str, expected: &str) {
        let text = format!(
            "[listen]\nhttps = '127.0.0.1:8443'\n[api]\naddress = 'https://api.m3o.com'\n\
             [tls.acme]\ndirectory = 'https://acme.example/'\n{lines}"
        );
        let problems = Config::parse("f", &text, &Environment::default());
        let problems = problems.err().unwrap_or_default();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        match expected {
            "" => assert!(said.is_empty(), "{lines}: {said:#?}"),
            expected => assert!(
                said.len() == 1 && said[0].contains(expected),
                "{lines}: {said:#?}"
            ),
        }
    }

    const FINE: &str = "agree = true\nfolder = 'acme'\n";

    #[test]
    fn a_section_that_could_not_work_says_why() {
        check(FINE, "");
        check("folder = 'acme'", "f:5:1: tls.acme.agree: an authority");
        check("agree = true", "tls.acme.folder: there is no store");
        let with = |lines: &str, expected: &str| check(&format!("{FINE}{lines}"), expected);
        with(
            "contact = ['ops']",
            "tls.acme.contact: `ops` is no mail address",
        );
        with("key_type = 'ed25519'", "tls.acme.key_type");
        with(
            "eab_kid = 'kid'",
            "tls.acme.eab_kid: `eab_key_env` is missing",
        );
        with(
            "eab_kid = 'kid'\neab_key_env = 'no name'",
            "no name of an environment variable",
        );
        with(
            "ca = '/nowhere.pem'",
            "tls.acme.ca: `/nowhere.pem` cannot be read",
        );
        with(
            "names = ['*.m3o.app']",
            "`*.m3o.app` can be proven by dns-01 alone",
        );
        with(
            "names = ['a.test', ['a.test', 'b.test']]",
            "two certificates begin with `a.test`",
        );
        with("names = [['a.test', 'a.test']]", "`a.test` is there twice");
        with("names = ['127.0.0.1']", "is an address");
        with("challenge = 'http-01'", "none of these can be met");
        with("challenge = 'http'", "tls.acme.challenge");
        with("orders = 0", "tls.acme.orders: `0` lets nothing through");
        with("retry = '0s'", "tls.acme.retry: `0s` leaves no time");
        with("on_demnad = true", "did you mean `on_demand`?");
        with("[tls.acme.dns]", "tls.acme.dns: it names no way");
        let hook = "[tls.acme.dns.hook]\ncommand = ";
        with(&format!("{hook}['/bin/true', 'x']"), "");
        with(&format!("{hook}'hook'"), "it begins with the whole path");
        with(&format!("{hook}[]"), "it begins with the whole path");
        with(&format!("{hook}'/nowhere'"), "`/nowhere` does not exist");
        let update =
            "[tls.acme.dns.update]\nserver = '192.0.2.1'\nkey_name = 'acme'\nkey_env = 'KEY'\n";
        with(update, "");
        with(
            &format!("{update}algorithm = 'md5'"),
            "tls.acme.dns.update.algorithm",
        );
        with(&format!("{update}wait = '0s'"), "leaves no time");
        with(&format!("{update}{hook}'/bin/true'"), "exclude each other");
        with(
            &format!("on_demand = true\nchallenge = 'dns-01'\n{update}"),
            "cannot wait for the DNS",
        );
        check(
            "agree = true\nfolder = 'acme'\nnames = ['*.a.test']\n[tls.acme.dns.hook]\ncommand = '/bin/true'",
            "",
        );
    }

    #[test]
    fn the_section_reads_back_as_it_is_shown() {
        let text = "[listen]\nhttps = '127.0.0.1:8443'\n[platform]\nstore = 'data/s'\n\
            [tls.acme]\ndirectory = 'https://acme.example/'\nagree = true\n\
            contact = 'ops@m3o.com'\nnames = ['m3o.one', ['*.m3o.app', 'm3o.app']]\n\
            [tls.acme.dns.update]\nserver = '192.0.2.1'\nkey_name = 'acme'\nkey_env = 'KEY'\n";
        let config = Config::parse("f", text, &Environment::default()).unwrap();
        let shown = config.to_toml();
        let again = Config::parse("f", &shown, &Environment::default());
        assert_eq!(again.as_ref(), Ok(&config), "{shown}");
        assert_eq!(config.acme_folder(), Some("data/acme".into()));
        let set = [("M3O_INGRESS_TLS__ACME__ORDER_TIMEOUT", "7m")]
            .into_iter()
            .collect();
        let set = Config::parse("f", text, &set).unwrap();
        assert_eq!(set.tls.acme.unwrap().order_timeout.as_secs(), 420);
    }

    #[test]
    fn certificates_that_nobody_serves_are_a_mistake() {
        let text = "[listen]\nhttp = '127.0.0.1:8080'\n[platform]\nstore = 's'\n\
            [tls.acme]\ndirectory = 'https://acme.example/'\nagree = true\n";
        let problems = Config::parse("f", text, &Environment::default()).unwrap_err();
        assert!(
            problems[0].to_string().contains("nothing would serve"),
            "{problems:?}"
        );
    }
}
