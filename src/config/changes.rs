//! What is different between two configurations, key by key. Pure.

use serde::Serialize;
use toml::{Table, Value};

use super::{Config, wording};

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its path, `limits.body`.
    pub key: String,
    /// What it was, as TOML; `None`: it was not there, and had no default.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(
            out,
            "{}: {} -> {}",
            self.key,
            shown(&self.old),
            shown(&self.new)
        )
    }
}

impl Config {
    /// Every key that `later` has another value for, in the order of their paths.
    #[must_use]
    pub fn changes(&self, later: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        tables(
            &table(self),
            &table(later),
            &mut Vec::new(),
            &mut |path, old, new| {
                changes.push(Change {
                    key: wording::dotted(path),
                    old: old.map(Value::to_string),
                    new: new.map(Value::to_string),
                });
            },
        );
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }
}

type Found<'a> = dyn FnMut(&[String], Option<&Value>, Option<&Value>) + 'a;

fn tables(old: &Table, new: &Table, path: &mut Vec<String>, found: &mut Found<'_>) {
    let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
    let (none, nothing) = (Table::new(), None::<&Value>);
    let pairs = old
        .iter()
        .map(|(key, value)| (key, Some(value), new.get(key)));
    for (key, before, after) in pairs.chain(added.map(|(key, value)| (key, nothing, Some(value)))) {
        path.push(key.clone());
        match (before, after) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                tables(before, after, path, found);
            }
            // A section that comes or goes is the keys in it.
            (Some(Value::Table(before)), None) => tables(before, &none, path, found),
            (None, Some(Value::Table(after))) => tables(&none, after, path, found),
            (before, after) if before != after => found(path, before, after),
            _ => {}
        }
        path.pop();
    }
}

fn table(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration is tables of texts, numbers and switches")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    const BASE: &str = "[listen]\nhttp = '127.0.0.1:1'\n[api]\naddress = 'https://api.m3o.com'\n";

    fn read(text: &str) -> Config {
        Config::parse("test", text, &Environment::default()).unwrap()
    }

    #[track_caller]
    fn check(before: &str, after: &str, expected: &[&str]) {
        let changes = read(before).changes(&read(after));
        let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn keys_are_named_with_what_they_were_and_are() {
        let with = |more: &str| format!("{BASE}{more}");
        check(BASE, BASE, &[]);
        // What says the same in other words is no change.
        check(BASE, &with("[timeouts]\nidle = '75s'\n"), &[]);
        check(
            &with("[limits]\nbody = '2MiB'\n[index]\nenabled = true\n"),
            &with("[limits]\nbody = '1MiB'\n[hosts]\napp = ['m3o.app', 'a.example']\n"),
            &[
                "hosts.app: [\"m3o.app\"] -> [\"m3o.app\", \"a.example\"]",
                "index.enabled: true -> false",
                "limits.body: \"2MiB\" -> \"1MiB\"",
            ],
        );
    }

    #[test]
    fn a_section_that_comes_or_goes_is_its_keys() {
        let with =
            format!("{BASE}[https.domains.\"m3o.app\"]\nredirect = true\n[https]\nhsts = '1d'\n");
        let key = "https.domains.\"m3o.app\".redirect";
        check(
            BASE,
            &with,
            &[
                &format!("{key}: nothing -> true"),
                "https.hsts: nothing -> \"1d\"",
            ],
        );
        check(
            &with,
            BASE,
            &[
                &format!("{key}: true -> nothing"),
                "https.hsts: \"1d\" -> nothing",
            ],
        );
    }
}
