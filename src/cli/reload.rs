//! `m3o-ingress reload`: a running ingress reads its configuration again.

use std::path::Path;

use serde_json::{Value, json};

use super::control::{Control, ControlFlags, JsonFlag};
use super::{Failure, print};

/// Prints what changed; an ingress that refuses says every reason.
pub(super) fn reload(flags: &ControlFlags, json: &JsonFlag, config: &Path) -> Result<(), Failure> {
    let report = Control::find(flags, config)?.post("/reload", &json!({}))?;
    match json.json {
        true => print(&format!("{report:#}\n")),
        false => print(&lines(&report)),
    }
}

/// Each part of a report with what it lists below it; what lists nothing is left out.
fn lines(report: &Value) -> String {
    let is_none = |part: &str| report[part].as_array().is_none_or(Vec::is_empty);
    let mut text = match is_none("changed") && is_none("renewed") {
        true => String::from("nothing is different\n"),
        false => String::from("reloaded\n"),
    };
    for (name, value) in report.as_object().into_iter().flatten() {
        let name = name.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Array(listed) if listed.is_empty() => {}
            Value::Array(listed) => {
                text.push_str(&format!("{name}:\n"));
                let listed = listed.iter().map(|item| format!("  {}\n", line(item)));
                text.extend(listed);
            }
            value => text.push_str(&format!("{name}: {}\n", line(value))),
        }
    }
    text
}

/// One thing: a key with its old and its new value, a text, or whatever else it is.
fn line(item: &Value) -> String {
    match (item, &item["key"]) {
        (Value::String(text), _) => text.clone(),
        (Value::Object(change), Value::String(key)) => {
            let shown = |side: &str| match change.get(side) {
                Some(Value::String(value)) => value.clone(),
                Some(Value::Null) | None => "nothing".to_owned(),
                Some(value) => value.to_string(),
            };
            format!("{key}: {} -> {}", shown("old"), shown("new"))
        }
        _ => item.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use m3o_ingress::config::Config;
    use m3o_ingress::ingress::Report;

    use super::*;

    #[test]
    fn a_report_is_told_part_by_part() {
        let now = Config::default();
        let mut then = Config::default();
        then.limits.body = 2 << 30;
        let report = Report {
            changed: now.changes(&then),
            renewed: vec!["backends.ca"],
            opened: vec!["127.0.0.1:81".parse().unwrap()],
            notes: vec!["a note".to_owned()],
            connections: 3,
            ..Report::default()
        };
        let expected = "\
reloaded
changed:
  limits.body: \"1GiB\" -> \"2GiB\"
connections: 3
notes:
  a note
opened:
  127.0.0.1:81
renewed:
  backends.ca
tunnels: 0
";
        assert_eq!(lines(&json!(report)), expected);
        let expected = "nothing is different\nconnections: 0\ntunnels: 0\n";
        assert_eq!(lines(&json!(Report::default())), expected);
    }
}
