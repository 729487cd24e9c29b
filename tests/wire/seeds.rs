//! The seeds of the fuzzer, and what it has found: each through the check of its target.

use std::path::Path;

use crate::checks;

#[test]
fn every_seed_passes_the_check_of_its_target() {
    check("config", checks::config::check);
    check("headers", checks::headers::check);
    check("host", checks::host::check);
    check("location", checks::location::check);
    check("parameters", checks::parameters::check);
    check("proxy_protocol", checks::proxy_protocol::check);
    check("request", checks::request::check);
    check("response", checks::response::check);
    check("route", checks::route::check);
    check("target", checks::target::check);
}

fn check(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let (mut count, mut failed) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            failed.push(path);
        }
        count += 1;
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert!(count > 0, "{} is empty", folder.display());
}
