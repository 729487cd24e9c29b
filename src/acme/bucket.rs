//! How often something may happen in a time: a bucket of tokens that fills by and by.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// So many times in a period.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) times: u32,
    pub(super) period: Duration,
}

/// One bucket, kept as the moment when it is full again (GCRA).
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    full: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        if rate.times == 0 {
            return false;
        }
        let full = self.full.max(now) + rate.period / rate.times;
        let fits = full <= now + rate.period;
        if fits {
            self.full = full;
        }
        fits
    }

    /// Gives the token back.
    pub(super) fn give_back(&mut self, rate: Rate) {
        let one = rate.period / rate.times.max(1);
        self.full = self.full.checked_sub(one).unwrap_or(self.full);
    }
}

/// A bucket for each of many.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    buckets: HashMap<K, Bucket>,
}

/// Buckets that are kept at most. A full one need not be.
const MOST: usize = 10_000;

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new() -> Self {
        Self {
            buckets: HashMap::new(),
        }
    }

    /// Takes a token of `key`, if there is one, and room to remember that.
    pub(super) fn take(&mut self, key: K, rate: Rate, now: Instant) -> bool {
        if self.buckets.len() >= MOST && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| bucket.full > now);
            if self.buckets.len() >= MOST {
                return false;
            }
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket::new(now));
        bucket.take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        times: 3,
        period: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_tokens_at_once_and_then_one_at_a_time() {
        let mut bucket = Bucket::new(Instant::now());
        let take = |bucket: &mut Bucket| bucket.take(RATE, Instant::now());
        for _ in 0..3 {
            assert!(take(&mut bucket));
        }
        assert!(!take(&mut bucket));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(take(&mut bucket));
        assert!(!take(&mut bucket));
        bucket.give_back(RATE);
        assert!(take(&mut bucket));
        tokio::time::advance(Duration::from_secs(3600)).await;
        for _ in 0..3 {
            assert!(take(&mut bucket));
        }
        assert!(!take(&mut bucket), "no more than full");
        let never = Rate { times: 0, ..RATE };
        assert!(!Bucket::new(Instant::now()).take(never, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own_and_there_are_not_more_than_so_many() {
        let mut buckets = Buckets::new();
        let now = Instant::now();
        for key in 0..MOST {
            assert!(buckets.take(key, RATE, now));
        }
        assert!(!buckets.take(MOST, RATE, now), "no room");
        assert!(buckets.take(1, RATE, now));
        let later = now + RATE.period;
        assert!(buckets.take(MOST, RATE, later));
        assert!(buckets.buckets.len() < MOST);
    }
}
