//! How many frames of one kind a client may send: so many at once, and then so many a second.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of it. The clock is looked at only when nothing is.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Allowance {
    /// `most` at once, and `per_second` after that.
    pub(super) fn new(most: u32, per_second: u32) -> Self {
        Self {
            left: most,
            most,
            per_second,
            filled: Instant::now(),
        }
    }

    /// Takes one; false where there is none.
    pub(super) fn take(&mut self) -> bool {
        if self.left == 0 {
            self.fill();
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives `more`, for work that was worth it.
    pub(super) fn give(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.most);
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let waited = now.saturating_duration_since(self.filled);
        let whole = waited.as_millis() * u128::from(self.per_second) / 1000;
        let more = u32::try_from(whole).unwrap_or(u32::MAX);
        if more > 0 {
            // What was too little for one more still counts.
            let used = Duration::from_secs(u64::from(more)) / self.per_second.max(1);
            self.filled += used.min(waited);
            self.give(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut Allowance) -> usize {
        std::iter::from_fn(|| allowance.take().then_some(())).count()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_then_so_many_a_second() {
        let mut allowance = Allowance::new(100, 10);
        assert_eq!(taken(&mut allowance), 100);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(taken(&mut allowance), 0);
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(taken(&mut allowance), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(taken(&mut allowance), 20);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&mut allowance), 100);
        allowance.give(7);
        assert_eq!(taken(&mut allowance), 7);
    }
}
