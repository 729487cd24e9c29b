//! An error in one line, with what caused it.

use std::error::Error;

/// What `error` says, and after it each of its causes, where that was not said before: many an error tells
/// its cause itself.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Said {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let line = |text| {
            let source = io::Error::other("the disk is full");
            with_causes(&io::Error::other(Said { text, source }))
        };
        let told = "it cannot be made: the disk is full";
        assert_eq!(line("it cannot be made"), told);
        let told = "it cannot be made: the disk is full; make room";
        assert_eq!(line(told), told);
    }
}
