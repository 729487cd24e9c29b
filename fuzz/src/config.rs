//! The configuration file: read and checked.

use m3o_ingress::config::{Config, Environment, Place};

/// A file is a configuration that is written and read back as the same, or every mistake has a place.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let environment = Environment::default();
    let problems = match Config::parse("ingress.toml", text, &environment) {
        Ok(config) => {
            // The file that this key names is looked at: it may be any.
            let again = Config::parse("again.toml", &config.to_toml(), &environment);
            assert_eq!(again.as_ref(), Ok(&config), "{}", config.to_toml());
            return;
        }
        Err(problems) => problems,
    };
    assert!(!problems.is_empty());
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &problems {
        assert!(!problem.to_string().contains('\n'), "{problem}");
        if let Place::Position { line, column, .. } = problem.place() {
            let there = lines.get(line - 1).expect("the line is there");
            assert!(
                (1..=there.chars().count() + 1).contains(column),
                "{problem}"
            );
        }
    }
    assert!(problems.is_sorted_by_key(m3o_ingress::config::Problem::place));
}
