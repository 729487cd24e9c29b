//! `m3o-ingress check`: whether `run` would start, and with what.

use std::io::{self, Write};
use std::path::Path;

use m3o_ingress::config::{Config, Environment, Place, Problem};
use m3o_ingress::ingress::Secrets;
use m3o_ingress::tls::files::{Depth, Folder};
use rustix::process::{Resource, getrlimit};

use super::{Failure, LogFlags};

/// Prints the effective configuration as TOML, and warnings beside it. Creates and binds nothing.
pub(super) fn check(file: &Path, log: &LogFlags) -> Result<(), Failure> {
    let environment = Environment::of_this_process();
    let mut config = Config::load(file, &environment).map_err(Failure::Configuration)?;
    log.apply(&mut config);
    let mut problems = certificate_problems(&config, file);
    problems.extend(store_problem(&config, file));
    if !problems.is_empty() {
        return Err(Failure::Configuration(problems));
    }
    let warnings = warnings(&config, &environment, getrlimit(Resource::Nofile).maximum);
    match report(&config, file, &warnings) {
        // Whoever closed the output has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        reported => reported.map_err(Failure::System),
    }
}

/// Whoever redirects the output gets a file that `run` takes.
fn report(config: &Config, file: &Path, warnings: &[String]) -> io::Result<()> {
    super::warn(warnings)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "# {}: fine; this is what it amounts to.\n",
        file.display()
    )?;
    out.write_all(config.to_toml().as_bytes())
}

/// What would not stop a start elsewhere: secrets often live where the ingress does, and only there.
fn warnings(config: &Config, environment: &Environment, descriptors: Option<u64>) -> Vec<String> {
    let secrets = Secrets::from_env(config, environment).err();
    let mut warnings: Vec<String> = secrets
        .into_iter()
        .flatten()
        .map(|problem| problem.to_string())
        .chain(missing_key(config, environment))
        .chain(super::unread(config, environment))
        .collect();
    let Some(descriptors) = descriptors else {
        return warnings;
    };
    let allowed = config.limits.connections_within(descriptors);
    if allowed < config.limits.connections {
        warnings.push(format!(
            "limits.connections: {} is lowered to {allowed}: a process may open {descriptors} files here",
            config.limits.connections
        ));
    }
    warnings
}

/// A new store needs its first key; one that is there keeps its own.
fn missing_key(config: &Config, environment: &Environment) -> Option<String> {
    let platform = config.platform.as_ref()?;
    let file = format!("{}_FILE", platform.key_env);
    let given = [&platform.key_env, &file]
        .iter()
        .any(|name| environment.value(name).is_some());
    (!given && platform.is_new()).then(|| platform.no_key().to_string())
}

/// Reads every pair that HTTPS would be served with.
fn certificate_problems(config: &Config, file: &Path) -> Vec<Problem> {
    if config.listen.https.is_empty() {
        return Vec::new();
    }
    let tls = &config.tls;
    let place = Place::File(file.display().to_string());
    let problem = |key: &str, message: String| Problem::new(place.clone(), key, message);
    let mut folder = Folder::new(&tls.certs);
    let shown = tls.certs.display();
    // A folder may be missing where an authority gives all that is served.
    let may_be_missing =
        |error: &io::Error| tls.acme.is_some() && error.kind() == io::ErrorKind::NotFound;
    if let Err(error) = folder.scan(Depth::Keys)
        && !may_be_missing(&error)
    {
        return vec![problem(
            "tls.certs",
            format!(
                "`{shown}` cannot be listed: {error}; listen.https needs a folder with a pair NAME.crt and NAME.key"
            ),
        )];
    }
    let mut problems: Vec<Problem> = folder
        .problems()
        .map(|(label, bad)| problem("tls.certs", format!("`{label}`: {bad}")))
        .collect();
    let certificates = folder.certificates();
    let ordered = tls.acme.is_some() || !certificates.is_empty();
    if !ordered && problems.is_empty() {
        problems.push(problem(
            "tls.certs",
            format!("`{shown}` holds no pair NAME.crt and NAME.key: listen.https needs one"),
        ));
    }
    let is_default = |label: &str| label == tls.default;
    let is_there = certificates.iter().any(|known| is_default(known.label()))
        || folder.problems().any(|(label, _)| is_default(label));
    if !tls.default.is_empty() && !is_there {
        let message = format!(
            "there is no pair `{0}.crt` and `{0}.key` in `{shown}`",
            tls.default
        );
        problems.push(problem("tls.default", message));
    }
    problems
}

fn store_problem(config: &Config, file: &Path) -> Option<Problem> {
    let message = config.platform.as_ref()?.store_obstacle()?;
    let place = Place::File(file.display().to_string());
    Some(Problem::new(place, "platform.store", message))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use m3o_ingress::credentials::Secret;
    use m3o_ingress::platform::{Extras, Platform, Rules};
    use rustix::process::geteuid;

    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("listen.http = '127.0.0.1:1'\n{text}");
        Config::parse("f", &text, &Environment::default()).unwrap()
    }

    #[test]
    fn missing_secrets_stray_variables_and_few_descriptors_are_warnings() {
        let config = config("[api]\naddress = 'https://a.example'\n");
        let stray = Environment::from_iter([("M3O_INGRESS_COLOUR", "red")]);
        let found = warnings(&config, &stray, Some(1024));
        assert!(found[0].starts_with("M3O_API_TOKEN: api.token_env: it is not set"));
        assert_eq!(
            found[1],
            "M3O_INGRESS_COLOUR: it is ignored: a key of the file is called `M3O_INGRESS_<SECTION>__<KEY>` here"
        );
        assert_eq!(
            found[2],
            "limits.connections: 65536 is lowered to 448: a process may open 1024 files here"
        );
        let none = Environment::default();
        assert_eq!(warnings(&config, &none, Some(1 << 20)).len(), 1);
    }

    #[test]
    fn every_pair_is_read_where_https_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        let said = |more: &str| {
            let listen = "listen.https = '127.0.0.1:2'";
            let text = format!(
                "{listen}\napi.address = 'https://a.example'\ntls.certs = '{}'\n{more}",
                certs.display()
            );
            let problems = certificate_problems(&config(&text), Path::new("f"));
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        assert!(said("").contains("tls.certs: `"), "{}", said(""));
        assert!(said("").contains("cannot be listed"));
        std::fs::create_dir(&certs).unwrap();
        assert!(said("").contains("holds no pair NAME.crt and NAME.key"));
        let write = |name: &str, text: &str| std::fs::write(certs.join(name), text).unwrap();
        let pair = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
            (
                parameters.self_signed(&key).unwrap().pem(),
                key.serialize_pem(),
            )
        };
        let (chain, key) = pair();
        write("a.crt", &chain);
        assert!(said("").contains("`a`: there is no"), "{}", said(""));
        write("a.key", &pair().1);
        assert!(
            said("").contains("`a`: the key is not that of"),
            "{}",
            said("")
        );
        write("a.key", &key);
        assert_eq!(said(""), "");
        assert_eq!(said("tls.default = 'a'\n"), "");
        assert!(said("tls.default = 'b'\n").contains("tls.default: there is no pair `b.crt`"));
        let plain = config("api.address = 'https://a.example'\ntls.certs = 'nowhere'\n");
        assert!(certificate_problems(&plain, Path::new("f")).is_empty());
    }

    #[test]
    fn the_store_needs_a_folder_that_is_one() {
        let problem = |store: &Path| {
            let config = config(&format!("[platform]\nstore = '{}'\n", store.display()));
            store_problem(&config, Path::new("f")).map(|problem| problem.to_string())
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(problem(&folder.path().join("new/folder/store")), None);
        assert_eq!(problem(Path::new("memory")), None);
        assert_eq!(problem(Path::new("store")), None);
        assert!(
            problem(folder.path())
                .unwrap()
                .ends_with("is a folder: the store is a file")
        );
        let under = problem(&file.join("store")).unwrap();
        assert!(
            under.ends_with("is no folder, so no store can be made there"),
            "{under}"
        );
        assert!(!folder.path().join("new").exists(), "check creates nothing");
        // Nobody may write here but root, whom the bits do not hold.
        let mode = std::fs::Permissions::from_mode(0o500);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        let allowed = geteuid().is_root();
        assert_eq!(problem(&folder.path().join("store")).is_none(), allowed);
    }

    #[test]
    fn a_file_in_place_of_the_store_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let config = config(&format!("[platform]\nstore = '{}'\n", file.display()));
        let problem = || store_problem(&config, Path::new("f")).map(|problem| problem.to_string());
        for other in ["", "red", "a letter to Alice"] {
            std::fs::write(&file, other).unwrap();
            assert!(problem().unwrap().contains("is no store"), "{other}");
        }
        std::fs::remove_file(&file).unwrap();
        let extras = Extras {
            key: Some(Secret::new("key")),
            ..Extras::default()
        };
        let platform = config.platform.as_ref().unwrap();
        drop(Platform::open(platform, Rules::default(), &extras).unwrap());
        assert_eq!(problem(), None);
    }

    #[test]
    fn a_new_store_without_a_key_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let config = config(&format!("[platform]\nstore = '{}'\n", store.display()));
        let warned = |variables: &[(&str, &str)]| {
            let environment = variables.iter().copied().collect();
            missing_key(&config, &environment).is_some()
        };
        assert!(warned(&[]));
        assert!(!warned(&[("M3O_PLATFORM_KEY", "key")]));
        assert!(!warned(&[("M3O_PLATFORM_KEY_FILE", "file")]));
        std::fs::write(&store, "").unwrap();
        assert!(!warned(&[]), "it may have a key");
    }
}
