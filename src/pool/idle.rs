//! What is kept until it is needed again, in the order in which it was put there.

/// A list by age with a place for each entry, from which any can be taken at the same cost.
#[derive(Debug)]
pub(super) struct Idle<T> {
    slots: Vec<Slot<T>>,
    empty: Vec<Place>,
    oldest: Option<Place>,
    newest: Option<Place>,
}

/// Where an entry is kept, until it is taken.
pub(super) type Place = usize;

#[derive(Debug)]
struct Slot<T> {
    kept: Option<T>,
    older: Option<Place>,
    newer: Option<Place>,
}

impl<T> Idle<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            empty: Vec::new(),
            oldest: None,
            newest: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.empty.len()
    }

    /// Keeps an entry: it is the newest.
    pub(super) fn put(&mut self, kept: T) -> Place {
        let slot = Slot {
            kept: Some(kept),
            older: self.newest,
            newer: None,
        };
        let place = match self.empty.pop() {
            Some(place) => {
                self.slots[place] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        match self.newest.replace(place) {
            Some(newest) => self.slots[newest].newer = Some(place),
            None => self.oldest = Some(place),
        }
        place
    }

    /// Takes what is kept at `place`.
    pub(super) fn take(&mut self, place: Place) -> Option<T> {
        let slot = &mut self.slots[place];
        let kept = slot.kept.take()?;
        let (older, newer) = (slot.older, slot.newer);
        match older {
            Some(older) => self.slots[older].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.slots[newer].older = older,
            None => self.newest = older,
        }
        self.empty.push(place);
        Some(kept)
    }

    /// Takes what has been kept for longest.
    pub(super) fn take_oldest(&mut self) -> Option<T> {
        self.take(self.oldest?)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        self.slots[place].kept.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put,
        Take(usize),
        TakeOldest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Put),
            2 => (0..20_usize).prop_map(Step::Take),
            1 => Just(Step::TakeOldest),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_taken_the_rest_stays_in_the_order_of_its_age(
            steps in prop::collection::vec(step(), 0..60)
        ) {
            let mut idle = Idle::new();
            // What is kept and where, oldest first.
            let mut expected: Vec<(usize, Place)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put => expected.push((number, idle.put(number))),
                    Step::Take(nth) if nth < expected.len() => {
                        let (kept, place) = expected.remove(nth);
                        prop_assert_eq!(idle.take(place), Some(kept));
                    }
                    Step::Take(_) => {}
                    Step::TakeOldest => {
                        let oldest = (!expected.is_empty()).then(|| expected.remove(0).0);
                        prop_assert_eq!(idle.take_oldest(), oldest);
                    }
                }
                prop_assert_eq!(idle.len(), expected.len());
            }
            while let Some(oldest) = idle.take_oldest() {
                prop_assert_eq!(oldest, expected.remove(0).0);
            }
            prop_assert!(expected.is_empty());
            // Room is used again.
            prop_assert!(idle.slots.len() <= 60);
        }
    }
}
