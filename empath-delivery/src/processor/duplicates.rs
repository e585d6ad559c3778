//! A message that came in twice is delivered once.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use empath_common::{EnhancedStatus, Envelope, ForwardPath, MessageId};
use empath_spool::{Attempt, Content, Ended, Entry, Progress, RecipientUpdate, Status};
use jiff::Timestamp;

use super::{Commits, Shared};
use crate::{
    attempted::Tried,
    config::Deduplication,
    content::header,
    log,
    queue::{Fate, Job, JobRecipient, RecipientStatus, Settlement},
    route::NextHop,
    schedule,
};

/// Which messages were delivered to whom, or are on their way.
pub(super) struct Deliveries {
    window: Duration,
    most: usize,
    by_key: HashMap<Key, Delivery>,
    by_age: BTreeSet<(Timestamp, Key)>,
    /// Secret, so that nobody can make two messages look like one.
    hashers: [RandomState; 2],
}

/// Stands for Message-ID, reverse-path and recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key([u64; 2]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Delivery {
    id: MessageId,
    recipient: u32,
    at: Timestamp,
    /// Or still on its way.
    delivered: bool,
}

impl Deliveries {
    /// From now on so long and so many; `None` if nothing is remembered.
    fn adjust(mut self, config: &Deduplication) -> Option<Self> {
        (self.window, self.most) = (config.window?, config.entries);
        while self.by_key.len() > self.most
            && let Some((at, oldest)) = self.by_age.first().copied()
        {
            self.forget(at, oldest);
        }
        Some(self)
    }

    /// `None` if everything is to be delivered.
    pub(super) fn new(config: &Deduplication) -> Option<Self> {
        Some(Self {
            window: config.window?,
            most: config.entries,
            by_key: HashMap::new(),
            by_age: BTreeSet::new(),
            hashers: Default::default(),
        })
    }

    fn key(&self, message_id: &str, envelope: &Envelope, recipient: &ForwardPath) -> Key {
        let recipient = recipient.mailbox().map(|mailbox| (mailbox.canonical_local_part(), mailbox.host()));
        let parts = (message_id, envelope.reverse_path.as_str(), recipient);
        Key(self.hashers.each_ref().map(|hasher| hasher.hash_one(&parts)))
    }

    /// The other message with this key, if there is one.
    fn other(&mut self, key: Key, id: MessageId, now: Timestamp) -> Option<Delivery> {
        while let Some((at, oldest)) = self.by_age.first().copied()
            && schedule::after(at, self.window) <= now
        {
            self.forget(at, oldest);
        }
        self.by_key.get(&key).copied().filter(|delivery| delivery.id != id)
    }

    fn note(&mut self, key: Key, delivery: Delivery) {
        if let Some(before) = self.by_key.insert(key, delivery) {
            self.by_age.remove(&(before.at, key));
        }
        self.by_age.insert((delivery.at, key));
        if self.by_key.len() > self.most
            && let Some((at, oldest)) = self.by_age.first().copied()
        {
            self.forget(at, oldest);
        }
    }

    fn forget(&mut self, at: Timestamp, key: Key) {
        self.by_age.remove(&(at, key));
        self.by_key.remove(&key);
    }
}

impl Shared {
    fn deliveries(&self) -> MutexGuard<'_, Option<Deliveries>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on duplicates are recognised like this; what is remembered stays so.
    pub(super) fn deduplicate(&self, config: &Deduplication) {
        let mut deliveries = self.deliveries();
        *deliveries = match deliveries.take() {
            Some(known) => known.adjust(config),
            None => Deliveries::new(config),
        };
    }

    /// Ends recipients of a job to whom the same message was delivered already, or is on its way in another one. Returns the
    /// keys of those that are left.
    pub(crate) async fn drop_duplicates(
        self: &Arc<Self>,
        job: &mut Job,
        next_hop: &NextHop,
        content: &Content,
        commits: &mut Commits,
    ) -> Vec<(u32, Key)> {
        if self.deliveries().is_none() {
            return Vec::new();
        }
        // Where it can't be read, the attempt finds out.
        let header = header(content).await.unwrap_or_default();
        let Some(message_id) = message_id(&header) else {
            return Vec::new();
        };
        let (mut keys, mut duplicates) = (Vec::new(), Vec::new());
        for recipient in std::mem::take(&mut job.recipients) {
            let path = job.envelope.recipients().get(recipient.index as usize);
            match path.and_then(|path| self.enter(&message_id, job, recipient, path)) {
                Some(Entered::New(key)) => keys.push((recipient.index, key)),
                Some(Entered::DuplicateOf(other)) => {
                    duplicates.push((recipient, other));
                    continue;
                }
                None => {}
            }
            job.recipients.push(recipient);
        }
        if !duplicates.is_empty() {
            self.end_duplicates(job, next_hop, &duplicates, commits).await;
        }
        keys
    }

    fn enter(
        &self,
        message_id: &str,
        job: &Job,
        recipient: JobRecipient,
        path: &ForwardPath,
    ) -> Option<Entered> {
        let now = self.now();
        let mut deliveries = self.deliveries();
        let deliveries = deliveries.as_mut()?;
        let key = deliveries.key(message_id, &job.envelope, path);
        if let Some(other) = deliveries.other(key, job.id, now)
            && (other.delivered || self.is_on_its_way(other))
        {
            return Some(Entered::DuplicateOf(other.id));
        }
        deliveries.note(key, Delivery { id: job.id, recipient: recipient.index, at: now, delivered: false });
        Some(Entered::New(key))
    }

    /// Whether the other message may still be delivered to the recipient.
    fn is_on_its_way(&self, other: Delivery) -> bool {
        use RecipientStatus::{Completed, Expired, Failed};
        let snapshot = self.lock().queue.snapshot(other.id);
        let status = snapshot.and_then(|message| message.recipients.get(other.recipient as usize).copied());
        status.is_some_and(|(status, ..)| !matches!(status, Completed | Failed | Expired))
    }

    /// Remembers which recipients with these keys have the message.
    pub(crate) fn were_delivered(&self, id: MessageId, keys: &[(u32, Key)], results: &[Tried]) {
        let mut deliveries = self.deliveries();
        let Some(deliveries) = &mut *deliveries else { return };
        for (recipient, key) in keys {
            let has_it = |tried: &Tried| tried.recipient.index == *recipient && tried.result.is_ok();
            if results.iter().any(has_it) {
                let delivery = Delivery { id, recipient: *recipient, at: self.now(), delivered: true };
                deliveries.note(*key, delivery);
            }
        }
    }

    async fn end_duplicates(
        self: &Arc<Self>,
        job: &Job,
        next_hop: &NextHop,
        duplicates: &[(JobRecipient, MessageId)],
        commits: &mut Commits,
    ) {
        let now = self.now();
        let settlement = |(recipient, _): &(JobRecipient, MessageId)| Settlement {
            index: recipient.index,
            attempts: recipient.attempts,
            fate: Fate::Ended(Ended::Delivered),
        };
        let settlements: Vec<_> = duplicates.iter().map(settlement).collect();
        let update = |(recipient, other): &(JobRecipient, MessageId)| RecipientUpdate {
            recipient: recipient.index,
            status: Status::Ended(Ended::Delivered),
            attempts: recipient.attempts,
            next_attempt_at: None,
            told_of_delay: false,
            untold: None,
            attempt: Some(Attempt {
                at: now,
                next_hop: next_hop.to_string(),
                host: None,
                reply: None,
                status: EnhancedStatus::new(2, 0, 0),
                detail: format!("a duplicate of {other}"),
            }),
        };
        let progress = || Progress { id: job.id, updates: duplicates.iter().map(update).collect() };
        let ended = self.update(|queue| queue.settle(job.id, &settlements, now));
        let entry = if ended { Entry::Removed(job.id) } else { Entry::Progress(progress()) };
        commits.push(self, job.id, entry).await;
        for (recipient, other) in duplicates {
            self.metrics.duplicates.increment();
            if let Some(path) = job.envelope.recipients().get(recipient.index as usize) {
                log::duplicate(job.id, path, *other);
            }
        }
    }
}

enum Entered {
    New(Key),
    DuplicateOf(MessageId),
}

/// The value of the one `Message-ID` of a header.
fn message_id(header: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"message-id";
    let mut found: Option<String> = None;
    let mut inside = false;
    for line in header.split(|octet| *octet == b'\n') {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets.trim_ascii()).into_owned();
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            if let Some(found) = found.as_mut().filter(|_| inside) {
                found.push_str(&text(line));
            }
            continue;
        }
        let mut parts = line.splitn(2, |octet| *octet == b':');
        inside = parts.next().is_some_and(|name| name.trim_ascii_end().eq_ignore_ascii_case(NAME));
        if inside {
            if found.is_some() {
                return None;
            }
            found = Some(text(parts.next().unwrap_or_default()));
        }
    }
    found.filter(|found| !found.is_empty())
}

#[cfg(test)]
mod tests {
    use empath_common::ReversePath;

    use super::*;

    fn deliveries(window: u64, most: usize) -> Deliveries {
        let config = Deduplication { window: Some(Duration::from_secs(window)), entries: most };
        Deliveries::new(&config).unwrap()
    }

    fn delivery(id: u8, at: i64) -> Delivery {
        let id = MessageId::from_bytes([id; 16]);
        Delivery { id, recipient: 0, at: Timestamp::from_second(at).unwrap(), delivered: true }
    }

    fn other(deliveries: &mut Deliveries, key: u64, at: i64) -> Option<u8> {
        let now = Timestamp::from_second(at).unwrap();
        let other = deliveries.other(Key([key; 2]), MessageId::from_bytes([99; 16]), now);
        other.map(|other| other.id.to_bytes()[0])
    }

    #[test]
    fn the_id_of_a_message_is_that_of_its_only_field() {
        for (header, id) in [
            ("Subject: x\r\nMessage-ID: <a@b>\r\nTo: y\r\n", Some("<a@b>")),
            ("message-id:\r\n <a@b>\r\n", Some("<a@b>")),
            ("MESSAGE-ID : <a@b>\r\n\t\r\n", Some("<a@b>")),
            ("Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n", None),
            ("Message-ID: \r\n", None),
            ("X-Message-ID: <a@b>\r\n", None),
            ("Subject: a\r\n Message-ID: <a@b>\r\n", None),
            ("", None),
        ] {
            assert_eq!(message_id(header.as_bytes()).as_deref(), id, "{header:?}");
        }
    }

    #[test]
    fn the_window_counts_from_the_last_news_and_the_oldest_goes_when_there_are_too_many() {
        let mut known = deliveries(100, 2);
        known.note(Key([1; 2]), delivery(1, 0));
        assert_eq!(other(&mut known, 1, 99), Some(1));
        assert_eq!(other(&mut known, 2, 99), None);
        known.note(Key([1; 2]), delivery(1, 50));
        assert_eq!(other(&mut known, 1, 149), Some(1));
        assert_eq!(other(&mut known, 1, 150), None);
        assert!(known.by_key.is_empty() && known.by_age.is_empty());
        for n in 1..=3_u8 {
            known.note(Key([u64::from(n); 2]), delivery(n, 200 + i64::from(n)));
        }
        assert_eq!((known.by_key.len(), known.by_age.len()), (2, 2));
        assert_eq!([1, 2, 3].map(|key| other(&mut known, key, 210)), [None, Some(2), Some(3)]);
    }

    #[test]
    fn sender_recipient_and_message_id_all_count_and_neither_case_of_a_domain_nor_needless_quotes_do() {
        let known = deliveries(100, 2);
        let key = |id: &str, from: &str, to: &str| {
            let to: ForwardPath = to.parse().unwrap();
            let from: ReversePath = from.parse().unwrap();
            known.key(id, &Envelope::new(from, to.clone()), &to)
        };
        let first = key("<1>", "<a@x.test>", "<b@x.test>");
        for same in ["<b@X.Test>", "<\"b\"@x.test>", "<\"\\b\"@x.test>"] {
            assert_eq!(key("<1>", "<a@x.test>", same), first, "{same}");
        }
        for different in [
            key("<2>", "<a@x.test>", "<b@x.test>"),
            key("<1>", "<b@x.test>", "<b@x.test>"),
            key("<1>", "<>", "<b@x.test>"),
            key("<1>", "<a@x.test>", "<B@x.test>"),
            key("<1>", "<a@x.test>", "<Postmaster>"),
        ] {
            assert_ne!(different, first);
        }
    }
}
