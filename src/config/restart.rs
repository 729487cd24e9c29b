//! What cannot change while the process runs. Pure.

use super::{Change, Config};

/// The keys, and sections, whose values stay those of the start.
const STAY: [&str; 7] = [
    "cache.capacity",
    "listen.control",
    "listen.workers",
    "platform.mail",
    "platform.store",
    "tls.acme",
    "tracing",
];

impl Config {
    /// Takes back to `running` what cannot change while it runs, and gives those keys with what they are
    /// and what they are to be.
    pub fn keep_what_stays(&mut self, running: &Self) -> Vec<Change> {
        let mut stays = running.changes(self);
        let other_api = self.api.is_some() != running.api.is_some()
            || self.platform.is_some() != running.platform.is_some();
        stays.retain(|change| {
            let is_in = |section: &str| {
                let rest = change.key.strip_prefix(section);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let of_api = other_api && (is_in("api") || is_in("platform"));
            of_api || STAY.into_iter().any(is_in)
        });
        self.cache.capacity = running.cache.capacity;
        self.listen.control.clone_from(&running.listen.control);
        self.listen.workers = running.listen.workers;
        self.tls.acme.clone_from(&running.tls.acme);
        self.tracing.clone_from(&running.tracing);
        if other_api {
            self.api.clone_from(&running.api);
            self.platform.clone_from(&running.platform);
        }
        if let (Some(own), Some(running)) = (&mut self.platform, &running.platform) {
            own.store.clone_from(&running.store);
            own.mail.clone_from(&running.mail);
        }
        stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    const LISTEN: &str = "[listen]\nhttp = '127.0.0.1:1'\nhttps = '127.0.0.1:2'\n";
    const API: &str = "[api]\naddress = 'https://a.example'\n";
    const OWN: &str = "[platform]\nstore = 'memory'\n";

    /// What stays of a change, and what changes all the same.
    #[track_caller]
    fn check(before: &str, after: &str, stay: &[&str], change: &[&str]) {
        let read = |text: &str| {
            let text = format!("{LISTEN}{text}");
            Config::parse("test", &text, &Environment::default()).unwrap()
        };
        let (running, mut later) = (read(before), read(after));
        let keys = |changes: Vec<Change>| -> Vec<String> {
            changes.into_iter().map(|change| change.key).collect()
        };
        assert_eq!(keys(later.keep_what_stays(&running)), stay);
        assert_eq!(keys(running.changes(&later)), change);
        assert!(later.keep_what_stays(&running).is_empty(), "once");
    }

    #[test]
    fn what_is_opened_at_the_start_stays_and_all_else_changes() {
        check(
            API,
            &format!(
                "{API}[cache]\ncapacity = 7\nfresh = '1s'\n[log]\nformat = 'human'\nlevel = 'warn'\n"
            ),
            &["cache.capacity"],
            &["cache.fresh", "log.format", "log.level"],
        );
        let mail = "[platform.mail]\nsmtp_url_env = 'SMTP'\nfrom = 'a@b.example'\n";
        check(
            OWN,
            &format!("[platform]\nstore = 's'\npublic = 'http'\n{mail}"),
            &[
                "platform.mail.from",
                "platform.mail.smtp_url_env",
                "platform.store",
            ],
            &["platform.public"],
        );
        check(API, API, &[], &[]);
    }

    #[test]
    fn another_kind_of_api_waits_for_a_restart_as_a_whole() {
        let keys = ["api.address", "api.token_env"];
        let own = ["platform.key_env", "platform.public", "platform.store"];
        let all: Vec<&str> = keys.into_iter().chain(own).collect();
        check(
            API,
            &format!("{OWN}[index]\nenabled = true\n"),
            &all,
            &["index.enabled"],
        );
        check(OWN, API, &all, &[]);
        check(
            API,
            &API.replace("a.example", "b.example"),
            &[],
            &["api.address"],
        );
    }

    #[test]
    fn an_authority_that_comes_waits_for_a_restart() {
        let acme = "[tls.acme]\ndirectory = 'https://ca.example/dir'\nagree = true\nfolder = 'f'\n";
        let with = format!("{API}{acme}");
        let read =
            Config::parse("test", &format!("{LISTEN}{with}"), &Environment::default()).unwrap();
        let table = toml::Table::try_from(read.tls.acme.unwrap()).unwrap();
        let mut keys: Vec<String> = table.keys().map(|key| format!("tls.acme.{key}")).collect();
        keys.sort();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        check(API, &with, &keys, &[]);
    }
}
