//! What is told of a request, as JSON and as lines.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::telemetry::redact;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The request, without what may be a secret.
    pub request: String,
    /// Every decision, in order.
    pub steps: Vec<Step>,
    /// What it ends with.
    pub answer: Answer,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is decided.
    pub name: String,
    /// How.
    pub what: String,
    /// The keys of the configuration that decide it, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Its status, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The error in `Proxy-Status`, where there is one (RFC 9209, 2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In words.
    pub text: String,
}

impl Step {
    pub(super) fn new(name: &str, what: &str, by: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            what: plain(what),
            by: by.iter().map(|key| plain(key)).collect(),
        }
    }
}

/// One line of it, and no secret that looks like one.
pub(super) fn plain(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    redact::scrub(&line).into_owned()
}

/// Where the keys stand, where what is decided leaves room.
const COLUMN: usize = 52;

impl Explanation {
    /// A line for each step.
    #[must_use]
    pub fn to_text(&self) -> String {
        let names = self.steps.iter().map(|step| step.name.len());
        let wide = names.max().unwrap_or(0).max("answer".len());
        let mut text = format!("{}\n\n", self.request);
        for step in &self.steps {
            let mut line = format!("  {:wide$}  {}", step.name, step.what);
            if !step.by.is_empty() {
                let column = wide + COLUMN + 4;
                let keys = step.by.join(", ");
                line = format!("{line:<column$}  {keys}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let answer = &self.answer;
        let status = answer.status.map(|status| format!("{status} "));
        let error = answer.error.as_ref().map(|error| format!(" ({error})"));
        let _always_written = writeln!(
            text,
            "  {:wide$}  {}{}{}",
            "answer",
            status.unwrap_or_default(),
            answer.text,
            error.unwrap_or_default()
        );
        text
    }
}
