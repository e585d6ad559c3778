//! How many connections a destination bears.

/// The size of a window that nothing is known about.
const START: usize = 2;

/// Successes for each connection of a window before one more is tried, when it was once too large.
const PATIENCE: usize = 16;

/// How many connections a lane may have: it grows with success while there is more to do, and shrinks when the destination
/// doesn't bear them. Never less than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    size: usize,
    /// Successes since it grew or shrank.
    successes: usize,
    /// It was too large once: from then on it grows slowly.
    careful: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: START, successes: 0, careful: false }
    }
}

impl Window {
    /// Most connections, of which the configuration allows `max`.
    pub(super) fn size(&self, max: usize) -> usize {
        self.size.min(max).max(1)
    }

    /// A message went through, while more wait than `connections` can take.
    pub(super) fn succeed(&mut self, connections: usize, max: usize) {
        if connections < self.size || self.size >= max {
            return;
        }
        self.successes += 1;
        if !self.careful || self.successes >= PATIENCE.saturating_mul(self.size) {
            (self.size, self.successes) = (self.size + 1, 0);
        }
    }

    /// A connection failed, while there were so many. Two are left: a recipient whose host never answers must not hold up
    /// the others.
    pub(super) fn fail(&mut self, connections: usize) {
        self.shrink((self.size.min(connections) / 2).max(START.min(self.size)));
    }

    /// The destination wants no more than `others` connections at present.
    pub(super) fn turn_away(&mut self, others: usize) {
        self.shrink(self.size.min(others));
    }

    fn shrink(&mut self, size: usize) {
        *self = Self { size: size.max(1), successes: 0, careful: true };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The size after so many successes with all connections in use.
    fn after(mut window: Window, successes: usize, max: usize) -> usize {
        for _ in 0..successes {
            window.succeed(window.size(max), max);
        }
        window.size(max)
    }

    #[test]
    fn it_starts_small_and_grows_with_each_success_up_to_the_configured() {
        let sizes = [0, 1, 2, 3, 4, 100].map(|successes| after(Window::default(), successes, 5));
        assert_eq!(sizes, [2, 3, 4, 5, 5, 5]);
        assert_eq!(after(Window::default(), 100, 1), 1);
    }

    #[test]
    fn it_does_not_grow_while_connections_are_left() {
        let mut window = Window::default();
        for _ in 0..100 {
            window.succeed(1, 10);
        }
        assert_eq!(window.size(10), 2);
    }

    #[test]
    fn what_fails_halves_it_and_it_grows_slowly_from_then_on() {
        let mut window = Window { size: 8, ..Window::default() };
        window.fail(8);
        assert_eq!(window.size(10), 4);
        assert_eq!([63, 64, 64 + 79, 64 + 80].map(|n| after(window, n, 10)), [4, 5, 5, 6]);
        for _ in 0..10 {
            window.fail(8);
        }
        assert_eq!(window.size(10), START);
        // One that was too many stays away.
        window.turn_away(1);
        window.fail(8);
        assert_eq!(window.size(10), 1);
    }

    #[test]
    fn who_is_turned_away_leaves_as_many_as_there_are() {
        let mut window = Window { size: 6, ..Window::default() };
        window.turn_away(5);
        assert_eq!(window.size(10), 5);
        window.turn_away(0);
        assert_eq!(window.size(10), 1);
    }

    proptest! {
        #[test]
        fn it_is_never_empty_nor_larger_than_the_configured(
            steps in prop::collection::vec((0..3_u8, 0_usize..30), 0..200), max in 1_usize..20
        ) {
            let mut window = Window::default();
            for (step, connections) in steps {
                match step {
                    0 => window.succeed(connections, max),
                    1 => window.fail(connections),
                    _ => window.turn_away(connections),
                }
                prop_assert!((1..=max).contains(&window.size(max)));
            }
        }

        #[test]
        fn a_destination_that_bears_so_many_is_seldom_asked_for_more(bears in 2_usize..20, max in 20_usize..50) {
            let (mut window, mut refused, mut sent) = (Window::default(), 0, 0);
            while sent < 10_000 {
                if window.size(max) > bears {
                    refused += 1;
                    window.turn_away(bears);
                }
                sent += 1;
                window.succeed(window.size(max), max);
            }
            prop_assert!(refused * 20 <= sent, "{refused} of {sent}");
        }
    }
}
