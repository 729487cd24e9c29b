//! One configuration with every key in it: what keys there are, and how each is written.

use toml::{Table, Value};

use super::Config;

/// Every key with its default, or with a likely value where there is no default.
pub(super) fn example() -> Table {
    let mut example = toml::from_str(TEXT)
        .and_then(|config: Config| {
            let text = toml::to_string(&config).map_err(serde::de::Error::custom)?;
            toml::from_str(&text)
        })
        .expect("the example reads: a test holds it to that");
    for (section, table) in FREE {
        let table = example_table(&mut example, section).and_then(|keys| keys.get_mut(table));
        if let Some(Value::Table(entries)) = table {
            let entry = std::mem::take(entries).into_iter().next();
            entries.extend(entry.map(|(_, keys)| (ANY.to_owned(), keys)));
        }
    }
    example
}

fn example_table<'a>(example: &'a mut Table, name: &str) -> Option<&'a mut Table> {
    example.get_mut(name)?.as_table_mut()
}

/// In the example, the entry of a table whose keys are the writer's own.
pub(super) const ANY: &str = "*";

/// The tables whose keys are names of the writer's own, with the section that each is in.
const FREE: [(&str, &str); 3] = [
    ("https", "domains"),
    ("https", "listeners"),
    ("rates", "apps"),
];

/// The value of one key, or the table of one section.
pub(super) fn at<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first).or_else(|| table.get(ANY))?;
    match value {
        _ if rest.is_empty() => Some(value),
        Value::Table(table) => at(table, rest),
        _ => None,
    }
}

/// What has no default, or an empty one.
const TEXT: &str = r#"
[listen]
http = ["127.0.0.1:8080"]
https = ["127.0.0.1:8443"]
proxy_protocol = ["127.0.0.1:8080"]
admin = "127.0.0.1:8090"
control = "run/control.sock"

[api]
address = "https://api.m3o.com"

[platform]
store = "data/platform.redb"

[platform.mail]
smtp_url_env = "SMTP_URL"
from = "noreply@m3o.one"

[backends]
ca = "certs/authorities.pem"
dns = ["9.9.9.9"]
trusted_proxies = ["10.0.0.0/8"]

[tls]
certs = "certs"
default = "m3o.app"

[https]
hsts = "365d"

[https.domains."m3o.app"]
redirect = true
hsts = "365d"
hsts_subdomains = false
hsts_preload = false

[https.listeners."127.0.0.1:8080"]
redirect = true
hsts = "365d"
hsts_subdomains = false
hsts_preload = false
[tls.acme]
directory = "https://acme-v02.api.letsencrypt.org/directory"
contact = ["ops@m3o.com"]
agree = true
eab_kid = "kid-1"
eab_key_env = "M3O_EAB_KEY"
ca = "certs/authority.pem"
folder = "data/acme"
names = [["*.m3o.app", "m3o.app"], "m3o.one"]

[tls.acme.dns.update]
server = "192.0.2.53:53"
zone = "m3o.app"
key_name = "acme"
key_env = "M3O_TSIG_KEY"
watch = ["192.0.2.54:53"]

[tls.acme.dns.hook]
command = ["/usr/local/bin/dns-hook"]

[rates]
peer = "100/s burst 200"
key = "600/m"
app = "500/s"
exempt = ["10.0.0.0/8"]

[rates.apps]
helloworld = "50/s"

[user]
redirect_hosts = ["m3o.app"]

[metrics]
always = ["blog"]

[log]
access_file = "log/access.log"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_every_section() {
        let example = example();
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        for key in [
            "tls.default",
            "platform.mail.from",
            "limits.per_peer",
            "tls.acme.dns.hook.timeout",
        ] {
            assert!(at(&example, &path(key)).is_some(), "{key}");
        }
        assert!(at(&example, &path("limits.per_peer.x")).is_none());
        for key in [
            "https.domains.any.hsts",
            "https.listeners.any.redirect",
            "rates.apps.any",
        ] {
            assert!(at(&example, &path(key)).is_some(), "{key}");
        }
        assert!(at(&example, &path("https.domains.any.port")).is_none());
        assert!(at(&example, &[]).is_none());
    }
}
