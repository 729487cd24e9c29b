//! `m3o-ingress dev`: everything on loopback, with no configuration.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use m3o_ingress::config::{Config, Environment};
use m3o_ingress::credentials::Secret;
use m3o_ingress::ingress::Secrets;
use m3o_ingress::tls::local::Authority;

use super::started::started;
use super::{DevFlags, Failure, LogFlags, run};

/// The API key of `dev`.
const KEY: &str = "dev";

/// Runs until a signal ends it, after printing what to open.
pub(super) fn dev(flags: &DevFlags, log: &LogFlags) -> Result<(), Failure> {
    if flags.ca {
        let (config, data) = config(flags, &Environment::of_this_process())?;
        return print_authority(&config, &data);
    }
    started(|start| {
        let (mut config, data) = config(flags, &start.environment)?;
        log.apply(&mut config);
        make(&config.tls.certs)?;
        let traces = Secrets::traces(&config, &start.environment);
        let secrets = Secrets {
            platform_key: Some(Secret::new(KEY)),
            traces: traces.map_err(Failure::Configuration)?,
            ..Secrets::default()
        };
        let control = config.listen.control.clone();
        run::serve(config, secrets, None, start, |addresses| {
            let bound = Bound {
                http: addresses.http.first().unwrap_or(&flags.http).port(),
                https: addresses.https.first().unwrap_or(&flags.https).port(),
                admin: addresses.admin.unwrap_or(flags.admin),
            };
            // Whoever closed the output does not want to read it; the ingress serves all the same.
            let out = &mut io::stdout();
            let _ = what_to_open(out, &bound, &data, &new_link())
                .and_then(|()| how_to_ask(out, &bound, control.as_deref()));
        })
    })
}

/// What it amounts to, and the folder of its data, which is there then.
fn config(flags: &DevFlags, environment: &Environment) -> Result<(Config, PathBuf), Failure> {
    let data = match &flags.data {
        Some(folder) => folder.clone(),
        None => data_folder(environment).ok_or(Failure::NoDataFolder)?,
    };
    make(&data)?;
    let config = Config::dev(flags.http, flags.https, flags.admin, &data);
    Ok((config, data))
}

/// Makes a folder that nobody else reads, where there is none.
fn make(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Failure::DataFolder(folder.to_owned(), error))
}

/// Says where the certificate is that clients are to trust.
fn print_authority(config: &Config, data: &Path) -> Result<(), Failure> {
    let authority = Authority::open(data, &config.local_names()).map_err(Failure::Authority)?;
    let notice = authority.notice().map(str::to_owned);
    super::warn(&Vec::from_iter(notice)).map_err(Failure::System)?;
    match writeln!(io::stdout(), "{}", authority.file().display()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::System(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The ports really bound.
struct Bound {
    http: u16,
    https: u16,
    admin: SocketAddr,
}

/// The XDG base directory specification: a relative `XDG_DATA_HOME` is to be ignored.
fn data_folder(environment: &Environment) -> Option<PathBuf> {
    let folder = |variable| {
        environment
            .value(variable)
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
    };
    folder("XDG_DATA_HOME")
        .or_else(|| Some(folder("HOME")?.join(".local/share")))
        .map(|folder| folder.join("m3o-ingress/dev"))
}

/// The id of a short link that no earlier start made in the same store.
fn new_link() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!("hello-{:x}", now.unwrap_or_default().as_millis())
}

/// Links to click and commands to paste, with the ports really bound.
fn what_to_open(out: &mut impl Write, bound: &Bound, data: &Path, link: &str) -> io::Result<()> {
    let authority = data.join("ca.crt");
    let (data, authority) = (data.display(), authority.display());
    let admin = bound.admin;
    let but = |usual: u16, port: u16| match port {
        port if port == usual => String::new(),
        port => format!(":{port}"),
    };
    let (port, secure) = (but(80, bound.http), but(443, bound.https));
    let here = format!("http://localhost{port}");
    let app = format!("http://helloworld.app.localhost{port}/");
    let all_apps = format!("http://app.localhost{port}/");
    let mail = format!(
        r#"{{"email":"alice@example.com","subject":"Welcome","textContent":"Please confirm: $micro_verification_link","redirectUrl":"{app}","failureRedirectUrl":"{all_apps}"}}"#
    );
    write!(
        out,
        "\
M3O Ingress runs on this machine alone; Ctrl-C ends it. The API key is `{KEY}`.

  an app         {app}
  all apps       {all_apps}
  a function     http://helloworld.fn.localhost{port}/?name=Alice
  the API        curl '{here}/api/helloworld/call?api_key={KEY}&name=John'
  a short link   curl '{here}/api/url/create?api_key={KEY}&id={link}&destinationURL=https://example.com/'
                 then {here}/u/{link}
  verification   curl '{here}/api/user/sendVerificationEmail' -H 'Authorization: Bearer {KEY}' -H 'Content-Type: application/json' -d '{mail}'
                 then open the link in the mailbox
  over HTTPS     https://helloworld.app.localhost{secure}/
                 https://helloworld.fn.localhost{secure}/?name=Alice
                 curl --cacert '{authority}' 'https://localhost{secure}/api/helloworld/call?api_key={KEY}&name=John'
                 browsers warn until they trust that authority: import the file, or click through
  data           {data}
  mailbox        http://{admin}/mail
  health         http://{admin}/readyz
  metrics        http://{admin}/metrics
"
    )?;
    out.flush()
}

/// How to ask about what was opened.
fn how_to_ask(out: &mut impl Write, bound: &Bound, control: Option<&Path>) -> io::Result<()> {
    let Some(control) = control else {
        return writeln!(out);
    };
    let (control, port) = (control.display(), bound.http);
    let url = format!("http://helloworld.app.localhost:{port}/");
    writeln!(
        out,
        "  why            m3o-ingress explain --control '{control}' {url}\n"
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(http: u16, https: u16) -> String {
        let mut out = Vec::new();
        let bound = Bound {
            http,
            https,
            admin: "127.0.0.1:8090".parse().unwrap(),
        };
        what_to_open(&mut out, &bound, Path::new("/data"), "hello-1").unwrap();
        how_to_ask(&mut out, &bound, Some(Path::new("/data/control.sock"))).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_names_the_ports_really_bound() {
        let table = printed(49152, 49153);
        for line in [
            "http://helloworld.app.localhost:49152/\n",
            "http://helloworld.fn.localhost:49152/?name=Alice\n",
            "curl 'http://localhost:49152/api/helloworld/call?api_key=dev&name=John'\n",
            "then http://localhost:49152/u/hello-1\n",
            "  data           /data\n",
            "https://helloworld.app.localhost:49153/\n",
            "curl --cacert '/data/ca.crt' 'https://localhost:49153/api/helloworld/call?api_key=dev&name=John'\n",
            "http://127.0.0.1:8090/mail\n",
            "http://127.0.0.1:8090/readyz\n",
            "http://127.0.0.1:8090/metrics\n",
            "explain --control '/data/control.sock' http://helloworld.app.localhost:49152/\n",
        ] {
            assert!(table.contains(line), "{line} in\n{table}");
        }
        let usual = printed(80, 443);
        assert!(usual.contains("http://localhost/u/hello-1\n"));
        assert!(usual.contains("https://helloworld.app.localhost/\n"));
    }

    #[test]
    fn commands_survive_a_shell() {
        for line in printed(8080, 8443)
            .lines()
            .filter(|line| line.contains("curl"))
        {
            let quoted: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
            let bare: String = line.split('\'').step_by(2).collect();
            assert!(line.matches('\'').count().is_multiple_of(2), "{line}");
            assert!(!bare.contains(['$', '&', '{', '?']), "{bare}");
            if let Some(body) = quoted.iter().find(|part| part.starts_with('{')) {
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!(body["email"], "alice@example.com");
            }
        }
    }

    #[test]
    fn the_folder_is_where_the_xdg_specification_says() {
        let check = |variables: &[(&str, &str)], expected: Option<&str>| {
            let environment = variables.iter().copied().collect();
            assert_eq!(data_folder(&environment), expected.map(PathBuf::from));
        };
        check(
            &[("XDG_DATA_HOME", "/x"), ("HOME", "/h")],
            Some("/x/m3o-ingress/dev"),
        );
        check(
            &[("XDG_DATA_HOME", "x"), ("HOME", "/h")],
            Some("/h/.local/share/m3o-ingress/dev"),
        );
        check(&[("HOME", "")], None);
        check(&[], None);
    }
}
