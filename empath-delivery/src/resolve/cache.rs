//! Answers that are still true. Pure: time is a parameter.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::lookup::{Answer, Question};

/// A bounded number of answers, each for its time. What has expired is let go whenever the cache is touched; when it is
/// full, the answer goes that was not asked for the longest.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: usize,
    entries: HashMap<Question, Entry>,
    by_end: BTreeSet<(Instant, Question)>,
    by_use: BTreeMap<u64, Question>,
    /// Uses so far: later ones have greater numbers.
    uses: u64,
    evicted: u64,
}

/// An answer and its time.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) answer: Answer,
    pub(super) ends: Instant,
    /// How often it was asked for.
    pub(super) hits: u64,
    last_use: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: HashMap::new(),
            by_end: BTreeSet::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            evicted: 0,
        }
    }

    /// The answer, if it is still true.
    pub(super) fn get(&mut self, question: &Question, now: Instant) -> Option<Answer> {
        self.expire(now);
        let entry = self.entries.get_mut(question)?;
        entry.hits += 1;
        self.uses += 1;
        let before = std::mem::replace(&mut entry.last_use, self.uses);
        if let Some(question) = self.by_use.remove(&before) {
            self.by_use.insert(self.uses, question);
        }
        Some(entry.answer.clone())
    }

    /// Remembers an answer for `ttl`, instead of an earlier one; for no time, it forgets the earlier one.
    pub(super) fn insert(&mut self, question: Question, answer: Answer, ttl: Duration, now: Instant) {
        self.expire(now);
        self.remove(&question);
        if ttl.is_zero() || self.capacity == 0 {
            return;
        }
        if self.entries.len() >= self.capacity
            && let Some(oldest) = self.by_use.values().next().cloned()
        {
            self.remove(&oldest);
            self.evicted += 1;
        }
        self.uses += 1;
        let entry = Entry { answer, ends: now + ttl, hits: 0, last_use: self.uses };
        self.by_end.insert((entry.ends, question.clone()));
        self.by_use.insert(entry.last_use, question.clone());
        self.entries.insert(question, entry);
    }

    /// Forgets an answer. False if there is none.
    pub(super) fn remove(&mut self, question: &Question) -> bool {
        let Some((question, entry)) = self.entries.remove_entry(question) else {
            return false;
        };
        self.by_use.remove(&entry.last_use);
        self.by_end.remove(&(entry.ends, question));
        true
    }

    /// What is remembered, in the order of the names.
    pub(super) fn list(&mut self, now: Instant) -> Vec<(Question, Entry)> {
        self.expire(now);
        let mut all: Vec<_> = self.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub(super) fn len(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.entries.len()
    }

    /// How many answers had to go before their time since the last call.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    fn expire(&mut self, now: Instant) {
        while self.by_end.first().is_some_and(|(ends, _)| *ends <= now) {
            if let Some((_, question)) = self.by_end.pop_first()
                && let Some(entry) = self.entries.remove(&question)
            {
                self.by_use.remove(&entry.last_use);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resolve::lookup::{Found, LookupError, RecordType, Records};

    fn question(name: &str) -> Question {
        Question { name: name.parse().unwrap(), kind: RecordType::A }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other answers of the tables are")]
    fn answer(last: u8) -> Answer {
        let records = Records::addresses([[192, 0, 2, last].into()]);
        Ok(Found { records, ttl: Duration::ZERO })
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_is_true_until_its_time_is_over_and_leaves_nothing_behind() {
        let now = Instant::now();
        let mut cache = Cache::new(10);
        cache.insert(question("a.test"), answer(1), secs(30), now);
        cache.insert(question("b.test"), Err(LookupError::NoSuchName(None)), secs(20), now);
        assert_eq!(cache.get(&question("a.test"), now + secs(29)), Some(answer(1)));
        assert_eq!(cache.get(&question("b.test"), now + secs(29)), None);
        assert_eq!(cache.len(now + secs(29)), 1);
        assert_eq!(cache.get(&question("a.test"), now + secs(30)), None);
        assert!(cache.entries.is_empty() && cache.by_end.is_empty() && cache.by_use.is_empty());
        assert_eq!(cache.take_evicted(), 0);
    }

    #[test]
    fn types_at_one_name_are_apart_and_spellings_of_one_name_are_not() {
        let now = Instant::now();
        let mut cache = Cache::new(10);
        cache.insert(question("BÜCHER.test"), answer(1), secs(30), now);
        assert_eq!(cache.get(&question("xn--bcher-kva.test"), now), Some(answer(1)));
        let mx = Question { kind: RecordType::Mx, ..question("bücher.test") };
        assert_eq!(cache.get(&mx, now), None);
    }

    #[test]
    fn the_answer_goes_that_was_not_asked_for_the_longest() {
        let now = Instant::now();
        let mut cache = Cache::new(2);
        cache.insert(question("a.test"), answer(1), secs(10), now);
        cache.insert(question("b.test"), answer(2), secs(10), now);
        cache.get(&question("a.test"), now);
        cache.insert(question("c.test"), answer(3), secs(10), now);
        let names: Vec<_> = cache.list(now).into_iter().map(|(key, _)| key.name.to_string()).collect();
        assert_eq!((names, cache.take_evicted()), (vec!["a.test".to_owned(), "c.test".to_owned()], 1));
    }

    #[test]
    fn a_cache_of_no_size_and_an_answer_of_no_time_are_not_remembered() {
        let now = Instant::now();
        let mut none = Cache::new(0);
        none.insert(question("a.test"), answer(1), secs(10), now);
        assert_eq!(none.get(&question("a.test"), now), None);
        let mut cache = Cache::new(1);
        cache.insert(question("a.test"), answer(1), secs(10), now);
        cache.insert(question("a.test"), answer(2), Duration::ZERO, now);
        assert_eq!(cache.get(&question("a.test"), now), None);
    }

    proptest! {
        #[test]
        fn whatever_happens_it_stays_bounded_and_tells_only_what_is_true(
            steps in prop::collection::vec((0..3_u8, 0..8_u8, 0..20_u64, 0..5_u64), 1..200)
        ) {
            let mut now = Instant::now();
            let mut cache = Cache::new(4);
            let mut truth: HashMap<u8, (Answer, Instant)> = HashMap::new();
            for (step, name, ttl, pause) in steps {
                now += secs(pause);
                let key = question(&format!("n{name}.test"));
                match step {
                    0 => {
                        let value = answer(u8::try_from(ttl).unwrap());
                        cache.insert(key, value.clone(), secs(ttl), now);
                        truth.insert(name, (value, now + secs(ttl)));
                    }
                    1 => {
                        if let Some(value) = cache.get(&key, now) {
                            let (expected, ends) = &truth[&name];
                            prop_assert!(value == *expected && *ends > now);
                        }
                    }
                    _ => {
                        cache.remove(&key);
                        prop_assert_eq!(cache.get(&key, now), None);
                    }
                }
                prop_assert!(cache.len(now) <= 4);
                prop_assert_eq!(cache.entries.len(), cache.by_end.len());
                prop_assert_eq!(cache.entries.len(), cache.by_use.len());
            }
        }
    }
}
