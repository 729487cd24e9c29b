//! A configuration as it is written: a tree of entries, each of which knows where it stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Place;

/// The entries of a file with those of the environment over them.
///
/// What stands in a variable has a span behind the end of the text, so that one kind of position
/// does for both.
#[derive(Debug)]
pub(super) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    span: Range<usize>,
    entries: DeTable<'t>,
    variables: Vec<String>,
}

impl<'t> Document<'t> {
    /// Reads `text`.
    ///
    /// # Errors
    /// When it is not TOML.
    pub(super) fn parse(file: &'t str, text: &'t str) -> Result<Self, (Place, String)> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self {
                file,
                text,
                span: root.span(),
                entries: root.into_inner(),
                variables: Vec::new(),
            }),
            Err(error) => {
                let at = error.span().map_or(text.len(), |span| span.start);
                Err((position(file, text, at), error.message().to_owned()))
            }
        }
    }

    /// The entries, for serde.
    pub(super) fn to_input(&self) -> Spanned<DeTable<'t>> {
        Spanned::new(self.span.clone(), self.entries.clone())
    }

    /// The value at `path`. An element of a list goes by its number.
    pub(super) fn value(&self, path: &[String]) -> Option<&Spanned<DeValue<'t>>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.entries.get(first.as_str())?;
        for step in rest {
            value = match value.get_ref() {
                DeValue::Table(table) => table.get(step.as_str())?,
                DeValue::Array(list) => list.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// The keys of the section at `path`.
    pub(super) fn keys(&self, path: &[String]) -> Vec<String> {
        let section = self.section(path);
        let keys = section.into_iter().flat_map(DeTable::keys);
        keys.map(|key| key.get_ref().to_string()).collect()
    }

    /// The keys of `dotted`, each of which may have dots of its own where there is such a key.
    pub(super) fn path(&self, dotted: &str) -> Vec<String> {
        let mut path: Vec<String> = Vec::new();
        let mut rest = dotted;
        while !rest.is_empty() {
            let leads = |key: &String| {
                let after = rest.strip_prefix(key.as_str());
                after.is_some_and(|after| after.is_empty() || after.starts_with('.'))
            };
            let known = self.keys(&path).into_iter().filter(leads);
            let step = known.max_by_key(String::len);
            let step =
                step.unwrap_or_else(|| rest.split('.').next().unwrap_or_default().to_owned());
            rest = rest[step.len()..].trim_start_matches('.');
            path.push(step);
        }
        path
    }

    /// The key in the section at `section` that stands at `span`.
    pub(super) fn key_at(&self, section: &[String], span: &Range<usize>) -> Option<String> {
        self.section(section)?
            .keys()
            .find(|key| key.span() == *span)
            .map(|key| key.get_ref().to_string())
    }

    /// Puts the value of a variable over whatever is at `path`.
    pub(super) fn overlay(&mut self, variable: &str, path: &[String], value: DeValue<'t>) {
        let at = self.text.len() + 1 + self.variables.len();
        self.variables.push(variable.to_owned());
        let Some((last, sections)) = path.split_last() else {
            return;
        };
        let spanned = |text: &str| Spanned::new(at..at + 1, text.to_owned().into());
        let mut table = &mut self.entries;
        for section in sections {
            let inner = table
                .entry(spanned(section))
                .or_insert_with(|| Spanned::new(at..at + 1, DeValue::Table(DeTable::new())));
            // No section there: that mistake is reported anyhow.
            let DeValue::Table(inner) = inner.get_mut() else {
                return;
            };
            table = inner;
        }
        table.remove(last.as_str());
        let value = match value {
            DeValue::Array(list) => DeValue::Array(elements_at(list, at)),
            value => value,
        };
        table.insert(spanned(last), Spanned::new(at..at + 1, value));
    }

    /// Puts a value where there is none; whether it stands there now. As it is not in the file,
    /// nobody is to complain about it.
    pub(super) fn stand_in(&mut self, path: &[String], value: DeValue<'t>) -> bool {
        if self.value(path).is_some() {
            return false;
        }
        self.overlay("", path, value);
        self.value(path).is_some()
    }

    /// Takes out the entry at `path`; whether there was one.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        if parents.is_empty() {
            return self.entries.remove(last.as_str()).is_some();
        }
        match self.value_mut(parents) {
            Some(DeValue::Table(table)) => table.remove(last.as_str()).is_some(),
            Some(DeValue::Array(list)) => {
                let Ok(index) = last.parse::<usize>() else {
                    return false;
                };
                let length = list.len();
                let others = std::mem::replace(list, DeArray::new())
                    .into_iter()
                    .enumerate();
                *list = others
                    .filter_map(|(n, value)| (n != index).then_some(value))
                    .collect();
                list.len() < length
            }
            _ => false,
        }
    }

    /// The same document with the list at `path` cut after its first `length` elements.
    pub(super) fn cut(&self, path: &[String], length: usize) -> Self {
        let mut cut = Self {
            file: self.file,
            text: self.text,
            span: self.span.clone(),
            entries: self.entries.clone(),
            variables: Vec::new(),
        };
        if let Some(DeValue::Array(list)) = cut.value_mut(path) {
            *list = std::mem::replace(list, DeArray::new())
                .into_iter()
                .take(length)
                .collect();
        }
        cut
    }

    /// Where the entry at `path` is: its value, else the section that would hold it, else the file.
    pub(super) fn place_of(&self, path: &[String]) -> Place {
        (1..=path.len())
            .rev()
            .find_map(|length| self.value(&path[..length]))
            .map_or_else(
                || Place::File(self.file.to_owned()),
                |value| self.place(&value.span()),
            )
    }

    /// Where `span` begins.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        span.start
            .checked_sub(self.text.len() + 1)
            .and_then(|index| self.variables.get(index))
            .map_or_else(
                || position(self.file, self.text, span.start),
                |name| Place::Variable(name.clone()),
            )
    }

    fn section(&self, path: &[String]) -> Option<&DeTable<'t>> {
        if path.is_empty() {
            return Some(&self.entries);
        }
        self.value(path)?.get_ref().as_table()
    }

    fn value_mut(&mut self, path: &[String]) -> Option<&mut DeValue<'t>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.entries.get_mut(first.as_str())?.get_mut();
        for step in rest {
            value = match value {
                DeValue::Table(table) => table.get_mut(step.as_str())?.get_mut(),
                DeValue::Array(list) => list.get_mut(step.parse::<usize>().ok()?)?.get_mut(),
                _ => return None,
            };
        }
        Some(value)
    }
}

/// Line and column of the byte at `at`, both from 1; the column counts characters.
pub(super) fn position(file: &str, text: &str, at: usize) -> Place {
    let end = (0..=at.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    let before = &text[..end.unwrap_or(0)];
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::Position {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line..].chars().count() + 1,
    }
}

fn elements_at(list: DeArray<'_>, at: usize) -> DeArray<'_> {
    list.into_iter()
        .map(|element| Spanned::new(at..at + 1, element.into_inner()))
        .collect()
}
