//! From a text and an environment to a [`Config`], or to every mistake in them.
//!
//! serde stops at the first mistake. So the entry that it complains about is written down, taken
//! out, and the rest read again, until it reads. Then come the checks that span parts.

use serde::Deserialize;
use toml::de::{DeValue, Error};
use toml::{Table, Value};

use super::document::Document;
use super::environment::{Environment, variable};
use super::example::{ANY, at, example};
use super::report::Report;
use super::{Config, Place, Problem, check, wording};

/// After this many mistakes it is probably no configuration.
const ENOUGH: usize = 100;

/// Reads a configuration; `file` is only what the problems call it.
pub(super) fn read(
    file: &str,
    text: &str,
    environment: &Environment,
) -> Result<Config, Vec<Problem>> {
    let document = Document::parse(file, text).map_err(|(place, message)| {
        vec![Problem::new(
            place,
            "",
            format!("this is not TOML: {message}"),
        )]
    })?;
    let mut report = Report::new(document);
    let example = example();
    overlay(&mut report, &example, environment);
    sections(&mut report, &example, &mut Vec::new());
    let Some(config) = heal(&mut report, &example) else {
        return Err(report.into_problems());
    };
    check::all(&config, &mut report);
    almost_keys(&mut report, &example, &config.unread(environment));
    match report.count() {
        0 => Ok(config),
        _ => Err(report.into_problems()),
    }
}

/// Puts `M3O_INGRESS_<SECTION>__<KEY>` over the file's values.
fn overlay<'t>(report: &mut Report<'t>, example: &Table, environment: &'t Environment) {
    for (name, path, text) in environment.keys() {
        match at(example, &path) {
            Some(Value::Table(_)) | None => {
                let meant = meant(example, name).unwrap_or_else(|| {
                    "the keys are those of the file, `M3O_INGRESS_<SECTION>__<KEY>`".to_owned()
                });
                no_key(report, name, &meant);
            }
            Some(like) => report.document.overlay(name, &path, value(text, like)),
        }
    }
}

/// Refuses variables that would stand for a key with another underscore. What is further from every
/// key may be somebody else's: Kubernetes sets `M3O_INGRESS_PORT` for a service called `m3o-ingress`.
fn almost_keys(report: &mut Report<'_>, example: &Table, unread: &[&str]) {
    for name in unread {
        if let Some(meant) = meant(example, name) {
            no_key(report, name, &meant);
        }
    }
}

fn meant(example: &Table, name: &str) -> Option<String> {
    let mut known = Vec::new();
    variables(example, &mut Vec::new(), &mut known);
    let nearest = wording::nearest(name, known.iter().map(String::as_str))?;
    Some(format!("did you mean `{nearest}`?"))
}

fn no_key(report: &mut Report<'_>, name: &str, meant: &str) {
    let message = format!("no key has this name; {meant}");
    report.add_at(Place::Variable(name.to_owned()), "", message);
}

/// The text of a variable as a value of the kind that its key takes.
fn value<'t>(text: &'t str, like: &Value) -> DeValue<'t> {
    let as_text = |text: &'t str| DeValue::String(text.into());
    match like {
        Value::Array(_) => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            DeValue::Array(
                parts
                    .map(|part| toml::Spanned::new(0..0, as_text(part)))
                    .collect(),
            )
        }
        Value::Integer(_) | Value::Boolean(_) => DeValue::parse(text)
            .map(toml::Spanned::into_inner)
            .ok()
            .filter(|value| value.is_integer() || value.is_bool())
            .unwrap_or_else(|| as_text(text)),
        _ => as_text(text),
    }
}

fn variables(table: &Table, path: &mut Vec<String>, known: &mut Vec<String>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            // Their names are the writer's own.
            _ if key == ANY => {}
            Value::Table(table) => variables(table, path, known),
            _ => known.push(variable(path)),
        }
        path.pop();
    }
}

/// Takes out what stands where a section belongs: serde would read a list as its values in order.
fn sections(report: &mut Report<'_>, example: &Table, path: &mut Vec<String>) {
    for (name, value) in example {
        let Value::Table(keys) = value else {
            continue;
        };
        if name == ANY {
            for name in report.document.keys(path) {
                sections(report, &Table::from_iter([(name, value.clone())]), path);
            }
            continue;
        }
        path.push(name.clone());
        let found = report.document.value(path);
        if let Some(other) = found.filter(|value| !value.get_ref().is_table()) {
            let place = report.document.place(&other.span());
            let name = wording::dotted(&*path);
            let message = wording::no_section(other.get_ref(), &name);
            report.add_at(place, &name, message);
            report.document.remove(path);
            report.excuse(path.clone());
        }
        sections(report, keys, path);
        path.pop();
    }
}

/// Reads, and takes out what does not read, until the rest does.
fn heal(report: &mut Report<'_>, example: &Table) -> Option<Config> {
    while report.count() < ENOUGH {
        let error = match deserialize(&report.document) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        if !take_out(report, example, &error) {
            break;
        }
    }
    None
}

/// Writes one mistake down and removes its entry; whether there was one to remove.
fn take_out(report: &mut Report<'_>, example: &Table, error: &Error) -> bool {
    let message = error.message();
    let path = path_of(&report.document, error);
    let bad = if message.starts_with("unknown field `") {
        unknown_key(report, &path, error)
    } else if let Some(key) = message.strip_prefix("missing field `") {
        return missing_key(report, example, &path, key.trim_end_matches('`'));
    } else {
        unfit_value(report, example, &path, error)
    };
    let Some(bad) = bad else {
        let place = report.document.place(&error.span().unwrap_or(0..0));
        report.add_at(place, "", message);
        return false;
    };
    let removed = report.document.remove(&bad);
    report.excuse(bad);
    removed
}

fn unknown_key(report: &mut Report<'_>, section: &[String], error: &Error) -> Option<Vec<String>> {
    let span = error.span()?;
    let key = report.document.key_at(section, &span)?;
    let known = wording::expected_names(error.message());
    let meant = wording::nearest(&key, known.iter().copied());
    let hint = match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("what may stand here is {}", wording::one_of(&known, '`')),
    };
    let message = format!("unknown key `{}`; {hint}", wording::shortened(&key));
    report.add_at(report.document.place(&span), "", message);
    if let Some(meant) = meant {
        report.excuse(child(section, meant));
    }
    Some(child(section, &key))
}

/// Writes it down and puts a likely value in its place, so that its neighbours are read too.
fn missing_key(report: &mut Report<'_>, example: &Table, section: &[String], key: &str) -> bool {
    let path = child(section, key);
    if !report.is_gone(&path) {
        let place = report.document.place_of(section);
        let message = format!(
            "[{}] needs the key `{key}`: write it like `{}`",
            section.join("."),
            line(example, &path)
        );
        report.add_at(place, "", message);
    }
    report.excuse(path.clone());
    match at(example, &path) {
        Some(Value::String(likely)) => {
            let likely = DeValue::String(likely.clone().into());
            report.document.stand_in(&path, likely)
        }
        _ => report.document.remove(section),
    }
}

fn unfit_value(
    report: &mut Report<'_>,
    example: &Table,
    key: &[String],
    error: &Error,
) -> Option<Vec<String>> {
    if let Some(name) = free_name(report, key, error) {
        return Some(child(key, &name));
    }
    let path = culprit(&report.document, key, error);
    let value = report.document.value(&path)?;
    let place = report.document.place(&value.span());
    let message = match value.get_ref().as_str() {
        Some("*") if key == ["user", "redirect_hosts"] => {
            "`*` is no host name: leave the list empty for any host".to_owned()
        }
        _ => wording::unfit(error.message(), value.get_ref(), &line(example, key)),
    };
    report.add_at(place, &wording::dotted(key), message);
    Some(path)
}

/// A key of the writer's own that is no such name; it is written down.
fn free_name(report: &mut Report<'_>, table: &[String], error: &Error) -> Option<String> {
    let span = error.span()?;
    let name = report.document.key_at(table, &span)?;
    let value = DeValue::String(name.clone().into());
    let message = wording::unfit(error.message(), &value, "");
    report.add_at(
        report.document.place(&span),
        &wording::dotted(table),
        message,
    );
    Some(name)
}

/// The element of a list that is to blame; the value itself where none is, or where it is no list.
fn culprit(document: &Document<'_>, path: &[String], error: &Error) -> Vec<String> {
    let list = document
        .value(path)
        .and_then(|value| value.get_ref().as_array());
    let length = list.map_or(0, |list| list.len());
    let fails = |length: usize| {
        deserialize(&document.cut(path, length))
            .is_err_and(|other| other.message() == error.message())
    };
    let first = (0..=length).find(|length| fails(*length));
    match first.and_then(|length| length.checked_sub(1)) {
        Some(index) => child(path, &index.to_string()),
        None => path.to_vec(),
    }
}

/// The keys that lead to what an error is about: our own, as serde does not go further than those it
/// knows, and names of the writer's, which have dots in them.
fn path_of(document: &Document<'_>, error: &Error) -> Vec<String> {
    error
        .to_string()
        .strip_prefix(error.message())
        .and_then(|rest| rest.strip_prefix("\nin `"))
        .and_then(|rest| rest.strip_suffix("`\n"))
        .map(|keys| document.path(keys))
        .unwrap_or_default()
}

fn deserialize(document: &Document<'_>) -> Result<Config, Error> {
    Config::deserialize(toml::Deserializer::from(document.to_input()))
}

fn child(path: &[String], key: &str) -> Vec<String> {
    path.iter().cloned().chain([key.to_owned()]).collect()
}

/// How the key at `path` is written; empty for a section.
fn line(example: &Table, path: &[String]) -> String {
    match (at(example, path), path.last()) {
        (None | Some(Value::Table(_)), _) | (_, None) => String::new(),
        (Some(value), Some(key)) => format!("{key} = {value}"),
    }
}
