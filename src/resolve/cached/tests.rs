use std::cell::{Cell, RefCell};

use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;
use crate::id::WorkloadId;
use crate::resolve::WorkloadKind;
use crate::upstream;

/// Answers what the test says, when the test says so.
struct Script {
    generation: Cell<u64>,
    calls: Cell<usize>,
    answer: RefCell<Box<dyn Fn() -> Result<Backend, Error>>>,
    gate: Notify,
    gated: Cell<bool>,
    local: Cell<bool>,
}

impl Resolve for Script {
    fn is_local(&self) -> bool {
        self.local.get()
    }

    fn generation(&self) -> u64 {
        self.generation.get()
    }

    async fn resolve(&self, _workload: Workload) -> Result<Backend, Error> {
        self.calls.set(self.calls.get() + 1);
        let answer = (self.answer.borrow())();
        if self.gated.get() {
            self.gate.notified().await;
        }
        answer
    }
}

struct Scene {
    script: Rc<Script>,
    cached: Rc<Cached<Script>>,
}

fn scene() -> Scene {
    scene_with(10_000)
}

fn scene_with(capacity: u64) -> Scene {
    let config = Config {
        fresh: Duration::from_secs(60),
        stale: Duration::from_secs(600),
        error: Duration::from_secs(24 * 3600),
        negative: Duration::from_secs(5),
        capacity,
        lookups: 100,
    };
    let script = Rc::new(Script {
        generation: Cell::new(0),
        calls: Cell::new(0),
        answer: RefCell::new(Box::new(|| Ok(backend("one")))),
        gate: Notify::new(),
        gated: Cell::new(false),
        local: Cell::new(false),
    });
    let cache = Cache::new(config, Metrics::new());
    let cached = Cached::new(cache, Rc::clone(&script), TaskTracker::new());
    Scene {
        script,
        cached: Rc::new(cached),
    }
}

impl Scene {
    fn answers(&self, answer: impl Fn() -> Result<Backend, Error> + 'static) {
        *self.script.answer.borrow_mut() = Box::new(answer);
    }

    async fn ask(&self) -> (String, CacheResult) {
        match self.cached.resolve(workload("blog")).await {
            Ok(found) => (found.backend().origin().host().to_owned(), found.cache),
            Err((error, cache)) => (error.to_string(), cache),
        }
    }

    async fn check(&self, text: &str, cache: CacheResult, calls: usize) {
        assert_eq!(self.ask().await, (text.to_owned(), cache));
        settle().await;
        assert_eq!(self.script.calls.get(), calls, "calls of the API");
    }
}

fn backend(host: &str) -> Backend {
    Backend::parse(&format!("http://{host}/")).unwrap()
}

fn workload(id: &str) -> Workload {
    Workload {
        kind: WorkloadKind::App,
        id: WorkloadId::parse(id).unwrap(),
    }
}

fn down() -> Result<Backend, Error> {
    Err(upstream::Error::Unavailable(http::StatusCode::SERVICE_UNAVAILABLE).into())
}

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

const DOWN: &str = "the API answered 503 Service Unavailable";
const UNKNOWN: &str = "no such app or function";
const BUSY: &str = "too many questions to the API at once";

macro_rules! local_test {
    ($name:ident, $body:expr) => {
        #[tokio::test(start_paused = true)]
        async fn $name() {
            LocalSet::new().run_until($body).await;
        }
    };
}

local_test!(a_backend_is_asked_for_once_while_it_is_fresh, async {
    let scene = scene();
    scene.check("one", CacheResult::Miss, 1).await;
    pass(59).await;
    scene.check("one", CacheResult::Fresh, 1).await;
});

local_test!(
    a_stale_backend_is_served_while_one_call_refreshes_it,
    async {
        let scene = scene();
        scene.check("one", CacheResult::Miss, 1).await;
        scene.answers(|| Ok(backend("two")));
        scene.script.gated.set(true);
        pass(61).await;
        scene.check("one", CacheResult::Stale, 2).await;
        scene.check("one", CacheResult::Stale, 2).await;
        scene.script.gate.notify_waiters();
        settle().await;
        scene.check("two", CacheResult::Fresh, 2).await;
    }
);

local_test!(an_old_backend_is_served_while_the_api_fails, async {
    let scene = scene();
    scene.check("one", CacheResult::Miss, 1).await;
    scene.answers(down);
    pass(3600).await;
    scene.check("one", CacheResult::Rescued, 2).await;
    // Nobody waits again for an API that was down a moment ago.
    scene.check("one", CacheResult::Rescued, 2).await;
    pass(2).await;
    scene.check("one", CacheResult::Rescued, 3).await;
    scene.answers(|| Ok(backend("two")));
    pass(2).await;
    scene.check("one", CacheResult::Rescued, 4).await;
    scene.check("two", CacheResult::Fresh, 4).await;
});

local_test!(a_backend_older_than_the_error_window_is_not_served, async {
    let scene = scene();
    scene.check("one", CacheResult::Miss, 1).await;
    scene.answers(down);
    pass(25 * 3600).await;
    scene.check(DOWN, CacheResult::Miss, 2).await;
});

local_test!(a_missing_app_is_remembered_for_a_moment, async {
    let scene = scene();
    scene.answers(|| Err(Error::Unknown));
    scene.check(UNKNOWN, CacheResult::Miss, 1).await;
    pass(4).await;
    scene.check(UNKNOWN, CacheResult::Negative, 1).await;
    scene.answers(|| Ok(backend("one")));
    pass(2).await;
    scene.check("one", CacheResult::Miss, 2).await;
});

local_test!(an_error_is_never_remembered_as_missing, async {
    let scene = scene();
    scene.answers(down);
    scene.check(DOWN, CacheResult::Miss, 1).await;
    scene.check(DOWN, CacheResult::Miss, 2).await;
    scene.answers(|| Ok(backend("one")));
    scene.check("one", CacheResult::Miss, 3).await;
});

local_test!(an_app_that_was_deleted_is_not_rescued, async {
    let scene = scene();
    scene.check("one", CacheResult::Miss, 1).await;
    scene.answers(|| Err(Error::Unknown));
    pass(700).await;
    scene.check(UNKNOWN, CacheResult::Miss, 2).await;
});

local_test!(one_call_answers_all_who_wait, async {
    for missing in [false, true] {
        let scene = Rc::new(scene());
        if missing {
            scene.answers(|| Err(Error::Unknown));
        }
        scene.script.gated.set(true);
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let scene = Rc::clone(&scene);
                tokio::task::spawn_local(async move { scene.ask().await.0 })
            })
            .collect();
        settle().await;
        scene.script.gate.notify_waiters();
        for asked in asking {
            let expected = if missing { UNKNOWN } else { "one" };
            assert_eq!(asked.await.unwrap(), expected);
        }
        assert_eq!(scene.script.calls.get(), 1);
    }
});

local_test!(
    the_others_are_answered_when_the_first_who_asked_leaves,
    async {
        let scene = Rc::new(scene());
        scene.script.gated.set(true);
        let asking = |scene: &Rc<Scene>| {
            let scene = Rc::clone(scene);
            tokio::task::spawn_local(async move { scene.ask().await.0 })
        };
        let first = asking(&scene);
        settle().await;
        let second = asking(&scene);
        settle().await;
        first.abort();
        settle().await;
        scene.script.gate.notify_waiters();
        assert_eq!(second.await.unwrap(), "one");
        assert_eq!(scene.script.calls.get(), 1);
    }
);

local_test!(
    a_call_that_crashes_fails_those_who_wait_and_no_one_after_them,
    async {
        let scene = scene();
        scene.answers(|| panic!("on purpose"));
        scene
            .check("the call ended without an answer", CacheResult::Miss, 1)
            .await;
        assert_eq!(scene.cached.cache.metrics.panics.get(), 1);
        assert!(scene.cached.cache.flights().is_empty());
        scene.answers(|| Ok(backend("one")));
        scene.check("one", CacheResult::Miss, 2).await;
    }
);

local_test!(a_write_is_seen_by_the_very_next_request, async {
    let scene = scene();
    scene.check("one", CacheResult::Miss, 1).await;
    scene.answers(|| Err(Error::Unknown));
    scene.script.generation.set(1);
    scene.check(UNKNOWN, CacheResult::Miss, 2).await;
    scene.answers(|| Ok(backend("two")));
    scene.script.generation.set(2);
    scene.check("two", CacheResult::Miss, 3).await;
});

local_test!(
    an_answer_asked_for_before_a_write_is_not_believed_after_it,
    async {
        let scene = Rc::new(scene());
        scene.script.gated.set(true);
        let slow = {
            let scene = Rc::clone(&scene);
            tokio::task::spawn_local(async move { scene.ask().await.0 })
        };
        settle().await;
        // The write happens while the first answer is under way.
        scene.script.generation.set(1);
        scene.answers(|| Ok(backend("two")));
        scene.script.gated.set(false);
        scene.check("two", CacheResult::Miss, 2).await;
        scene.script.gate.notify_waiters();
        assert_eq!(slow.await.unwrap(), "one");
        scene.check("two", CacheResult::Fresh, 2).await;
    }
);

local_test!(made_up_names_do_not_push_known_apps_out, async {
    let scene = scene_with(100);
    scene.check("one", CacheResult::Miss, 1).await;
    scene.answers(|| Err(Error::Unknown));
    for number in 0..1000 {
        let made_up = workload(&format!("made-up-{number}"));
        assert!(scene.cached.resolve(made_up).await.is_err());
    }
    assert!(scene.cached.cache.unknown.len() <= 100);
    assert_eq!(scene.ask().await, ("one".to_owned(), CacheResult::Fresh));
});

local_test!(
    strangers_fill_their_places_at_the_api_and_no_others,
    async {
        let scene = scene();
        scene.check("one", CacheResult::Miss, 1).await;
        scene.script.gated.set(true);
        pass(61).await;
        let ask = |name: String| {
            let cached = Rc::clone(&scene.cached);
            tokio::task::spawn_local(async move {
                let error = cached.resolve(workload(&name)).await.err();
                error.map(|(error, _)| error.to_string())
            })
        };
        let waiting: Vec<_> = (0..100)
            .map(|name| ask(format!("made-up-{name}")))
            .collect();
        settle().await;
        assert_eq!(scene.script.calls.get(), 101);
        for name in ["one-more", "and-another"] {
            let turned_away = ask(name.to_owned()).await.unwrap();
            assert_eq!(turned_away.as_deref(), Some(BUSY));
        }
        // Whoever names one that is asked about already waits with the others.
        let joined = ask("made-up-7".to_owned());
        scene.check("one", CacheResult::Stale, 102).await;
        scene.script.gate.notify_waiters();
        settle().await;
        for asked in waiting.into_iter().chain([joined]) {
            assert_eq!(asked.await.unwrap(), None);
        }
        assert!(scene.cached.cache.flights().is_empty());
        scene.script.gated.set(false);
        assert_eq!(ask("one-more".to_owned()).await.unwrap(), None);
    }
);

local_test!(a_known_app_goes_on_while_the_api_takes_no_question, async {
    let scene = scene();
    scene.check("one", CacheResult::Miss, 1).await;
    scene.script.gated.set(true);
    pass(3600).await;
    for flight in 0..200 {
        let known = Rc::clone(&scene.cached);
        let name = workload(&format!("app-{flight}"));
        drop(known.launch(name, 0, Asker::Refresh));
    }
    settle().await;
    scene.check("one", CacheResult::Rescued, 101).await;
});

local_test!(
    known_apps_fill_their_places_at_the_api_and_no_others,
    async {
        let scene = Rc::new(scene());
        let known = |name| workload(&format!("app-{name}"));
        for name in 0..150 {
            assert!(scene.cached.resolve(known(name)).await.is_ok());
        }
        scene.script.gated.set(true);
        pass(61).await;
        for name in 0..150 {
            let found = scene.cached.resolve(known(name)).await.unwrap();
            assert_eq!(found.cache, CacheResult::Stale);
        }
        settle().await;
        assert_eq!(scene.script.calls.get(), 150 + 100);
        let new = {
            let scene = Rc::clone(&scene);
            tokio::task::spawn_local(async move { scene.ask().await })
        };
        settle().await;
        assert_eq!(scene.script.calls.get(), 150 + 100 + 1);
        scene.script.gate.notify_waiters();
        assert_eq!(new.await.unwrap(), ("one".to_owned(), CacheResult::Miss));
        // Their places are free again.
        let last = scene.cached.resolve(known(149)).await.unwrap();
        assert_eq!(last.cache, CacheResult::Stale);
        settle().await;
        assert_eq!(scene.script.calls.get(), 150 + 100 + 1 + 1);
    }
);

local_test!(
    a_question_that_could_not_be_asked_brings_nothing_back_from_before_a_write,
    async {
        let scene = scene();
        scene.check("one", CacheResult::Miss, 1).await;
        scene.script.gated.set(true);
        scene.script.generation.set(1);
        for flight in 0..200 {
            let name = workload(&format!("app-{flight}"));
            drop(scene.cached.launch(name, 1, Asker::Refresh));
        }
        settle().await;
        let calls = scene.script.calls.get();
        scene.check(BUSY, CacheResult::Miss, calls).await;
    }
);

local_test!(
    a_write_is_seen_however_many_questions_are_under_way_in_this_process,
    async {
        let scene = scene();
        scene.script.local.set(true);
        scene.check("one", CacheResult::Miss, 1).await;
        scene.script.gated.set(true);
        scene.script.generation.set(1);
        let waiting: Vec<_> = (0..500)
            .map(|name| {
                let cached = Rc::clone(&scene.cached);
                let name = workload(&format!("made-up-{name}"));
                tokio::task::spawn_local(async move { cached.resolve(name).await.is_ok() })
            })
            .collect();
        settle().await;
        assert_eq!(scene.script.calls.get(), 501);
        scene.answers(|| Ok(backend("two")));
        scene.script.gated.set(false);
        scene.check("two", CacheResult::Miss, 502).await;
        scene.script.gate.notify_waiters();
        for asked in waiting {
            assert!(asked.await.unwrap());
        }
    }
);

local_test!(requests_in_flight_are_counted_across_a_refresh, async {
    let scene = scene();
    let found = scene.cached.resolve(workload("blog")).await.unwrap();
    let first = found.load().enter(1, 1).unwrap();
    pass(61).await;
    let found = scene.cached.resolve(workload("blog")).await.unwrap();
    settle().await;
    assert!(found.load().enter(1, 1).is_err());
    let found = scene.cached.resolve(workload("blog")).await.unwrap();
    assert_eq!(found.cache, CacheResult::Fresh);
    assert!(found.load().enter(1, 1).is_err());
    drop(first);
    assert!(found.load().enter(1, 1).is_ok());
});

local_test!(requests_in_flight_are_counted_across_an_eviction, async {
    // A cache without room: each answer is pushed out as soon as it is there.
    let scene = scene_with(0);
    let ask = async || {
        let found = scene.cached.resolve(workload("blog")).await.unwrap();
        assert_eq!(found.cache, CacheResult::Miss);
        Arc::clone(found.load())
    };
    let first = ask().await.enter(1, 1).unwrap();
    assert!(ask().await.enter(1, 1).is_err());
    drop(first);
    assert!(ask().await.enter(1, 1).is_ok());
});
