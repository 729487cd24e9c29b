//! The rules of the house that no compiler checks: who may know whom.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and the modules that it may name; the words are free to all.
const FLOORS: [(&str, &str); 19] = [
    ("wire", ""),
    ("rates", ""),
    ("telemetry", "wire rates"),
    ("tls", "wire telemetry"),
    ("pool", "wire telemetry"),
    ("acme", "wire telemetry tls pool"),
    ("server", "wire telemetry tls pool"),
    ("mail", "wire telemetry pool"),
    ("otlp", "wire telemetry pool"),
    ("upstream", "wire telemetry pool"),
    ("resolve", "wire telemetry pool upstream"),
    (
        "admin",
        "wire telemetry tls pool server mail upstream resolve",
    ),
    (
        "proxy",
        "wire rates telemetry tls pool server mail upstream resolve",
    ),
    ("platform", "wire telemetry server mail upstream pool"),
    (
        "config",
        "wire rates telemetry tls pool acme server mail upstream resolve admin proxy platform",
    ),
    (
        "control",
        "wire rates telemetry tls pool server upstream resolve admin proxy platform config",
    ),
    (
        "ingress",
        "wire rates telemetry tls pool acme server mail otlp upstream resolve admin proxy platform config control",
    ),
    ("secrets", "otlp config ingress"),
    ("cli", "telemetry tls server proxy config control ingress"),
];

const WORDS: &str =
    "address causes closed host hosts id credentials destination domains units settings stamp";

/// One file of the library or the binary, without its unit tests and without comments.
struct Source {
    path: String,
    code: String,
}

#[test]
fn a_module_names_only_those_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let floor = FLOORS.iter().find(|(name, _)| *name == module);
        let below = match floor {
            Some((_, below)) => *below,
            None if words(WORDS).contains(module) => "",
            None => panic!("{} is on no floor: give it one", source.path),
        };
        let allowed: BTreeSet<&str> = words(below).union(&words(WORDS)).copied().collect();
        for named in source.named() {
            if named != module && !allowed.contains(&*named) {
                wrong.push(format!("{} names {named}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn of_the_server_the_platform_knows_the_signal_to_stop_alone() {
    for source in sources().filter(|source| source.path.starts_with("platform/")) {
        for named in source.code.split("crate::server::").skip(1) {
            assert_eq!(identifier(named), "shutdown", "{}", source.path);
        }
    }
}

#[test]
fn only_three_places_know_the_paths_of_the_api() {
    check_only_in("\"/v1/", &["upstream/", "proxy/route.rs", "platform/"]);
    check_only_in("/v1/{", &["upstream/", "proxy/route.rs", "platform/"]);
}

#[test]
fn only_the_resolver_knows_its_store() {
    check_only_in("hashbrown::", &["resolve/"]);
}

#[test]
fn only_one_part_knows_how_rates_are_counted() {
    check_only_in("governor::", &["rates/"]);
}

#[test]
fn only_telemetry_knows_how_metrics_are_kept() {
    check_only_in("prometheus::", &["telemetry/"]);
}

#[test]
fn only_where_connections_begin_tls_is_known_and_in_the_check_of_a_file() {
    check_only_in(
        "rustls::",
        &[
            "tls/",
            "server/",
            "pool/",
            "acme/account.rs",
            "acme/proof.rs",
            "config/check.rs",
        ],
    );
    check_only_in("tokio_rustls", &["server/", "pool/"]);
}

#[test]
fn only_the_platforms_store_knows_its_engine() {
    check_only_in("redb::", &["platform/store/"]);
}

#[test]
fn only_one_file_of_the_proxy_gives_an_error_a_status() {
    // What is no failure has its status where it is made.
    let fine = words("OK NO_CONTENT FOUND PERMANENT_REDIRECT SWITCHING_PROTOCOLS");
    let known = [
        // Read from the API, not given.
        ("proxy/link.rs", "BAD_REQUEST"),
        ("proxy/link.rs", "GONE"),
        // The page that says that a token was refused is an answer, not an error.
        ("proxy/verify.rs", "BAD_REQUEST"),
    ];
    for source in sources() {
        if !source.path.starts_with("proxy/") || source.path == "proxy/error.rs" {
            continue;
        }
        for status in source.code.split("StatusCode::").skip(1).map(identifier) {
            let is_known = known.contains(&(&*source.path, &*status));
            assert!(
                fine.contains(&*status) || is_known,
                "{} gives {status}: that belongs into proxy/error.rs",
                source.path
            );
        }
    }
}

#[test]
fn errors_become_answers_without_a_catch_all() {
    let error = sources()
        .find(|source| source.path == "proxy/error.rs")
        .unwrap();
    assert!(
        !error.code.contains("_ =>"),
        "a new error needs a thought, not a default"
    );
}

#[test]
fn no_file_has_grown_beyond_reading() {
    for source in sources() {
        let lines = source.code.lines().count();
        assert!(
            lines <= 450,
            "{} has {lines} lines: look for its second noun",
            source.path
        );
    }
}

/// `needle` stands in no file but those whose path begins with one of `allowed`.
#[track_caller]
fn check_only_in(needle: &str, allowed: &[&str]) {
    let wrong: Vec<String> = sources()
        .filter(|source| source.code.contains(needle))
        .map(|source| source.path)
        .filter(|path| !allowed.iter().any(|place| path.starts_with(place)))
        .collect();
    assert!(wrong.is_empty(), "{needle} is known in {wrong:?}");
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

impl Source {
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The modules of this crate that it names, in paths and in grouped imports.
    fn named(&self) -> BTreeSet<String> {
        let paths = self.code.split("crate::").skip(1);
        let library = self.code.split("m3o_ingress::").skip(1);
        paths.chain(library).flat_map(roots).collect()
    }
}

/// The first segments of what follows `crate::`: one name, or those of a group.
fn roots(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![identifier(path)];
    };
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (index, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            letter if fresh && depth == 0 && !letter.is_whitespace() => {
                names.push(identifier(&group[index..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

fn sources() -> impl Iterator<Item = Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 50, "the source is not where it was");
    files.into_iter().filter_map(move |file| {
        let path = file
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let is_test = path.ends_with("tests.rs") || path.ends_with("testing.rs");
        if is_test || path.contains("/tests/") {
            return None;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let code: Vec<&str> = text.lines().filter(is_code).collect();
        let code = code.join("\n");
        Some(Source { path, code })
    })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn grouped_imports_are_read() {
    assert_eq!(roots("pool::{self, Pool};"), ["pool"]);
    assert_eq!(
        roots("{a, b::{c, d}, e::{f::{g}}, h};\nuse x;"),
        ["a", "b", "e", "h"]
    );
}
