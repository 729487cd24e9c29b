//! What is remembered of the store outside of it, and when it has to be read again.

use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::Table;

/// What is remembered of the store by those who read it for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// What apps and functions resolve to.
    Backends,
    /// Where short links lead.
    Links,
    /// Who may call.
    Keys,
}

impl Remembered {
    const ALL: [Self; 3] = [Self::Backends, Self::Links, Self::Keys];

    /// What is remembered of a table.
    fn of(table: Table) -> Option<Self> {
        match table {
            Table::Apps | Table::Functions => Some(Self::Backends),
            Table::Links => Some(Self::Links),
            Table::Keys => Some(Self::Keys),
            Table::Users
            | Table::Emails
            | Table::Usernames
            | Table::Sessions
            | Table::UserSessions
            | Table::Tokens
            | Table::Mail
            | Table::Domains => None,
        }
    }
}

/// A number for each of them, which rises with every write to it before that write is answered: whoever
/// reads the number and then the store never has data that is older than the number.
#[derive(Debug, Default)]
pub(super) struct Generations([AtomicU64; Remembered::ALL.len()]);

impl Generations {
    pub(super) fn now(&self, what: Remembered) -> u64 {
        self.0[what as usize].load(Ordering::Acquire)
    }

    pub(super) fn rise(&self, what: Remembered) {
        self.0[what as usize].fetch_add(1, Ordering::Release);
    }

    /// The store is closed: who asks is told so, but for apps and functions that are known.
    pub(super) fn closed(&self) {
        self.rise(Remembered::Links);
        self.rise(Remembered::Keys);
    }

    /// The store is open again, and another process may have written.
    pub(super) fn opened(&self) {
        Remembered::ALL.iter().for_each(|what| self.rise(*what));
    }
}

/// What some writes have changed of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changed([bool; Remembered::ALL.len()]);

impl Changed {
    /// Notes a write to `table`.
    pub(super) fn note(&mut self, table: Table) {
        if let Some(what) = Remembered::of(table) {
            self.0[what as usize] = true;
        }
    }

    /// The same with what others have changed.
    pub(super) fn and(self, others: Self) -> Self {
        Self(std::array::from_fn(|what| self.0[what] || others.0[what]))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Remembered> {
        Remembered::ALL
            .into_iter()
            .filter(move |what| self.0[*what as usize])
    }
}
