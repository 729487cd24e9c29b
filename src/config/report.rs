//! What was found wrong so far, and what may not be complained about any more.

use super::document::Document;
use super::{Place, Problem, wording};

/// The problems of one document.
#[derive(Debug)]
pub(super) struct Report<'t> {
    pub(super) document: Document<'t>,
    problems: Vec<Problem>,
    /// Paths whose entries were taken out, or were meant by a misspelt one: that something is
    /// missing there now is no mistake of the writer's.
    gone: Vec<Vec<String>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(document: Document<'t>) -> Self {
        Self {
            document,
            problems: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Adds a problem with the entry at `key`, `limits.uri`, unless a problem there is known.
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        self.add_with(&path, message);
    }

    /// The same, with the entry at `path`.
    pub(super) fn add_with(&mut self, path: &[String], message: impl Into<String>) {
        if self.is_gone(path) {
            return;
        }
        let place = self.document.place_of(path);
        let named = path.iter().filter(|step| step.parse::<usize>().is_err());
        self.add_at(place, &wording::dotted(named), message);
    }

    /// Adds a problem with the whole file.
    pub(super) fn add_missing(&mut self, message: impl Into<String>) {
        let place = self.document.place_of(&[]);
        self.add_at(place, "", message);
    }

    /// Adds a problem at a place.
    pub(super) fn add_at(&mut self, place: Place, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(place, key, message));
    }

    /// From now on, nothing at or under `path` is missing.
    pub(super) fn excuse(&mut self, path: Vec<String>) {
        self.gone.push(path);
    }

    /// Whether an entry at, above or under `path` was taken out.
    pub(super) fn is_gone(&self, path: &[String]) -> bool {
        self.gone
            .iter()
            .any(|gone| gone.starts_with(path) || path.starts_with(gone))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// All of them, in the order of their places.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by(|a, b| a.place().cmp(b.place()));
        self.problems
    }
}
