use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    mem,
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::super::connections;

/// How many attempts have failed lately, by address and by user. One is forgotten each minute.
///
/// There is room for a bounded number of both; when it is used up, the half that failed longest ago is forgotten.
#[derive(Debug)]
pub(super) struct Failures {
    hasher: RandomState,
    recent: HashMap<u64, Count>,
    older: HashMap<u64, Count>,
    room: usize,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    /// Since when they are being forgotten.
    since: Instant,
}

/// One failed attempt is forgotten after this long.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// Failures that cost nothing: everybody mistypes.
const FREE: u32 = 2;

/// The first delay. It doubles with each failure.
const DELAY: Duration = Duration::from_millis(250);

impl Failures {
    /// `room` for this many addresses and users.
    pub(super) fn new(room: usize) -> Self {
        Self { hasher: RandomState::new(), recent: HashMap::new(), older: HashMap::new(), room }
    }

    /// Counts one more against both.
    pub(super) fn add(&mut self, address: IpAddr, name: &str, now: Instant) {
        for key in [self.address(address), self.user(name)] {
            let Count { failures, since } = self.count(key, now);
            if self.recent.len() >= self.room / 2 {
                self.older = mem::take(&mut self.recent);
            }
            self.recent.insert(key, Count { failures: failures.saturating_add(1), since });
        }
    }

    /// How many failures count against an address.
    pub(super) fn of_address(&self, address: IpAddr, now: Instant) -> u32 {
        self.count(self.address(address), now).failures
    }

    /// How long an attempt is to wait.
    pub(super) fn delay(&self, address: IpAddr, name: &str, longest: Duration, now: Instant) -> Duration {
        let user = self.count(self.user(name), now).failures;
        let failures = user.max(self.of_address(address, now));
        match failures.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(longest),
        }
    }

    fn count(&self, key: u64, now: Instant) -> Count {
        let Some(Count { failures, since }) = self.recent.get(&key).or_else(|| self.older.get(&key)).copied()
        else {
            return Count { failures: 0, since: now };
        };
        let forgotten = now.duration_since(since).as_secs() / FORGOTTEN.as_secs();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        if forgotten >= failures {
            return Count { failures: 0, since: now };
        }
        Count { failures: failures - forgotten, since: since + FORGOTTEN * forgotten }
    }

    /// Keys are hashes with a secret of this process, so that they are small and nobody can make two alike.
    fn address(&self, address: IpAddr) -> u64 {
        self.hasher.hash_one(connections::counted(address))
    }

    fn user(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_delay_what_comes_next_from_the_address_and_for_the_user_up_to_a_limit() {
        let (mut failures, now) = (Failures::new(100), Instant::now());
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut delays = Vec::new();
        for _ in 0..10 {
            delays.push(failures.delay(one, "alice", LONGEST, now).as_millis());
            failures.add(one, "alice", now);
        }
        assert_eq!(delays, [0, 0, 0, 250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(failures.of_address(one, now), 10);
        assert_eq!(failures.delay(one, "bob", LONGEST, now), LONGEST);
        assert_eq!(failures.delay(other, "alice", LONGEST, now), LONGEST);
        assert_eq!(failures.delay(other, "bob", LONGEST, now), Duration::ZERO);
        assert_eq!(failures.of_address(other, now), 0);
    }

    #[test]
    fn one_failure_is_forgotten_each_minute() {
        let (mut failures, start) = (Failures::new(100), Instant::now());
        let client = address("2001:db8::1");
        for _ in 0..3 {
            failures.add(client, "alice", start);
        }
        // The same customer.
        let client = address("2001:db8::ffff");
        for (seconds, left) in [(0, 3), (59, 3), (60, 2), (150, 1), (180, 0), (1_000_000, 0)] {
            assert_eq!(failures.of_address(client, start + Duration::from_secs(seconds)), left, "{seconds}");
        }
        failures.add(client, "alice", start + Duration::from_secs(90));
        assert_eq!(failures.of_address(client, start + Duration::from_secs(119)), 3);
        assert_eq!(failures.of_address(client, start + Duration::from_mins(2)), 2);
    }

    #[test]
    fn room_is_bounded_and_what_failed_last_is_kept() {
        let (mut failures, now) = (Failures::new(100), Instant::now());
        for n in 0..10_000_u32 {
            failures.add(IpAddr::V4(n.into()), &n.to_string(), now);
            assert!(failures.recent.len() + failures.older.len() <= 100);
        }
        assert_eq!(failures.of_address(IpAddr::V4(9_999.into()), now), 1);
        assert_eq!(failures.of_address(IpAddr::V4(9_980.into()), now), 1);
        assert_eq!(failures.of_address(IpAddr::V4(1.into()), now), 0);
    }
}
