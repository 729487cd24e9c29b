//! `m3o-ingress app` and `fn`: what runs on the embedded platform, closed for a while and opened again.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use m3o_ingress::id::WorkloadId;
use m3o_ingress::units::duration;
use serde_json::{Value, json};

use super::control::{Control, ControlFlags, JsonFlag};
use super::{Failure, print};

/// What is done with an app, or a function.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Lists all of them
    List {
        #[command(flatten)]
        control: ControlFlags,
        #[command(flatten)]
        json: JsonFlag,
    },
    /// Answers its requests with 503, until it is resumed
    Pause(Closing),
    /// Answers its requests with 503: it is worked on, and will soon be back
    Maintenance(Closing),
    /// Lets requests through again
    Resume {
        #[command(flatten)]
        control: ControlFlags,
        /// Its name
        #[arg(value_parser = name)]
        name: String,
    },
}

/// What is closed, and what its visitors are told.
#[derive(Debug, Args)]
pub(super) struct Closing {
    #[command(flatten)]
    control: ControlFlags,
    /// Its name
    #[arg(value_parser = name)]
    name: String,
    /// What visitors are told, in place of the usual words
    #[arg(long, value_name = "TEXT", env = "M3O_INGRESS_MESSAGE")]
    #[arg(default_value = "", hide_default_value = true)]
    message: String,
    /// When they may come again
    #[arg(long, value_name = "DURATION", env = "M3O_INGRESS_RETRY_AFTER")]
    #[arg(default_value = "5m", value_parser = seconds)]
    retry_after: u32,
}

/// Where these are kept on the control socket: `apps` or `functions`.
pub(super) type Shelf = &'static str;

/// Does it.
pub(super) fn execute(verb: &Verb, shelf: Shelf, config: &Path) -> Result<(), Failure> {
    match verb {
        Verb::List { control, json } => list(control, json, shelf, config),
        Verb::Pause(closing) => close(closing, "pause", shelf, config),
        Verb::Maintenance(closing) => close(closing, "maintenance", shelf, config),
        Verb::Resume { control, name } => {
            let target = format!("/{shelf}/{name}/resume");
            tell(&Control::find(control, config)?, &target, &json!({}))
        }
    }
}

fn close(closing: &Closing, turn: &str, shelf: Shelf, config: &Path) -> Result<(), Failure> {
    let target = format!("/{shelf}/{}/{turn}", closing.name);
    let words = json!({ "message": closing.message, "retry_after": closing.retry_after });
    tell(&Control::find(&closing.control, config)?, &target, &words)
}

fn tell(control: &Control, target: &str, words: &Value) -> Result<(), Failure> {
    let done = control.post(target, words)?;
    let text = |key: &str| done[key].as_str().unwrap_or_default().to_owned();
    print(&format!("{}: {}\n", text("name"), text("status")))
}

fn list(
    control: &ControlFlags,
    json: &JsonFlag,
    shelf: Shelf,
    config: &Path,
) -> Result<(), Failure> {
    let listed = Control::find(control, config)?.get(&format!("/{shelf}"))?;
    if json.json {
        return print(&format!("{listed:#}\n"));
    }
    print(&table(&listed))
}

fn table(listed: &Value) -> String {
    const COLUMNS: [&str; 4] = ["name", "status", "url", "backend"];
    let rows = listed.as_array().into_iter().flatten();
    let rows = rows.map(|row| COLUMNS.map(|key| row[key].as_str().unwrap_or_default().to_owned()));
    let head = COLUMNS.map(str::to_ascii_uppercase);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |[name, status, url, backend]: &[String; 4]| {
        let [first, second, third] = widths;
        format!("{name:first$}  {status:second$}  {url:third$}  {backend}\n")
    };
    rows.iter().map(line).collect()
}

fn name(text: &str) -> Result<String, String> {
    WorkloadId::parse(text)
        .map(|name| name.as_str().to_owned())
        .map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<u32, String> {
    let span = duration::parse(text)?;
    if span < Duration::from_secs(1) || span > Duration::from_secs(30 * 86_400) {
        return Err("it is from 1s to 30d".to_owned());
    }
    u32::try_from(span.as_secs()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let listed = json!([
            {"name": "a", "status": "running", "url": "https://a.m3o.app", "backend": "http://b:80"},
            {"name": "blog", "status": "paused", "url": "https://blog.m3o.app", "backend": "http://c:80"},
        ]);
        let expected = "\
NAME  STATUS   URL                   BACKEND
a     running  https://a.m3o.app     http://b:80
blog  paused   https://blog.m3o.app  http://c:80
";
        assert_eq!(table(&listed), expected);
    }

    #[test]
    fn a_time_to_come_again_is_a_whole_number_of_seconds() {
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("1500ms"), Ok(1));
        assert!(seconds("999ms").is_err());
        assert!(seconds("31d").is_err());
        assert!(seconds("soon").is_err());
    }
}
