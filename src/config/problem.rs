//! One mistake in a configuration: where it is, and what would be right.

use std::fmt;

/// A mistake in the configuration, or something that it names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    key: String,
    message: String,
}

/// Where a mistake is.
///
/// Ordered as a reader meets them: the file from its top, then the environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A position in the file, both counted from 1.
    Position {
        /// The file.
        file: String,
        /// Its line.
        line: usize,
        /// The character of the line.
        column: usize,
    },
    /// The file, where something is missing from it.
    File(String),
    /// An environment variable.
    Variable(String),
}

impl Problem {
    /// A mistake at `place`. `key` is the path of a key, `timeouts.header`, or empty.
    #[must_use]
    pub fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place,
            key: key.into(),
            message: message.into(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position { file, line, column } => write!(out, "{file}:{line}:{column}"),
            Self::File(file) => out.write_str(file),
            Self::Variable(name) => out.write_str(name),
        }
    }
}
