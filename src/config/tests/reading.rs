//! What reads, and that whatever does not read says so.

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_printed_reads_back_the_same() {
    let text = format!(
        "{FINE}[limits]\nheader = 18000\n[cache]\ncapacity = 5\n[user]\nconfirm = 'auto'\nredirect_hosts = 'x.example'\n[backends]\ntrusted_proxies = ['10.0.0.0/8']\n[https]\nredirect = true\n[https.domains.'m3o.app']\nhsts = '0s'\n[https.listeners.'127.0.0.1:8080']\nredirect = false"
    );
    let none = Environment::default();
    let config = Config::parse("f", &text, &none).unwrap();
    assert_eq!(Config::parse("f", &config.to_toml(), &none), Ok(config));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let problems = Config::load(Path::new("no/such.toml"), &Environment::default()).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "no/such.toml: there is no such file; name another with --config FILE, or try `m3o-ingress dev`, which needs none"
    );
}

#[test]
fn every_file_that_comes_with_us_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut read = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        Config::load(&file.unwrap().path(), &Environment::default()).unwrap();
        read += 1;
    }
    assert!(read >= 2, "{read} files");
}

#[test]
fn the_image_exposes_the_public_ports_of_our_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    let exposed = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("EXPOSE "))
        .unwrap();
    let file = root.join("config/ingress.toml");
    let listen = Config::load(&file, &Environment::default()).unwrap().listen;
    let addresses = listen.http.iter().chain(&listen.https);
    let ports: std::collections::BTreeSet<String> = addresses
        .map(|address| address.port().to_string())
        .collect();
    assert_eq!(
        exposed.split(' ').collect::<Vec<_>>(),
        Vec::from_iter(ports)
    );
}

#[test]
fn every_key_is_explained_in_our_file() {
    let text = include_str!("../../../config/ingress.toml");
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .collect();
    for (section, keys) in example::example() {
        assert!(
            lines.contains(&format!("[{section}]").as_str()),
            "[{section}]"
        );
        for key in keys.as_table().unwrap().keys() {
            let explained = lines.iter().any(|line| {
                line.strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.trim_start().starts_with('='))
                    || **line == *format!("[{section}.{key}]")
                    || line.starts_with(&format!("[{section}.{key}."))
            });
            assert!(explained, "{section}.{key}");
        }
    }
}

/// Lines that are almost a configuration.
fn almost_a_line() -> impl Strategy<Value = String> {
    let word = "listen|http|api|adress|address|platform|mail|limits|uri|timeouts|header|hosts|app|[a-zß\"`.]{1,6}";
    let value = "-?[0-9]{1,20}|'[a-z0-9:./ ]{0,12}'|true|\\[\\]|\\['a','\\[::1\\]:1', 3\\]|\\{ a = 1, uri = [0-9] \\}|1979-05-27|1\\.5|[\\PC]{0,5}";
    prop_oneof![
        word.prop_map(|name| format!("[{name}]")),
        (word, word).prop_map(|(a, b)| format!("[{a}.{b}]")),
        (word, word).prop_map(|(a, b)| format!("[[{a}.{b}]]")),
        (word, value).prop_map(|(key, value)| format!("{key} = {value}")),
        (word, word, value).prop_map(|(a, b, value)| format!("{a}.{b} = {value}")),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_has_problems_within_it_or_none(
        lines in proptest::collection::vec(almost_a_line(), 0..12),
        end in prop_oneof!["\n", "\r\n", ""],
    ) {
        let text = lines.join("\n") + &end;
        if let Err(problems) = Config::parse("f", &text, &Environment::default()) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                if let Place::Position { line, column, .. } = problem.place() {
                    prop_assert!((1..=text.matches('\n').count() + 1).contains(line), "{}", problem);
                    prop_assert!(*column >= 1);
                }
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = Config::parse("f", &text, &Environment::default());
    }
}
