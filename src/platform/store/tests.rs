//! What the store promises, on both engines.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::engine::Changes;
use super::memory::Memory;
use super::*;

fn memory() -> Store {
    Store::unwatched(Path::new("memory")).unwrap()
}

async fn put(store: &Store, table: Table, key: &'static str, value: &'static str) {
    let written = store.write(move |tx| {
        tx.put(table, key, &value);
        Ok::<_, Error>(())
    });
    written.await.unwrap();
}

fn get(store: &Store, table: Table, key: &str) -> Result<Option<String>, Error> {
    store.read()?.get(table, key)
}

#[tokio::test]
async fn a_write_is_seen_by_the_next_read_and_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::unwatched(&path).unwrap();
    put(&store, Table::Apps, "a", "1").await;
    assert_eq!(get(&store, Table::Apps, "a").unwrap().unwrap(), "1");
    drop(store);
    let store = Store::unwatched(&path).unwrap();
    assert_eq!(get(&store, Table::Apps, "a").unwrap().unwrap(), "1");
}

#[tokio::test]
async fn a_job_that_errs_leaves_nothing_behind() {
    let store = memory();
    let failed = store.write(|tx| {
        tx.put(Table::Apps, "a", &"1");
        Err::<(), _>(Error::Busy)
    });
    assert!(matches!(failed.await, Err(Error::Busy)));
    let panicked = store.write(|tx| -> Result<(), Error> {
        tx.put(Table::Apps, "a", &"1");
        panic!("a job that breaks");
    });
    assert!(matches!(panicked.await, Err(Error::Panicked)));
    assert_eq!(get(&store, Table::Apps, "a").unwrap(), None);
    assert_eq!(store.generation(), 0);
}

#[tokio::test]
async fn jobs_of_one_commit_see_each_other() {
    let store = memory();
    let add = || {
        store.write(|tx| {
            let count: u64 = tx.get(Table::Links, "count")?.unwrap_or_default();
            tx.put(Table::Links, "count", &(count + 1));
            tx.put(Table::Links, &format!("seen-{count:03}"), &());
            tx.delete(Table::Links, &format!("seen-{:03}", count.wrapping_sub(2)));
            let seen = tx.scan::<()>(Table::Links, "seen-", 10)?;
            Ok::<_, Error>(seen.len())
        })
    };
    let all = futures_util::future::join_all((0..500).map(|_| add())).await;
    assert_eq!(all[0].as_ref().unwrap(), &1);
    assert!(all[2..].iter().all(|seen| matches!(seen, Ok(2))));
    let count = store.read().unwrap().get(Table::Links, "count").unwrap();
    assert_eq!(count, Some(500_u64));
}

#[tokio::test]
async fn the_generation_rises_with_apps_and_functions_only() {
    let store = memory();
    put(&store, Table::Links, "a", "1").await;
    put(&store, Table::Users, "a", "1").await;
    assert_eq!(store.generation(), 0);
    put(&store, Table::Apps, "a", "1").await;
    assert_eq!(store.generation(), 1);
    put(&store, Table::Functions, "a", "1").await;
    assert_eq!(store.generation(), 2);
}

#[tokio::test]
async fn a_new_generation_is_never_read_with_old_data() {
    let store = Arc::new(memory());
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Relaxed) {
                let generation = store.generation();
                let value: Option<u64> = store.read().unwrap().get(Table::Apps, "n").unwrap();
                assert!(value.unwrap_or_default() >= generation);
            }
        }
    });
    for number in 1..=500_u64 {
        let written = store.write(move |tx| {
            tx.put(Table::Apps, "n", &number);
            Ok::<_, Error>(())
        });
        written.await.unwrap();
        assert_eq!(store.generation(), number);
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
}

#[tokio::test]
async fn a_damaged_record_is_an_error_that_names_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let engine = redb::Redb::open(&path).unwrap();
    let mut bytes = record::seal(Table::Apps, "blog", &"value");
    *bytes.last_mut().unwrap() ^= 1;
    let place = (Table::Apps, "blog".to_owned());
    engine
        .commit(&Changes::from([(place, Some(bytes))]))
        .unwrap();
    let store = Store::on(
        Arc::new(engine),
        Box::new(|_, _| Ok(())),
        &Series::default(),
    );

    let error = get(&store, Table::Apps, "blog").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the record apps/blog in {} is damaged", path.display())
    );
    let scanned = store.read().unwrap().scan::<String>(Table::Apps, "", 9);
    assert!(matches!(scanned, Err(Error::Damaged { .. })));
    let written = store.write(|tx| tx.get::<String>(Table::Apps, "blog").map(drop));
    assert!(matches!(written.await, Err(Error::Damaged { .. })));
}

/// Fails a commit on demand, and then everything until it is healed.
#[derive(Default)]
struct Flaky {
    memory: Memory,
    fail: AtomicBool,
    closed: AtomicBool,
}

impl Engine for Arc<Flaky> {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Fault> {
        if self.closed.load(Ordering::SeqCst) {
            return Err("closed".into());
        }
        self.memory.snapshot()
    }

    fn commit(&self, changes: &Changes) -> Result<(), Fault> {
        if self.fail.swap(false, Ordering::SeqCst) {
            self.closed.store(true, Ordering::SeqCst);
            return Err("no space left on device".into());
        }
        self.memory.commit(changes)
    }

    fn heal(&self) -> Result<(), Fault> {
        self.closed.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn let_go(&self) {}

    fn take_back(&self) {}

    fn is_let_go(&self) -> bool {
        false
    }

    fn place(&self) -> String {
        PathBuf::from("flaky").display().to_string()
    }
}

#[tokio::test]
async fn a_failed_commit_changes_nothing_and_the_engine_is_opened_again() {
    let engine = Arc::new(Flaky::default());
    let store = Store::on(
        Arc::new(Arc::clone(&engine)),
        Box::new(|_, _| Ok(())),
        &Series::default(),
    );
    put(&store, Table::Apps, "a", "1").await;
    engine.fail.store(true, Ordering::SeqCst);
    let failed = store.write(|tx| {
        tx.put(Table::Apps, "a", &"2");
        Ok::<_, Error>(())
    });
    assert!(matches!(failed.await, Err(Error::Unavailable)));
    put(&store, Table::Links, "b", "3").await;
    assert_eq!(get(&store, Table::Apps, "a").unwrap().unwrap(), "1");
    assert_eq!(get(&store, Table::Links, "b").unwrap().unwrap(), "3");
}

#[tokio::test]
async fn claims_are_shown_as_they_were_committed_before_the_write_is_answered() {
    let engine = Arc::new(Flaky::default());
    let seen = Arc::<std::sync::Mutex<Vec<(String, Option<String>)>>>::default();
    let refuse = Arc::<AtomicBool>::default();
    let watch: Watch = {
        let (seen, refuse) = (Arc::clone(&seen), Arc::clone(&refuse));
        Box::new(move |view, keys| {
            if refuse.swap(false, Ordering::SeqCst) {
                return Err(Error::Unavailable);
            }
            for key in keys {
                let value = view.get(Table::Domains, key)?;
                seen.lock().unwrap().push((key.clone(), value));
            }
            Ok(())
        })
    };
    let store = Store::on(Arc::new(Arc::clone(&engine)), watch, &Series::default());
    let taken = || std::mem::take(&mut *seen.lock().unwrap());
    let claim = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    put(&store, Table::Apps, "a", "1").await;
    assert!(taken().is_empty(), "of nobody's business");
    for value in ["1", "2", "3"] {
        put(&store, Table::Domains, "shop.example/a", value).await;
        assert_eq!(taken(), [claim("shop.example/a", value)]);
    }

    // A disk may have kept what it said it had not: it is looked at again.
    engine.fail.store(true, Ordering::SeqCst);
    let failed = store.write(|tx| {
        tx.delete(Table::Domains, "shop.example/a");
        Ok::<_, Error>(())
    });
    assert!(matches!(failed.await, Err(Error::Unavailable)));
    assert_eq!(taken(), [claim("shop.example/a", "3")]);

    // What could not be read is shown again with what comes next.
    refuse.store(true, Ordering::SeqCst);
    put(&store, Table::Domains, "b.example/a", "4").await;
    put(&store, Table::Domains, "c.example/a", "5").await;
    let mut shown = taken();
    shown.dedup();
    assert_eq!(
        shown,
        [claim("b.example/a", "4"), claim("c.example/a", "5")]
    );
}

#[tokio::test]
async fn a_store_that_was_let_go_is_another_processs_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::unwatched(&path).unwrap();
    let write = async |store: &Store, value: &'static str| {
        let written = store.write(move |tx| {
            tx.put(Table::Links, "kept", &value);
            Ok::<_, Error>(())
        });
        written.await
    };
    let read = |store: &Store| store.read()?.get::<String>(Table::Links, "kept");
    write(&store, "1").await.unwrap();
    let before = store.generation();
    let held = store.read().unwrap();
    store.let_go();
    assert!(matches!(write(&store, "2").await, Err(Error::Unavailable)));
    assert!(matches!(read(&store), Err(Error::Unavailable)));

    // As the process that follows does, also while somebody here still holds an old view.
    let nobody_follows = Box::new(|_: &View<'_>, _: &BTreeSet<String>| Ok(()));
    let next = Store::open(&path, nobody_follows, Look::Again, &Series::default()).unwrap();
    assert_eq!(read(&next).unwrap().unwrap(), "1");
    write(&next, "3").await.unwrap();
    assert!(
        Store::unwatched(&path).is_err(),
        "the next one has it alone"
    );
    drop((held, next));

    store.take_back().await;
    assert_eq!(read(&store).unwrap().unwrap(), "3");
    assert!(store.generation() > before, "another may have written");
    write(&store, "4").await.unwrap();
    assert_eq!(read(&store).unwrap().unwrap(), "4");
}

#[tokio::test]
async fn a_store_that_cannot_be_taken_back_at_once_is_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::unwatched(&path).unwrap();
    store.let_go();
    let other = Store::unwatched(&path).unwrap();
    store.take_back().await;
    assert!(store.read().is_err());
    drop(other);
    let written = store.write(|_| Ok::<_, Error>(()));
    written.await.unwrap();
    assert!(store.read().is_ok());
}
