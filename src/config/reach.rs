//! Where a running ingress can be asked, read from its configuration without judging the rest of it: whoever
//! has just written a mistake into the file must still be able to ask.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, Environment, Problem};

/// Where the ingress of a configuration is asked by its operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// `listen.control`.
    pub control: Option<PathBuf>,
    /// `listen.admin`.
    pub admin: Option<SocketAddr>,
}

impl Reached {
    /// Reads the file at `path`, and the variables that stand over it.
    ///
    /// # Errors
    /// When it cannot be read, or is no TOML.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Vec<Problem>> {
        let table = std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.parse::<Table>().ok());
        let Some(table) = table else {
            // It says why, and where.
            let config = Config::load(path, environment)?;
            return Ok(Self {
                control: config.listen.control,
                admin: config.listen.admin,
            });
        };
        Ok(Self::of(&table, environment))
    }

    fn of(table: &Table, environment: &Environment) -> Self {
        let listen = table.get("listen");
        let text = |key: &str, variable: &str| {
            let written = listen.and_then(|listen| listen.get(key));
            let written = written.and_then(Value::as_str);
            let value = environment.value(variable).or(written);
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        Self {
            control: text("control", "M3O_INGRESS_LISTEN__CONTROL").map(PathBuf::from),
            admin: text("admin", "M3O_INGRESS_LISTEN__ADMIN").and_then(|text| text.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(text: &str, variables: &[(&str, &str)]) -> Result<Reached, Vec<Problem>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ingress.toml");
        std::fs::write(&file, text).unwrap();
        Reached::load(&file, &variables.iter().copied().collect())
    }

    #[test]
    fn a_file_with_a_mistake_still_says_where_to_ask() {
        let text = "listen.control = 'run/c'\nlisten.admin = '127.0.0.1:1'\nlimits.body = 'much'";
        let found = reached(text, &[]).unwrap();
        assert_eq!(found.control, Some("run/c".into()));
        assert_eq!(found.admin, Some("127.0.0.1:1".parse().unwrap()));
        let over = reached(text, &[("M3O_INGRESS_LISTEN__CONTROL", "other")]).unwrap();
        assert_eq!(over.control, Some("other".into()));
        assert_eq!(reached("x = 1", &[]).unwrap(), Reached::default());
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_place() {
        let problems = reached("listen = [", &[]).unwrap_err();
        assert!(problems[0].to_string().contains("this is not TOML"));
        let missing = Reached::load(Path::new("/no/such/file"), &Environment::default());
        assert!(missing.unwrap_err()[0].to_string().contains("no such file"));
    }
}
