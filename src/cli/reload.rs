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
    let mut text = String::from("reloaded\n");
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
    use super::*;

    #[test]
    fn a_report_is_told_part_by_part() {
        let report = json!({
            "changed": [{"key": "limits.body", "old": "1GiB", "new": "2GiB"}],
            "connections": 3,
            "listeners_opened": ["127.0.0.1:81"],
            "need_restart": [{"key": "listen.workers", "old": 1, "new": null}],
            "nothing": [],
        });
        let expected = "\
reloaded
changed:
  limits.body: 1GiB -> 2GiB
connections: 3
listeners opened:
  127.0.0.1:81
need restart:
  listen.workers: 1 -> nothing
";
        assert_eq!(lines(&report), expected);
        assert_eq!(lines(&json!({})), "reloaded\n");
    }
}
