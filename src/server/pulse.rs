//! Whether a thread still gets round to its work, seen from another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The beats of one thread. A clone is another view of the same ones.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// It got round to it once more.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Feels the pulse of several threads now and then.
#[derive(Debug)]
pub struct Pulses(Vec<(Pulse, u64)>);

impl Pulses {
    /// Those of `pulses`, as they are now.
    #[must_use]
    pub fn new(pulses: impl IntoIterator<Item = Pulse>) -> Self {
        let counted = |pulse: Pulse| {
            let beats = pulse.beats();
            (pulse, beats)
        };
        Self(pulses.into_iter().map(counted).collect())
    }

    /// How many have not beaten since this was asked last.
    pub fn still(&mut self) -> usize {
        let mut still = 0;
        for (pulse, last) in &mut self.0 {
            let now = pulse.beats();
            still += usize::from(now == *last);
            *last = now;
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_beat_is_still() {
        let (one, two) = (Pulse::default(), Pulse::default());
        let mut pulses = Pulses::new([one.clone(), two.clone()]);
        one.beat();
        two.beat();
        assert_eq!(pulses.still(), 0);
        one.beat();
        assert_eq!(pulses.still(), 1);
        assert_eq!(pulses.still(), 2);
    }
}
