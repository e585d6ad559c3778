//! Token buckets: how many messages may start in a time.
//!
//! A bucket is the moment when it will be full again (the generic cell rate algorithm): what it holds follows from that
//! and the time. Buckets of our own, because a message needs a token of its domain and one of everybody's, both or none,
//! and a lane has to know when the next one is there; the well-known crates can only take.

use std::{collections::HashMap, time::Duration};

use empath_common::Domain;
use jiff::Timestamp;

use crate::schedule;

/// A token every so often, and how many may be saved up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time between two tokens.
    pub interval: Duration,
    /// Most tokens in the bucket; at least one.
    pub burst: u32,
}

impl Rate {
    /// So many messages in `period`. `None` if there are none, or none could be.
    pub fn new(messages: u32, period: Duration, burst: u32) -> Option<Self> {
        let interval = period.checked_div(messages)?;
        Some(Self { interval, burst: burst.max(1) })
    }
}

/// Tokens that come at a rate. It starts full.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    full_at: Timestamp,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: Timestamp::MIN }
    }

    /// When the next token is there; `None` when there is one.
    fn next_token(&mut self, now: Timestamp) -> Option<Timestamp> {
        let Rate { interval, burst } = self.rate;
        // An empty bucket is full after this time. It is no emptier than that after its rate was raised, or the clock was set
        // back. That is remembered: from each later moment it would be later.
        self.full_at = self.full_at.min(schedule::after(now, interval.saturating_mul(burst)));
        let next = self.full_at.checked_sub(interval.saturating_mul(burst - 1)).unwrap_or(Timestamp::MIN);
        (next > now).then_some(next)
    }

    fn take(&mut self, now: Timestamp) {
        let Rate { interval, burst } = self.rate;
        let empty = schedule::after(now, interval.saturating_mul(burst));
        self.full_at = schedule::after(self.full_at.max(now), interval).min(empty);
    }

    /// As if a token had not been taken.
    fn give_back(&mut self) {
        self.full_at = self.full_at.checked_sub(self.rate.interval).unwrap_or(Timestamp::MIN);
    }
}

/// The buckets of all domains that are limited, and that of all mail together.
#[derive(Debug)]
pub(super) struct Limiter {
    global: Option<Bucket>,
    domains: HashMap<Domain, Bucket>,
    /// Full buckets are dropped when there are so many.
    crowd: usize,
}

/// So many buckets are kept without a look at whether they are full.
const CROWD: usize = 1024;

impl Limiter {
    pub(super) fn new(global: Option<Rate>) -> Self {
        Self { global: global.map(Bucket::new), domains: HashMap::new(), crowd: CROWD }
    }

    /// From now on there is this limit for all mail together. What was taken counts.
    pub(super) fn limit(&mut self, global: Option<Rate>) {
        let before = self.global;
        self.global = global.map(|rate| Bucket { rate, ..before.unwrap_or(Bucket::new(rate)) });
    }

    /// Whether there is a limit for all mail together.
    pub(super) fn is_global(&self) -> bool {
        self.global.is_some()
    }

    /// When the next token for any mail is there; `None` when there is one.
    pub(super) fn next_token(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.global.as_mut()?.next_token(now)
    }

    /// The same, just to look.
    pub(super) fn look(&self, now: Timestamp) -> Option<Timestamp> {
        self.global?.next_token(now)
    }

    /// Takes one of the tokens for all mail.
    pub(super) fn take(&mut self, now: Timestamp) {
        if let Some(global) = &mut self.global {
            global.take(now);
        }
    }

    /// Gives a token back that nobody used, and that of a domain.
    pub(super) fn give_back(&mut self, domain: Option<&Domain>) {
        let domain = domain.and_then(|domain| self.domains.get_mut(domain));
        self.global.iter_mut().chain(domain).for_each(Bucket::give_back);
    }

    /// When the next token of a domain is there; `None` when there is one.
    pub(super) fn next_token_of(&mut self, domain: &Domain, rate: Rate, now: Timestamp) -> Option<Timestamp> {
        let bucket = self.domains.get_mut(domain)?;
        bucket.rate = rate;
        bucket.next_token(now)
    }

    /// Takes one of the tokens of a domain.
    pub(super) fn take_of(&mut self, domain: &Domain, rate: Rate, now: Timestamp) {
        if self.domains.len() >= self.crowd && !self.domains.contains_key(domain) {
            // A full bucket is like none. The rest is bounded by the mail that went out in the time it takes to fill.
            self.domains.retain(|_, bucket| bucket.full_at > now);
            self.crowd = CROWD.max(self.domains.len() * 2);
        }
        let bucket = match self.domains.get_mut(domain) {
            Some(bucket) => bucket,
            None => self.domains.entry(domain.clone()).or_insert(Bucket::new(rate)),
        };
        bucket.rate = rate;
        bucket.take(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn domain(number: usize) -> Domain {
        format!("d{number}.test").parse().unwrap()
    }

    /// Messages, seconds, burst, moments, and what is taken at each.
    type Row<'a> = (u32, u64, u32, &'a [i64], &'a [usize]);

    /// Takes whatever there is at these moments, and counts.
    fn taken(rate: Rate, moments: &[i64]) -> Vec<usize> {
        let mut bucket = Bucket::new(rate);
        let mut take = |now: Timestamp| {
            let mut count = 0;
            while bucket.next_token(now).is_none() {
                bucket.take(now);
                count += 1;
            }
            count
        };
        moments.iter().map(|moment| take(at(*moment))).collect()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_token_an_interval() {
        let table: [Row<'_>; 5] = [
            (60, 60, 1, &[0, 999, 1000, 1001, 2000], &[1, 0, 1, 0, 1]),
            (60, 60, 3, &[0, 500, 1000, 1000, 2000], &[3, 0, 1, 0, 1]),
            // What isn't taken is saved up, but never more than the burst.
            (60, 60, 3, &[0, 2000, 100_000], &[3, 2, 3]),
            (10, 1, 10, &[0, 50, 100, 350], &[10, 0, 1, 2]),
            // Half of an interval that has passed isn't lost.
            (60, 60, 2, &[0, 1500, 2000], &[2, 1, 1]),
        ];
        for (messages, seconds, burst, moments, expected) in table {
            let rate = Rate::new(messages, Duration::from_secs(seconds), burst).unwrap();
            assert_eq!(taken(rate, moments), expected, "{messages} in {seconds} s, burst {burst}");
        }
    }

    #[test]
    fn a_rate_of_nothing_is_no_rate_and_a_burst_of_nothing_is_one() {
        assert_eq!(Rate::new(0, Duration::from_secs(1), 10), None);
        assert_eq!(Rate::new(1, Duration::from_secs(1), 0).unwrap().burst, 1);
    }

    #[test]
    fn a_clock_that_was_set_back_costs_no_more_than_an_empty_bucket() {
        let rate = Rate::new(60, Duration::from_mins(1), 2).unwrap();
        let mut bucket = Bucket::new(rate);
        bucket.take(at(1_000_000_000));
        assert_eq!(bucket.next_token(at(0)), Some(at(1000)));
        assert_eq!(bucket.next_token(at(1000)), None, "it is there when it was said to be");
        bucket.take(at(0));
        assert_eq!(bucket.next_token(at(0)), Some(at(1000)));
    }

    #[test]
    fn a_token_that_was_not_used_is_there_again_and_no_other() {
        let rate = Rate::new(60, Duration::from_mins(1), 2).unwrap();
        let mut limiter = Limiter::new(Some(rate));
        let take = |limiter: &mut Limiter| {
            limiter.take(at(0));
            limiter.take_of(&domain(1), rate, at(0));
        };
        take(&mut limiter);
        take(&mut limiter);
        let next = |limiter: &mut Limiter| {
            (limiter.next_token(at(0)), limiter.next_token_of(&domain(1), rate, at(0)))
        };
        assert_eq!(next(&mut limiter), (Some(at(1000)), Some(at(1000))));
        limiter.give_back(Some(&domain(1)));
        assert_eq!(next(&mut limiter), (None, None));
        take(&mut limiter);
        assert_eq!(next(&mut limiter), (Some(at(1000)), Some(at(1000))));
        limiter.give_back(None);
        assert_eq!(next(&mut limiter), (None, Some(at(1000))), "that of the domain was used");
        // However many come back, the bucket holds no more than its burst.
        (0..10).for_each(|_| limiter.give_back(Some(&domain(1))));
        take(&mut limiter);
        take(&mut limiter);
        assert_eq!(next(&mut limiter), (Some(at(1000)), Some(at(1000))));
    }

    #[test]
    fn domains_have_buckets_of_their_own() {
        let mut limiter = Limiter::new(None);
        let rate = Rate::new(60, Duration::from_mins(1), 1).unwrap();
        limiter.take_of(&domain(1), rate, at(0));
        assert_eq!(limiter.next_token_of(&domain(1), rate, at(0)), Some(at(1000)));
        assert_eq!(limiter.next_token_of(&domain(2), rate, at(0)), None);
        assert_eq!(limiter.next_token(at(0)), None);
    }

    #[test]
    fn buckets_that_are_full_again_cost_no_memory() {
        let mut limiter = Limiter::new(None);
        let rate = Rate::new(60, Duration::from_mins(1), 1).unwrap();
        for number in 0..100 * CROWD {
            limiter.take_of(&domain(number), rate, at(i64::try_from(number).unwrap() * 10));
        }
        assert!(limiter.domains.len() <= 2 * CROWD, "{}", limiter.domains.len());
        // The last 100 came in the last second.
        let now = at(i64::try_from(100 * CROWD).unwrap() * 10);
        assert!(limiter.next_token_of(&domain(100 * CROWD - 1), rate, now).is_some());
    }

    proptest! {
        #[test]
        fn in_no_time_are_there_more_than_the_burst_and_what_the_rate_gives(
            messages in 1_u32..1000, burst in 1_u32..20, steps in prop::collection::vec(0_i64..3000, 1..200)
        ) {
            let rate = Rate::new(messages, Duration::from_mins(1), burst).unwrap();
            let moments: Vec<_> = steps.iter().scan(0, |now, step| { *now += step; Some(*now) }).collect();
            let counts = taken(rate, &moments);
            for from in 0..moments.len() {
                let mut sum = 0;
                for to in from..moments.len() {
                    sum += counts[to];
                    let passed = Duration::from_millis(u64::try_from(moments[to] - moments[from]).unwrap());
                    let most = f64::from(burst) + passed.as_secs_f64() / rate.interval.as_secs_f64();
                    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                    let sum = sum as f64;
                    prop_assert!(sum <= most + 1e-6, "{sum} in {passed:?}, at most {most}");
                }
            }
        }

        #[test]
        fn the_next_token_is_there_when_it_is_said_to_be_and_not_before(
            messages in 1_u32..1000, burst in 1_u32..20, takes in 1_usize..50
        ) {
            let rate = Rate::new(messages, Duration::from_mins(1), burst).unwrap();
            let (mut bucket, mut now) = (Bucket::new(rate), at(0));
            for _ in 0..takes {
                if let Some(next) = bucket.next_token(now) {
                    let before = next.checked_sub(Duration::from_nanos(1)).unwrap();
                    prop_assert_eq!(bucket.next_token(before), Some(next));
                    prop_assert_eq!(bucket.next_token(next), None);
                    now = next;
                }
                bucket.take(now);
            }
        }
    }
}
