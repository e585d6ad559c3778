//! When to try again (RFC 5321 §4.5.4.1).

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Retry;

/// How long to wait after the attempt with this number, the first being 1.
///
/// That of the list, if there is one. Else the first delay is `base_delay` exactly; later ones grow by `multiplier`, vary
/// by `jitter`, and are never longer than `max_delay`.
pub fn delay(retry: &Retry, attempts: u32, rng: &mut fastrand::Rng) -> Duration {
    if let Some(delays) = &retry.delays {
        return delays.after(attempts);
    }
    if attempts <= 1 {
        return retry.base_delay.min(retry.max_delay);
    }
    let exponent = i32::try_from(attempts - 1).unwrap_or(i32::MAX);
    let max = retry.max_delay.as_secs_f64();
    let growing = (retry.base_delay.as_secs_f64() * retry.multiplier.powi(exponent)).min(max);
    let varied = growing * (1.0 + retry.jitter * (rng.f64() * 2.0 - 1.0));
    Duration::try_from_secs_f64(varied.min(max)).unwrap_or(retry.max_delay)
}

/// The same moment later; at the end of time it stays there.
pub fn after(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_retry_comes_after_the_first_delay_exactly() {
        let retry = Retry { jitter: 0.9, ..Retry::default() };
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            assert_eq!(delay(&retry, 1, &mut rng), retry.base_delay);
        }
    }

    #[test]
    fn without_jitter_delays_double_up_to_the_longest() {
        let retry = Retry { jitter: 0.0, ..Retry::default() };
        let mut rng = fastrand::Rng::with_seed(0);
        let minutes: Vec<_> = (1..=13).map(|n| delay(&retry, n, &mut rng).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
    }

    proptest! {
        #[test]
        fn every_delay_is_within_its_jitter_and_the_longest(attempts in 2_u32..=u32::MAX, seed: u64) {
            let retry = Retry::default();
            let mut rng = fastrand::Rng::with_seed(seed);
            let waited = delay(&retry, attempts, &mut rng).as_secs_f64();
            let exponent = i32::try_from(attempts - 1).unwrap_or(i32::MAX);
            let middle = (60.0 * 2.0_f64.powi(exponent)).min(86_400.0);
            prop_assert!(waited >= middle * 0.8 - 0.001);
            prop_assert!(waited <= (middle * 1.2 + 0.001).min(86_400.0));
        }
    }

    #[test]
    fn jitter_spreads_messages_that_failed_together() {
        let mut rng = fastrand::Rng::with_seed(7);
        let delays: std::collections::BTreeSet<_> =
            (0..50).map(|_| delay(&Retry::default(), 5, &mut rng)).collect();
        assert!(delays.len() > 40);
    }
}
