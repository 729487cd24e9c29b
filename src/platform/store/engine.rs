//! What a store stands on: snapshots and atomic commits of plain bytes. Knows no records.

use std::collections::BTreeMap;

/// The tables of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Digest of an API key → when it was added.
    Keys,
    /// Name → app.
    Apps,
    /// Name → function.
    Functions,
    /// Id → short link.
    Links,
    /// Id → account.
    Users,
    /// Email in lower case → id of the account.
    Emails,
    /// User name → id of the account.
    Usernames,
    /// Digest of a session's id → session.
    Sessions,
    /// `<account>/<digest of session>` → nothing: what to end when an account is deleted.
    UserSessions,
    /// Digest of a verification token → what it verifies.
    Tokens,
    /// `<due>-<id>` → a mail that waits to be sent.
    Mail,
    /// `<domain>/<app>` → the claim of an app to a custom domain.
    Domains,
}

impl Table {
    pub(crate) const ALL: [Self; 12] = [
        Self::Keys,
        Self::Apps,
        Self::Functions,
        Self::Links,
        Self::Users,
        Self::Emails,
        Self::Usernames,
        Self::Sessions,
        Self::UserSessions,
        Self::Tokens,
        Self::Mail,
        Self::Domains,
    ];

    /// Its name in the file and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Apps => "apps",
            Self::Functions => "functions",
            Self::Links => "links",
            Self::Users => "users",
            Self::Emails => "emails",
            Self::Usernames => "usernames",
            Self::Sessions => "sessions",
            Self::UserSessions => "user_sessions",
            Self::Tokens => "tokens",
            Self::Mail => "mail",
            Self::Domains => "domains",
        }
    }
}

/// What one commit changes; `None` removes.
pub(super) type Changes = BTreeMap<(Table, String), Option<Vec<u8>>>;

/// Pairs of key and value in the order of their keys.
pub(super) type Pairs = Vec<(String, Vec<u8>)>;

/// How much is read at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    /// Pairs, at most.
    pub(super) pairs: usize,
    /// Bytes of keys and values: the pair that reaches them is the last, however large it is.
    pub(super) bytes: usize,
}

impl Page {
    /// Takes of `pairs` what there is room for.
    pub(super) fn fill<E>(
        self,
        pairs: impl Iterator<Item = Result<(String, Vec<u8>), E>>,
    ) -> Result<Pairs, E> {
        let mut taken = Pairs::new();
        let mut bytes = 0;
        for pair in pairs.take(self.pairs) {
            let (key, value) = pair?;
            bytes += key.len() + value.len();
            taken.push((key, value));
            if bytes >= self.bytes {
                break;
            }
        }
        Ok(taken)
    }
}

/// Why an engine could not do what was asked. Nothing changed.
pub(super) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Keeps bytes under keys.
pub(super) trait Engine: Send + Sync {
    /// The state after the last commit, unmoved by later ones.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault>;

    /// Makes all of `changes` durable, or none.
    fn commit(&self, changes: &Changes) -> Result<(), Fault>;

    /// Opens what an earlier fault closed; does nothing where all is well, or after [`Engine::let_go`].
    fn heal(&self) -> Result<(), Fault>;

    /// Closes it for another process. What is only in memory stays.
    fn let_go(&self);

    /// Opens it again after that.
    fn take_back(&self);

    /// Whether it was let go.
    fn is_let_go(&self) -> bool;

    /// Where the data is, for messages.
    fn place(&self) -> String;
}

/// One state of an [`Engine`].
pub(super) trait Snapshot {
    /// The value under a key.
    fn get(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>, Fault>;

    /// The first `limit` pairs whose key starts with `prefix`.
    fn scan(&self, table: Table, prefix: &str, limit: usize) -> Result<Pairs, Fault>;

    /// The first pairs whose key comes after `key`, which need not be there: as many as `page` has room for.
    fn after(&self, table: Table, key: &str, page: Page) -> Result<Pairs, Fault>;
}

#[cfg(test)]
pub(super) mod contract {
    use super::*;

    /// What every engine must do.
    pub(in super::super) fn check(engine: &dyn Engine) {
        let get = |table, key| engine.snapshot().unwrap().get(table, key).unwrap();
        let keys = |prefix, limit| -> Vec<String> {
            let pairs = engine
                .snapshot()
                .unwrap()
                .scan(Table::Apps, prefix, limit)
                .unwrap();
            pairs.into_iter().map(|(key, _)| key).collect()
        };
        let commit = |changes: &[(Table, &str, Option<&str>)]| {
            let changes = changes.iter().map(|(table, key, value)| {
                let value = value.map(|value| value.as_bytes().to_vec());
                ((*table, (*key).to_owned()), value)
            });
            engine.commit(&changes.collect()).unwrap();
        };

        assert_eq!(get(Table::Apps, "a"), None, "an empty engine has nothing");
        assert!(keys("", 10).is_empty());

        commit(&[
            (Table::Apps, "b", Some("2")),
            (Table::Apps, "a", Some("1")),
            (Table::Apps, "ba", Some("3")),
            (Table::Apps, "c", Some("")),
            (Table::Links, "a", Some("other table")),
        ]);
        assert_eq!(get(Table::Apps, "a").unwrap(), b"1");
        assert_eq!(get(Table::Links, "a").unwrap(), b"other table");
        assert_eq!(get(Table::Apps, "c").unwrap(), b"", "empty is not absent");
        assert_eq!(keys("", 10), ["a", "b", "ba", "c"], "in the order of keys");
        assert_eq!(keys("b", 10), ["b", "ba"], "only what has the prefix");
        assert_eq!(keys("", 2), ["a", "b"], "no more than the limit");
        let after = |key, pairs, bytes| -> Vec<String> {
            let snapshot = engine.snapshot().unwrap();
            let pairs = snapshot.after(Table::Apps, key, Page { pairs, bytes });
            pairs.unwrap().into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(
            after("", 9, 99),
            ["a", "b", "ba", "c"],
            "all, and of one table"
        );
        assert_eq!(after("b", 1, 99), ["ba"], "what comes next");
        assert_eq!(after("bb", 9, 99), ["c"], "also of a key that is not there");
        assert!(after("c", 9, 99).is_empty());
        assert_eq!(after("", 9, 3), ["a", "b"], "no more than the bytes want");
        assert_eq!(after("", 9, 1), ["a"], "one at least");

        let before = engine.snapshot().unwrap();
        commit(&[
            (Table::Apps, "a", Some("new")),
            (Table::Apps, "b", None),
            (Table::Apps, "missing", None),
        ]);
        let old = |key| before.get(Table::Apps, key).unwrap();
        assert_eq!(old("a").unwrap(), b"1", "a snapshot does not move");
        assert_eq!(old("b").unwrap(), b"2");
        assert_eq!(get(Table::Apps, "a").unwrap(), b"new");
        assert_eq!(get(Table::Apps, "b"), None);

        engine.heal().unwrap();
        assert_eq!(get(Table::Apps, "a").unwrap(), b"new");
    }
}
