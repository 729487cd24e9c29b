//! Reads the secrets that a configuration names. Their values are never printed.

use crate::config::{Config, Environment, Place, Problem};
use crate::credentials::{Credentials, Secret};
use crate::ingress::Secrets;
use crate::otlp::{Export, HEADERS, Wrong, check_headers};

impl Secrets {
    /// Reads each secret from its variable, or from the file that `<VARIABLE>_FILE` names.
    ///
    /// The platform's key may be absent: its store may have one.
    ///
    /// # Errors
    /// For every secret that is needed and not there, or that is unusable.
    pub fn from_env(config: &Config, environment: &Environment) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = |secret: Result<Option<Secret>, Problem>| {
            secret.unwrap_or_else(|problem| {
                problems.push(problem);
                None
            })
        };
        let mut secrets = Self::default();
        if let Some(api) = &config.api {
            let token = Named::new("api.token_env", &api.token_env, token);
            secrets.api_token = read(token.needed(environment));
        }
        if let Some(platform) = &config.platform {
            let key = Named::new("platform.key_env", &platform.key_env, token);
            secrets.platform_key = read(key.read(environment));
        }
        if let Some(mail) = config.platform.as_ref().and_then(|own| own.mail.as_ref()) {
            let url = Named::new("platform.mail.smtp_url_env", &mail.smtp_url_env, smtp_url);
            secrets.smtp_url = read(url.needed(environment));
        }
        if let Some(acme) = &config.tls.acme {
            if let Some(variable) = &acme.eab_key_env {
                let key = Named::new("tls.acme.eab_key_env", variable, base64);
                secrets.acme.eab_key = read(key.needed(environment));
            }
            if let Some(update) = acme.dns.as_ref().and_then(|dns| dns.update.as_ref()) {
                let key = Named::new("tls.acme.dns.update.key_env", &update.key_env, base64);
                secrets.acme.tsig_key = read(key.needed(environment));
            }
        }
        secrets.traces = Self::traces(config, environment).unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        match problems.is_empty() {
            true => Ok(secrets),
            false => Err(problems),
        }
    }

    /// Where spans are told to, as the variables of OpenTelemetry say.
    ///
    /// # Errors
    /// For every variable that cannot be heeded.
    pub fn traces(
        config: &Config,
        environment: &Environment,
    ) -> Result<Option<Export>, Vec<Problem>> {
        let share = config.tracing.sample;
        let value = |name: &str| environment.value(name);
        // Without a collector nothing of it is looked at.
        let is_on = Export::read(value, None, share).map(|export| export.is_some());
        let mut headers = None;
        if is_on != Ok(false) {
            for name in HEADERS.iter().rev() {
                let named = Named::new("", name, check_headers);
                let own = named.read(environment).map_err(|problem| vec![problem])?;
                headers = own.or(headers);
            }
        }
        Export::read(value, headers.as_ref(), share).map_err(|wrong| {
            let problem = |wrong: Wrong| {
                let place = Place::Variable(wrong.variable.to_owned());
                Problem::new(place, "", wrong.message)
            };
            wrong.into_iter().map(problem).collect()
        })
    }
}

/// One secret: the key that names its variable, the variable, and what a usable value is.
struct Named<'a> {
    key: &'a str,
    variable: &'a str,
    usable: fn(&str) -> Result<(), &'static str>,
}

impl<'a> Named<'a> {
    fn new(key: &'a str, variable: &'a str, usable: fn(&str) -> Result<(), &'static str>) -> Self {
        Self {
            key,
            variable,
            usable,
        }
    }

    fn needed(&self, environment: &Environment) -> Result<Option<Secret>, Problem> {
        let secret = self.read(environment)?;
        if secret.is_none() {
            let message = format!(
                "it is not set: it holds a secret, or {}_FILE names a file that does",
                self.variable
            );
            return Err(self.problem(self.variable, message));
        }
        Ok(secret)
    }

    fn read(&self, environment: &Environment) -> Result<Option<Secret>, Problem> {
        let file_variable = format!("{}_FILE", self.variable);
        let (source, text) = match (
            environment.value(self.variable),
            environment.value(&file_variable),
        ) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let message = format!("{file_variable} is set too: keep one of them");
                return Err(self.problem(self.variable, message));
            }
            (Some(text), None) => (self.variable, text.to_owned()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    self.problem(&file_variable, format!("`{file}` cannot be read: {error}"))
                })?;
                (file_variable.as_str(), text)
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match (self.usable)(text) {
            Ok(()) => Ok(Some(Secret::new(text))),
            Err(why) => Err(self.problem(source, why.to_owned())),
        }
    }

    fn problem(&self, variable: &str, message: String) -> Problem {
        Problem::new(Place::Variable(variable.to_owned()), self.key, message)
    }
}

fn token(text: &str) -> Result<(), &'static str> {
    match Credentials::bearer(text) {
        Ok(_) => Ok(()),
        Err(_) if text.is_empty() => Err("it is empty"),
        Err(_) => Err("it is unusable: a token or key is 1 to 4096 visible ASCII characters"),
    }
}

fn smtp_url(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let like = "it is no address of a mail server: write it like smtps://user:password@host:465";
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(like);
    }
    let url = url::Url::parse(text).map_err(|_| like)?;
    match (url.scheme(), url.host_str()) {
        ("smtp" | "smtps", Some(host)) if !host.is_empty() => Ok(()),
        _ => Err(like),
    }
}

/// What may be base64 or base64url; which of them, the part that reads it knows.
fn base64(text: &str) -> Result<(), &'static str> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    match text.is_empty() {
        true => Err("it is empty"),
        false if text.bytes().all(fine) => Ok(()),
        false => Err("it is no base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "[listen]\nhttp = '127.0.0.1:1'\n[api]\naddress = 'https://api.m3o.com'\n";
    const PLATFORM: &str = "[listen]\nhttp = '127.0.0.1:1'\n[platform]\nstore = 's'\n\
        [platform.mail]\nsmtp_url_env = 'SMTP_URL'\nfrom = 'a@b'\n";

    fn secrets(config: &str, variables: &[(&str, &str)]) -> Result<Secrets, Vec<String>> {
        let config = Config::parse("test", config, &Environment::default()).unwrap();
        let environment = variables.iter().copied().collect();
        Secrets::from_env(&config, &environment)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_secret_comes_from_its_variable_or_from_a_file() {
        let token = secrets(API, &[("M3O_API_TOKEN", "canary")])
            .unwrap()
            .api_token;
        assert_eq!(token, Some(Secret::new("canary")));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "canary\n").unwrap();
        let token = secrets(API, &[("M3O_API_TOKEN_FILE", file.to_str().unwrap())]);
        assert_eq!(token.unwrap().api_token, Some(Secret::new("canary")));
    }

    #[test]
    fn a_missing_token_is_an_error_and_a_missing_first_key_is_none() {
        assert_eq!(
            secrets(API, &[]).unwrap_err(),
            [
                "M3O_API_TOKEN: api.token_env: it is not set: it holds a secret, or M3O_API_TOKEN_FILE names a file that does"
            ]
        );
        let smtp = ("SMTP_URL", "smtps://u:p@mail.example:465");
        let found = secrets(PLATFORM, &[smtp]).unwrap();
        assert_eq!((found.platform_key, found.api_token), (None, None));
        assert!(found.smtp_url.is_some());
    }

    #[test]
    fn unusable_secrets_are_refused_all_together_and_never_printed() {
        for bad in ["", "canary canary", "canarÿ"] {
            let smtp = format!("https://canary:{bad}@host");
            let problems = secrets(PLATFORM, &[("M3O_PLATFORM_KEY", bad), ("SMTP_URL", &smtp)]);
            let problems = problems.unwrap_err();
            assert_eq!(problems.len(), 2, "{problems:?}");
            assert!(!problems.concat().contains("canar"), "{problems:?}");
        }
        let both = [("M3O_API_TOKEN", "a"), ("M3O_API_TOKEN_FILE", "b")];
        assert_eq!(
            secrets(API, &both).unwrap_err(),
            ["M3O_API_TOKEN: api.token_env: M3O_API_TOKEN_FILE is set too: keep one of them"]
        );
    }
}
