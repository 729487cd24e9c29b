//! The checks that span parts, or that a type cannot express. Reads the file of authorities only.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Config;
use super::check_acme;
use super::report::Report;
use crate::mail::check_address;
use crate::pool;
use crate::proxy::https::Place;
use crate::server::local;
use crate::telemetry::metrics::{MOST_APPS, MOST_COMBINATIONS};
use crate::units::{duration, size};

/// More threads than any machine has cores.
const MOST_WORKERS: usize = 1024;
/// Those of clients, keys and apps are then a gigabyte in all.
const MOST_PLACES: usize = 16 << 20;
/// Looking at a large folder takes a while.
const SHORTEST_WATCH: Duration = Duration::from_millis(10);

/// Runs them all.
pub(super) fn all(config: &Config, report: &mut Report<'_>) {
    one_api(config, report);
    listeners(config, report);
    proxy_protocol(config, report);
    hosts(config, report);
    https(config, report);
    spans_of_time(config, report);
    numbers(config, report);
    authorities(config, report);
    variables(config, report);
    sender(config, report);
    access_log(config, report);
    spans(config, report);
    check_acme::all(config, report);
}

fn one_api(config: &Config, report: &mut Report<'_>) {
    let gone = |section: &str| report.is_gone(&[section.to_owned()]);
    match (&config.api, &config.platform) {
        (Some(_), Some(_)) => report.add(
            "platform",
            "[api] and [platform] exclude each other: leave one of them out",
        ),
        (None, None) if !gone("api") && !gone("platform") => report.add_missing(
            "neither [api] nor [platform] is there: name a remote M3O API, or a store for the embedded platform",
        ),
        _ => {}
    }
}

fn listeners(config: &Config, report: &mut Report<'_>) {
    let listen = &config.listen;
    if listen.http.is_empty() && listen.https.is_empty() {
        report.add(
            "listen.http",
            "there is nothing to listen on: write it like `http = \"127.0.0.1:8080\"`",
        );
    }
    let public = [("http", &listen.http), ("https", &listen.https)];
    let mut seen: Vec<SocketAddr> = Vec::new();
    for (kind, addresses) in public {
        for (index, address) in addresses.iter().enumerate() {
            if address.port() != 0 && seen.contains(address) {
                report.add(
                    &format!("listen.{kind}.{index}"),
                    format!("`{address}` is there twice"),
                );
            }
            seen.push(*address);
        }
    }
    if let Some(path) = &listen.control
        && let Err(error) = local::check_path(path)
    {
        report.add("listen.control", error.to_string());
    }
    let Some(admin) = listen.admin else {
        return;
    };
    if !admin.ip().to_canonical().is_loopback() {
        report.add(
            "listen.admin",
            format!("`{admin}` can be reached from outside: health and metrics are served on a loopback address only, like \"127.0.0.1:8090\""),
        );
    } else if admin.port() != 0 && seen.contains(&admin) {
        report.add(
            "listen.admin",
            format!("`{admin}` is a public listener too: take another port"),
        );
    }
}

/// An address that is misspelt would take connections at their word, or none at all.
fn proxy_protocol(config: &Config, report: &mut Report<'_>) {
    let listen = &config.listen;
    for (index, address) in listen.proxy_protocol.iter().enumerate() {
        if !listen.public().any(|other| other == *address) {
            let message = format!(
                "`{address}` is no address of `http` or `https`: write one of them as it stands there"
            );
            report.add(&format!("listen.proxy_protocol.{index}"), message);
        }
    }
    let trusted = ["backends".to_owned(), "trusted_proxies".to_owned()];
    let nobody = config.backends.trusted_proxies.is_empty() && !report.is_gone(&trusted);
    if nobody && !listen.proxy_protocol.is_empty() {
        let message = "nobody could connect: name the load balancers in `backends.trusted_proxies`, like [\"10.0.0.0/8\"]";
        report.add("listen.proxy_protocol", message);
    }
}

fn https(config: &Config, report: &mut Report<'_>) {
    let https = &config.https;
    let path = |steps: &[&str]| -> Vec<String> {
        let steps = ["https"].iter().chain(steps);
        steps.map(|step| (*step).to_owned()).collect()
    };
    if https.port == 0 {
        report.add("https.port", "`0` is no port: it is at least 1");
    }
    for address in https.listeners.keys() {
        if !config.listen.public().any(|other| other == *address) {
            let message = format!(
                "`{address}` is no address of `listen.http` or `listen.https`: write one of them as it stands there"
            );
            report.add_with(&path(&["listeners", &address.to_string()]), message);
        }
    }
    for place in https.unlistable() {
        let place = match place {
            Place::Section => path(&["hsts_preload"]),
            Place::Domain(name) => path(&["domains", name.as_str()]),
            Place::Listener(address) => path(&["listeners", &address.to_string()]),
        };
        let message = "browsers list only names with `hsts_subdomains = true` and an `hsts` of \"365d\" or longer";
        report.add_with(&place, message);
    }
}

fn hosts(config: &Config, report: &mut Report<'_>) {
    let hosts = &config.hosts;
    let kinds = [
        ("app", &hosts.app),
        ("function", &hosts.function),
        ("url", &hosts.url),
        ("user", &hosts.user),
    ];
    for (later, (kind, names)) in kinds.iter().enumerate() {
        let gone = report.is_gone(&["hosts".to_owned(), (*kind).to_owned()]);
        if names.is_empty() && config.platform.is_some() && !gone {
            let key = format!("hosts.{kind}");
            let message = "it is empty, but [platform] makes links with its first name: name a host, or leave the key out for its default";
            report.add(&key, message);
        }
        for (index, name) in names.iter().enumerate() {
            let taken = kinds[..later]
                .iter()
                .find(|(_, names)| names.contains(name));
            if let Some((other, _)) = taken {
                // A default that the file leaves alone has no place: the other one is to blame.
                let written = |kind: &str| {
                    let path = ["hosts".to_owned(), kind.to_owned()];
                    report.document.value(&path).is_some()
                };
                let (blamed, other) = if written(kind) || !written(other) {
                    (format!("hosts.{kind}.{index}"), *other)
                } else {
                    (format!("hosts.{other}"), *kind)
                };
                let message =
                    format!("`{name}` is a name of `{other}` too: a name leads to one kind");
                report.add(&blamed, message);
            }
        }
    }
}

fn spans_of_time(config: &Config, report: &mut Report<'_>) {
    let timeouts = &config.timeouts;
    let some = [
        ("header", timeouts.header),
        ("body", timeouts.body),
        ("idle", timeouts.idle),
        ("connect", timeouts.connect),
        ("response", timeouts.response),
        ("pool", timeouts.pool),
        ("upgrade", timeouts.upgrade),
    ];
    for (key, span) in some {
        if span == Duration::ZERO {
            let message = format!("`{}` leaves no time at all", duration::format(span));
            report.add(&format!("timeouts.{key}"), message);
        }
    }
    outliers(&config.outliers, report);
    let looks = [
        ("tls.watch", config.tls.watch),
        ("reload.every", config.reload.every),
    ];
    for (key, pause) in looks {
        if pause < SHORTEST_WATCH {
            let (pause, least) = (duration::format(pause), duration::format(SHORTEST_WATCH));
            let message =
                format!("`{pause}` leaves no time for anything else: it is at least {least}");
            report.add(key, message);
        }
    }
}

fn outliers(outliers: &pool::outliers::Config, report: &mut Report<'_>) {
    if outliers.failures == 0 {
        report.add(
            "outliers.failures",
            "`0` failures are none: it is at least 1",
        );
    }
    if outliers.base == Duration::ZERO {
        report.add(
            "outliers.base",
            "`0s` leaves nothing out: write `enabled = false` for that",
        );
    }
    if outliers.most < outliers.base && !report.is_gone(&["outliers".to_owned(), "base".to_owned()])
    {
        let (most, base) = (
            duration::format(outliers.most),
            duration::format(outliers.base),
        );
        let message = format!("`{most}` is less than `base`, {base}, which it begins with");
        report.add("outliers.most", message);
    }
    if !(1..=100).contains(&outliers.share) {
        let message = format!(
            "`{}` is no share in a hundred: it is 1 to 100",
            outliers.share
        );
        report.add("outliers.share", message);
    }
}

fn numbers(config: &Config, report: &mut Report<'_>) {
    let limits = &config.limits;
    let counts = [
        ("limits.headers", limits.headers),
        ("limits.streams", limits.streams),
        ("limits.connections", limits.connections),
        ("limits.per_peer", limits.per_peer),
        ("limits.per_workload", limits.per_workload),
        ("rates.capacity", config.rates.capacity),
        ("cache.lookups", config.cache.lookups),
        ("backends.connections", config.backends.connections),
        ("backends.per_backend", config.backends.per_backend),
        ("tracing.queue", config.tracing.queue),
        ("tracing.batch", config.tracing.batch),
    ];
    for (key, count) in counts {
        if count == 0 {
            report.add(key, "`0` lets nothing through: it is at least 1");
        }
    }
    if !(1..=i64::MAX.unsigned_abs()).contains(&config.cache.capacity) {
        let message = format!(
            "`{}` is no number of entries: it is at least 1",
            config.cache.capacity
        );
        report.add("cache.capacity", message);
    }
    if config.rates.capacity > MOST_PLACES {
        let message = format!(
            "`{}` is too many: it is at most {MOST_PLACES}",
            config.rates.capacity
        );
        report.add("rates.capacity", message);
    }
    let sizes = [
        ("limits.header", limits.header, 1024),
        ("limits.uri", limits.uri, 64),
        ("limits.form", limits.form, 1),
        ("log.buffer", config.log.buffer, 16 << 10),
    ];
    for (key, bytes, least) in sizes {
        if bytes < least {
            let (bytes, least) = (size::format(bytes), size::format(least));
            report.add(
                key,
                format!("`{bytes}` is too small: it is at least {least}"),
            );
        }
    }
    if limits.uri > limits.header && !report.is_gone(&["limits".to_owned(), "header".to_owned()]) {
        let (uri, header) = (size::format(limits.uri), size::format(limits.header));
        let message =
            format!("`{uri}` is more than `limits.header`, {header}, which it is a part of");
        report.add("limits.uri", message);
    }
    series(config, report);
    if config.listen.workers > MOST_WORKERS {
        let message = format!(
            "`{}` is too many: it is at most {MOST_WORKERS}",
            config.listen.workers
        );
        report.add("listen.workers", message);
    }
}

/// Each number is one of series, of which a server of metrics keeps all.
fn series(config: &Config, report: &mut Report<'_>) {
    let metrics = &config.metrics;
    let most = [
        ("metrics.apps", metrics.apps, MOST_APPS),
        (
            "metrics.combinations",
            metrics.combinations,
            MOST_COMBINATIONS,
        ),
    ];
    for (key, number, most) in most {
        if number > most {
            report.add(key, format!("`{number}` is too many: it is at most {most}"));
        }
    }
    if metrics.always.len() > metrics.apps {
        let message = format!(
            "there are more names than `metrics.apps`, {}, which they are among",
            metrics.apps
        );
        report.add("metrics.always", message);
    }
}

fn authorities(config: &Config, report: &mut Report<'_>) {
    authority_file("backends.ca", &config.backends.ca, report);
}

/// The file of a key is there and holds certificates; an empty name is none.
pub(super) fn authority_file(key: &str, file: &str, report: &mut Report<'_>) {
    if file.is_empty() {
        return;
    }
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<CertificateDer<'_>>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            report.add(key, format!("`{file}` holds no certificate in PEM form"));
        }
        Ok(_) => {}
        Err(error) => report.add(key, format!("`{file}` cannot be read: {error}")),
    }
}

/// The names of variables are names: whoever writes a secret there must not see it printed.
fn variables(config: &Config, report: &mut Report<'_>) {
    for (key, name) in config.secrets() {
        let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let goes_on = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !starts || !goes_on {
            report.add(
                key,
                "this is no name of an environment variable: the secret itself does not belong here, but the name of the variable that holds it",
            );
        }
    }
}

/// Mail leaves in the name of somebody who can be written to.
fn sender(config: &Config, report: &mut Report<'_>) {
    let mail = config.platform.as_ref().and_then(|own| own.mail.as_ref());
    let Some(from) = mail.map(|mail| &mail.from) else {
        return;
    };
    if check_address(from).is_err() {
        let message = format!("`{from}` is no mail address: write it like \"noreply@m3o.one\"");
        report.add("platform.mail.from", message);
    }
}

/// The file of the access log can be made, as far as that can be seen.
fn access_log(config: &Config, report: &mut Report<'_>) {
    let file = &config.log.access_file;
    if file.as_os_str().is_empty() {
        return;
    }
    let shown = file.display();
    let folder = file.parent().unwrap_or(file);
    if file.is_dir() {
        report.add(
            "log.access_file",
            format!("`{shown}` is a folder: name a file in it"),
        );
    } else if !folder.as_os_str().is_empty() && !folder.is_dir() {
        let folder = folder.display();
        report.add(
            "log.access_file",
            format!("there is no folder `{folder}` for it"),
        );
    }
}

/// A batch is taken from the queue.
fn spans(config: &Config, report: &mut Report<'_>) {
    let tracing = &config.tracing;
    if tracing.batch > tracing.queue {
        let message = format!(
            "`{}` is more than `tracing.queue`, {}, which it is taken from",
            tracing.batch, tracing.queue
        );
        report.add("tracing.batch", message);
    }
    if tracing.delay < SHORTEST_WATCH {
        let (delay, least) = (
            duration::format(tracing.delay),
            duration::format(SHORTEST_WATCH),
        );
        let message = format!("`{delay}` leaves no time to collect any: it is at least {least}");
        report.add("tracing.delay", message);
    }
}
