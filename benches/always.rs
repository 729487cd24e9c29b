//! A resolver without an API, for what is measured behind one.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use m3o_ingress::id::WorkloadId;
use m3o_ingress::resolve::{self, Backend, Cache, Cached, Resolve, Workload, WorkloadKind};
use m3o_ingress::telemetry::metrics::Metrics;

/// Knows one backend, whatever it is asked.
pub(crate) struct Always;

impl Resolve for Always {
    fn is_local(&self) -> bool {
        false
    }

    fn generation(&self) -> u64 {
        0
    }

    async fn resolve(&self, _: Workload) -> Result<Backend, resolve::Error> {
        Ok(backend())
    }
}

pub(crate) fn backend() -> Backend {
    Backend::parse("http://10.0.0.7:3000/base").expect("a valid URL")
}

/// A cache that has been asked for the app before, and once more, so that what is made at the first
/// look-up is not counted.
pub(crate) fn filled_cache() -> (Cached<Always>, Workload) {
    let config = resolve::Config {
        fresh: Duration::from_secs(3600),
        ..resolve::Config::default()
    };
    let cache = Cache::new(config, Metrics::new());
    let cached = Cached::new(cache, Rc::new(Always), TaskTracker::new());
    let blog = Workload {
        kind: WorkloadKind::App,
        id: WorkloadId::parse("blog").expect("a valid id"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    for _ in 0..2 {
        let filled = LocalSet::new().block_on(&runtime, cached.resolve(blog));
        filled.expect("the resolver knows it");
    }
    (cached, blog)
}
