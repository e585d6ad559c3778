//! A random run of the queue, watched from outside.

mod untold;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use empath_common::{FutureRelease, Priority};
use proptest::prelude::*;

use super::*;
use crate::config::DomainConfig;
use untold::UntoldEnds;

/// What happens next in a random run.
#[derive(Debug, Clone)]
enum Step {
    /// For so many domains, of the n-th sender.
    Accept(Vec<u8>, Priority, usize),
    /// The same, to be sent so many seconds later.
    Schedule(Vec<u8>, u16),
    /// The n-th of the senders have routes from now on.
    Reconfigure(usize),
    /// The n-th job in flight is delivered, or fails until so many seconds later, and says this about the destination.
    Finish(usize, Option<u16>, Outcome),
    /// The n-th job in flight comes to an end of which the sender is to be told.
    Bounce(usize),
    /// From now on the sender can be told, or can't.
    Tell(bool),
    /// The destination has too many connections for the n-th job.
    TurnAway(usize),
    /// The domain of the n-th job, if it is in the domain's own lane, is found to have these hosts.
    RollUp(usize, u8),
    /// The first domain of the n-th job, if it shares a lane, is found to have others.
    Expel(usize),
    Pass(u16),
    Leave(usize),
    Retry(u8),
    /// The same, whatever its sender wants.
    SendNow(u8),
    Delete(u8),
    Hold(u8),
    Release(u8),
    Freeze(u8),
    Thaw(u8),
    /// Whatever is not in flight is forgotten and read back from what was stored.
    Restart,
    Stop,
    /// A new configuration, one of these.
    Reload(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (prop::collection::vec(0..6_u8, 1..5), prop::sample::select(&Priority::ALL[..]), 0..3_usize)
            .prop_map(|(recipients, priority, sender)| Step::Accept(recipients, priority, sender)),
        5 => (0..8_usize).prop_map(Step::Reconfigure),
        120 => (any::<usize>(), prop::option::of(1..500_u16), outcome())
            .prop_map(|(n, due, outcome)| Step::Finish(n, due, outcome)),
        60 => any::<usize>().prop_map(Step::Bounce),
        5 => prop::bool::weighted(0.8).prop_map(Step::Tell),
        20 => any::<usize>().prop_map(Step::TurnAway),
        60 => (any::<usize>(), 0..2_u8).prop_map(|(n, site)| Step::RollUp(n, site)),
        20 => any::<usize>().prop_map(Step::Expel),
        40 => (1..1000_u16).prop_map(Step::Pass),
        20 => any::<usize>().prop_map(Step::Leave),
        20 => (prop::collection::vec(0..6_u8, 1..5), 1..20_000_u16)
            .prop_map(|(recipients, seconds)| Step::Schedule(recipients, seconds)),
        20 => any::<u8>().prop_map(Step::Retry),
        10 => (1..60_u8).prop_map(Step::SendNow),
        20 => any::<u8>().prop_map(Step::Delete),
        20 => (1..60_u8).prop_map(Step::Hold),
        30 => (1..60_u8).prop_map(Step::Release),
        4 => Just(Step::Restart),
        1 => Just(Step::Stop),
        10 => (0..8_u8).prop_map(Step::Reload),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Good),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::TurnedAway),
        1 => Just(Outcome::Denied),
        1 => Just(Outcome::Unknown),
    ]
}

/// A recipient that has not ended, as the spool would know it.
#[derive(Debug, Clone, Copy)]
struct Known {
    due: i64,
    attempts: u32,
    flying: bool,
    /// Due when its sender wants it, and not earlier because somebody else does.
    scheduled: bool,
}

/// Watches a queue from outside.
#[derive(Default)]
struct Model {
    config: Config,
    now: i64,
    flying: Vec<(ConnectionId, Queued)>,
    idle: BTreeSet<ConnectionId>,
    hops: HashMap<ConnectionId, String>,
    envelopes: BTreeMap<MessageId, Arc<Envelope>>,
    known: BTreeMap<(MessageId, u32), Known>,
    held: BTreeSet<MessageId>,
    /// Messages that were deleted while something of them was in flight.
    removing: BTreeSet<MessageId>,
    stopped: bool,
    frozen: BTreeSet<u8>,
    accepted: u8,
    told_of_delay: BTreeSet<(MessageId, u32)>,
    untold: UntoldEnds,
    /// Connections whose jobs began with a former configuration.
    former: BTreeSet<ConnectionId>,
}

const SENDERS: [&str; 3] = ["<a@home.test>", "<news@home.test>", "<a@x.home.test>"];
const ROUTES: [(&str, &str); 3] =
    [("news@home.test", "s.test"), ("home.test", "s.test"), ("*.home.test", "t.test")];

pub(super) const MAX_CONCURRENT: usize = 10;
pub(super) const MAX_PER_SERVER: usize = 6;

impl Model {
    fn took(&mut self, connection: ConnectionId, job: Queued) {
        assert!(!self.held.contains(&job.id) && !self.stopped, "nothing starts");
        for recipient in &job.recipients {
            let path = self.envelopes[&job.id].recipients()[recipient.index as usize].to_string();
            assert!(!self.frozen.iter().any(|n| path.contains(&format!("@{n}.test"))), "frozen");
            let known = self.known.get_mut(&(job.id, recipient.index)).expect("it has not ended");
            assert!(!known.flying, "{recipient:?} is in flight twice");
            assert!(known.due <= self.now, "{recipient:?} is too early");
            assert_eq!((recipient.attempts, known.attempts), (known.attempts, recipient.attempts));
            (known.flying, known.scheduled) = (true, false);
        }
        self.flying.push((connection, job));
    }

    fn perform(&mut self, queue: &mut Queue) {
        for action in queue.take_actions() {
            match action {
                Action::Open { connection, next_hop, job } => {
                    self.hops.insert(connection, next_hop.to_string());
                    self.took(connection, job);
                }
                Action::Resume { connection, job } => {
                    assert!(self.idle.remove(&connection));
                    self.took(connection, job);
                }
                Action::Close { connection } => {
                    assert!(self.idle.remove(&connection));
                    self.hops.remove(&connection);
                }
            }
        }
        assert!(queue.connections() <= MAX_CONCURRENT);
        assert_eq!(queue.connections(), self.hops.len());
        let mut per_hop: HashMap<&str, usize> = HashMap::new();
        for hop in self.hops.values() {
            *per_hop.entry(hop).or_default() += 1;
        }
        assert!(per_hop.values().all(|count| *count <= MAX_PER_SERVER));
    }

    /// Somebody tells of what takes long.
    fn tell(&mut self, queue: &mut Queue) {
        queue.poll(at(self.now));
        self.perform(queue);
        while let Some(job) = queue.take_late() {
            for recipient in &job.recipients {
                let key = (job.id, recipient.index);
                assert!(self.is_late(job.id) && !self.known[&key].flying, "{key:?}");
                assert!(self.told_of_delay.insert(key), "{key:?} was told already");
                let back = Settlement {
                    index: recipient.index,
                    attempts: recipient.attempts,
                    fate: Fate::Due(recipient.due),
                };
                queue.settle(job.id, &[back], at(self.now));
            }
            queue.poll(at(self.now));
            self.perform(queue);
        }
        for (key, known) in &self.known {
            let waits = !known.flying && !self.held.contains(&key.0);
            let patience = if self.is_flying(key.0) { TELL_WITHIN } else { Duration::ZERO };
            let late = self.late_at(key.0, patience) <= at(self.now);
            assert!(!waits || !late || self.told_of_delay.contains(key), "{key:?} is untold");
        }
    }

    fn is_late(&self, id: MessageId) -> bool {
        self.late_at(id, Duration::ZERO) <= at(self.now)
    }

    fn late_at(&self, id: MessageId, patience: Duration) -> Timestamp {
        schedule::after(self.envelopes[&id].released_at(), DELAY_AFTER.unwrap() + patience)
    }

    /// Every recipient is in exactly one place, and the queue knows of each what the model knows.
    fn check(&self, queue: &Queue) {
        let mut seen = 0;
        for message in queue.page(None, usize::MAX) {
            for (index, (status, attempts, due)) in (0..).zip(&message.recipients) {
                let Some(known) = self.known.get(&(message.id, index)) else {
                    assert!(status.is_end());
                    continue;
                };
                seen += 1;
                assert_eq!(*attempts, known.attempts);
                let expected = if known.flying {
                    (RecipientStatus::InProgress, None)
                } else if self.held.contains(&message.id) {
                    (RecipientStatus::Held, None)
                } else if known.scheduled && known.due > self.now {
                    (RecipientStatus::Pending, Some(at(known.due)))
                } else if known.attempts == 0 {
                    (RecipientStatus::Pending, None)
                } else {
                    (RecipientStatus::Deferred, Some(at(known.due)))
                };
                if *status == RecipientStatus::Deferred && expected.1 != *due {
                    // An operator wanted it sooner.
                    assert!(due.is_some_and(|due| due >= at(known.due)));
                } else {
                    assert_eq!((*status, *due), expected);
                }
            }
        }
        assert_eq!(seen, self.known.len(), "one is lost");
        let counted: usize = MessageStatus::ALL.iter().map(|status| queue.count_of(*status)).sum();
        assert_eq!(counted, queue.len());
    }

    fn finish(&mut self, queue: &mut Queue, n: usize, fate: Fate, outcome: Outcome) {
        let (connection, job) = self.flying.swap_remove(n % self.flying.len());
        if self.redirect(queue, connection, &job) {
            return self.next(queue, connection);
        }
        for recipient in &job.recipients {
            let place = (job.id, recipient.index);
            match fate {
                Fate::Due(due) if !self.removing.contains(&job.id) => {
                    let attempts = recipient.attempts + 1;
                    self.known.insert(
                        place,
                        Known { due: due.as_second(), attempts, flying: false, scheduled: false },
                    );
                }
                Fate::Untold(_) if !self.removing.contains(&job.id) => {
                    self.known.remove(&place);
                    self.untold.ended(place, self.now);
                }
                _ => drop(self.known.remove(&place)),
            }
        }
        if settle(queue, &job, fate, at(self.now)) {
            assert!(self.untold.of(job.id).is_empty(), "somebody is to be told");
            self.held.remove(&job.id);
        }
        queue.report(connection, outcome, Some(&"0.test".parse().unwrap()), at(self.now));
        self.next(queue, connection);
    }

    /// Whether the job went the wrong way, and is put back. What goes on goes the right one.
    fn redirect(&mut self, queue: &mut Queue, connection: ConnectionId, job: &Queued) -> bool {
        let envelope = Arc::clone(&self.envelopes[&job.id]);
        let job = job.clone().with(envelope);
        let began = self.former.remove(&connection);
        let Some(ended) = queue.redirect(&job, at(self.now)) else {
            let sender = queue.routes.sender_class(&job.envelope.reverse_path);
            for recipient in &job.recipients {
                let host = job.envelope.recipients()[recipient.index as usize].host();
                let mail = Mail { id: job.id, sender };
                let next_hop = queue.routes().route_to(mail, host).next_hop.to_string();
                // Whose hosts are known, and whether they still are, is another matter.
                let hop = &self.hops[&connection];
                assert!(
                    began || *hop == next_hop || (hop.starts_with("mx:h") && next_hop.starts_with("mx:")),
                    "{hop} {next_hop}"
                );
            }
            return false;
        };
        let removing = self.removing.contains(&job.id);
        for recipient in &job.recipients {
            let place = (job.id, recipient.index);
            if removing {
                self.known.remove(&place);
            } else {
                self.known.get_mut(&place).unwrap().flying = false;
            }
        }
        assert_eq!(ended, self.known.range((job.id, 0)..=(job.id, u32::MAX)).next().is_none());
        if ended {
            self.held.remove(&job.id);
        }
        queue.refund(connection, at(self.now));
        queue.report(connection, Outcome::Unknown, None, at(self.now));
        true
    }

    fn next(&mut self, queue: &mut Queue, connection: ConnectionId) {
        match queue.next(connection, at(self.now)) {
            Next::Job(job) => self.took(connection, job),
            Next::Idle => drop(self.idle.insert(connection)),
            Next::Close => drop(self.hops.remove(&connection)),
        }
    }

    /// Recipients are back in the queue as they were.
    fn landed(&mut self, id: MessageId, recipients: &[JobRecipient]) {
        for recipient in recipients {
            self.known.get_mut(&(id, recipient.index)).unwrap().flying = false;
        }
    }

    fn expel(&mut self, queue: &mut Queue, n: usize) {
        let (connection, mut job) = self.flying.swap_remove(n);
        let path = |recipient: &JobRecipient| {
            self.envelopes[&job.id].recipients()[recipient.index as usize].domain().cloned().unwrap()
        };
        let domain = path(&job.recipients[0]);
        let (out, rest) = job.recipients.iter().copied().partition::<Vec<_>, _>(|one| path(one) == domain);
        if queue.expel(connection, job.id, &out, &domain, at(self.now)) {
            assert!(self.hops[&connection].starts_with("mx:h"), "it was in its own lane");
            self.landed(job.id, &out);
            job.recipients = rest;
            if job.recipients.is_empty() {
                queue.refund(connection, at(self.now));
                queue.report(connection, Outcome::Unknown, None, at(self.now));
                return self.next(queue, connection);
            }
        }
        self.flying.push((connection, job));
    }

    fn accept(
        &mut self,
        queue: &mut Queue,
        recipients: &[u8],
        priority: Priority,
        (sender, wait): (usize, u16),
    ) {
        self.accepted += 1;
        let domains: BTreeSet<_> = recipients.iter().map(|n| format!("u@{n}.test")).collect();
        let addresses: Vec<_> = domains.iter().map(String::as_str).collect();
        for index in 0..u32::try_from(addresses.len()).unwrap() {
            let due = self.now + i64::from(wait);
            let known = Known { due, attempts: 0, flying: false, scheduled: wait > 0 };
            self.known.insert((id(self.accepted), index), known);
        }
        let mut envelope = Envelope::clone(&envelope(at(self.now), &addresses));
        envelope.priority = priority;
        envelope.future_release = (wait > 0).then_some(FutureRelease::For(wait.into()));
        envelope.reverse_path = SENDERS[sender].parse().unwrap();
        let envelope = Arc::new(envelope);
        self.envelopes.insert(id(self.accepted), Arc::clone(&envelope));
        queue.accept(id(self.accepted), envelope, &Bytes::from_static(b"x\r\n").into(), at(self.now));
    }

    fn restart(&mut self, queue: &mut Queue) {
        self.config = reload::another(0);
        *queue = configured(&self.config);
        for ((id, _), known) in &mut self.known {
            known.flying = false;
            if known.attempts == 0 {
                // That somebody wanted it sooner is not stored.
                known.due = self.envelopes[id].released_at().as_second();
                known.scheduled = self.envelopes[id].future_release.is_some();
            }
        }
        self.untold.restart();
        self.flying.clear();
        self.idle.clear();
        self.removing.clear();
        self.hops.clear();
        self.stopped = false;
        for (id, envelope) in &self.envelopes {
            let state = |index| match self.known.get(&(*id, index)) {
                None => RecipientState {
                    status: Status::Ended(Ended::Delivered),
                    untold: self.untold.contains((*id, index)).then_some(Untold::Delivered),
                    ..RecipientState::default()
                },
                Some(Known { attempts: 0, .. }) => RecipientState {
                    told_of_delay: self.told_of_delay.contains(&(*id, index)),
                    ..RecipientState::default()
                },
                Some(known) => RecipientState {
                    status: Status::Deferred,
                    attempts: known.attempts,
                    next_attempt_at: Some(at(known.due)),
                    told_of_delay: self.told_of_delay.contains(&(*id, index)),
                    ..RecipientState::default()
                },
            };
            let recipients: Vec<_> = (0..).take(envelope.recipients().len()).map(state).collect();
            let stored =
                Stored { envelope: Arc::clone(envelope), recipients, size: 3, held: self.held.contains(id) };
            let known = self.known.range((*id, 0)..=(*id, u32::MAX)).next().is_some();
            let outstanding = known || !self.untold.of(*id).is_empty();
            assert_eq!(queue.restore(*id, &stored, at(self.now)), outstanding);
        }
    }

    fn run(&mut self, queue: &mut Queue, step: &Step) {
        match step {
            Step::Accept(recipients, priority, sender) if self.accepted < 200 => {
                self.accept(queue, recipients, *priority, (*sender, 0));
            }
            Step::Schedule(recipients, wait) if self.accepted < 200 => {
                self.accept(queue, recipients, Priority::Normal, (0, *wait));
            }
            Step::Reconfigure(which) => {
                let routes: Vec<_> =
                    (0..).zip(ROUTES).filter(|(n, _)| which >> n & 1 == 1).map(|(_, route)| route).collect();
                senders::reconfigure(queue, &senders::with_senders(&self.config, &routes));
            }
            Step::TurnAway(n) if !self.flying.is_empty() => {
                let (connection, job) = self.flying.swap_remove(n % self.flying.len());
                if queue.put_back(connection, job.id, &job.recipients, at(self.now)) {
                    self.hops.remove(&connection);
                    self.landed(job.id, &job.recipients);
                } else {
                    self.flying.push((connection, job));
                }
            }
            Step::RollUp(n, site) if !self.flying.is_empty() => {
                let (connection, job) = self.flying.swap_remove(n % self.flying.len());
                let site = sites::site(*site);
                if queue.roll_up(connection, job.id, &job.recipients, site, at(self.now)) {
                    assert!(
                        !self.hops.remove(&connection).unwrap().starts_with("mx:h"),
                        "it was moved already"
                    );
                    self.landed(job.id, &job.recipients);
                } else {
                    self.flying.push((connection, job));
                }
            }
            Step::Expel(n) if !self.flying.is_empty() => self.expel(queue, n % self.flying.len()),
            Step::Finish(n, due, outcome) if !self.flying.is_empty() => {
                let fate = due.map_or(DELIVERED, |due| Fate::Due(at(self.now + i64::from(due))));
                self.finish(queue, *n, fate, *outcome);
            }
            Step::Bounce(n) if !self.flying.is_empty() => {
                self.finish(queue, *n, Fate::Untold(Ended::Bounced), Outcome::Good);
            }
            Step::Tell(works) => self.untold.fails = !works,
            Step::Pass(seconds) => {
                self.now += i64::from(*seconds);
                queue.poll(at(self.now));
            }
            Step::Leave(n) if !self.idle.is_empty() => {
                let connection = *self.idle.iter().nth(n % self.idle.len()).unwrap();
                if queue.leave(connection, at(self.now)) {
                    self.idle.remove(&connection);
                    self.hops.remove(&connection);
                }
            }
            Step::Retry(number) => {
                let known =
                    queue.retry(id(*number), at(self.now)).is_some() && !self.held.contains(&id(*number));
                let meant = self.known.range_mut((id(*number), 0)..=(id(*number), u32::MAX));
                let meant = meant.map(|(_, known)| known).filter(|one| known && !one.scheduled);
                meant.for_each(|known| known.due = self.now.min(known.due));
            }
            Step::SendNow(number) => {
                queue.unschedule(id(*number), at(self.now));
                let known =
                    queue.retry(id(*number), at(self.now)).is_some() && !self.held.contains(&id(*number));
                let meant = self.known.range_mut((id(*number), 0)..=(id(*number), u32::MAX));
                for (_, known) in meant.filter(|_| known) {
                    (known.due, known.scheduled) = (self.now.min(known.due), false);
                }
            }
            Step::Delete(number) => {
                if let Some(mut job) = queue.delete(id(*number), at(self.now)) {
                    let untold: Vec<_> =
                        queue.untold(job.id).into_iter().map(|(recipient, _)| recipient).collect();
                    assert_eq!(untold.len(), self.untold.of(job.id).len());
                    for recipient in &job.recipients {
                        let known = self.known.remove(&(job.id, recipient.index));
                        assert!(known.is_some_and(|known| !known.flying));
                    }
                    self.untold.forget(job.id);
                    self.removing.insert(job.id);
                    job.recipients.extend(untold);
                    if settle(queue, &job, Fate::Ended(Ended::Removed), at(self.now)) {
                        self.held.remove(&job.id);
                    }
                }
            }
            Step::Hold(number) => {
                if let Some(new) = queue.hold(id(*number), at(self.now)) {
                    assert_eq!(self.held.insert(id(*number)), new);
                }
            }
            Step::Release(number) => {
                let released = self.held.remove(&id(*number));
                assert_eq!(queue.release(id(*number), at(self.now)).unwrap_or(false), released);
            }
            Step::Freeze(n) => {
                queue.freeze(&format!("{n}.test").parse().unwrap());
                self.frozen.insert(*n);
            }
            Step::Thaw(n) => {
                queue.thaw(&format!("{n}.test").parse().unwrap());
                self.frozen.remove(n);
                self.envelopes.keys().for_each(|id| queue.thawed(*id, at(self.now)));
            }
            Step::Restart => self.restart(queue),
            Step::Reload(n) => {
                self.former = self.flying.iter().map(|(connection, _)| *connection).collect();
                self.config = reload::another(*n);
                reload::replace(queue, &self.config, at(self.now));
            }
            Step::Stop => {
                queue.stop(at(self.now));
                for action in queue.take_actions() {
                    let Action::Close { connection } = action else { panic!("{action:?} after stop") };
                    assert!(self.idle.remove(&connection));
                    self.hops.remove(&connection);
                }
                self.stopped = true;
            }
            _ => {}
        }
        self.perform(queue);
        self.tell(queue);
        self.tell_of_ends(queue);
        self.check(queue);
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_runs_twice_and_limits_hold(
        steps in prop::collection::vec(step(), 1..300), limited: bool
    ) {
        let mut config = Config { max_concurrent: MAX_CONCURRENT, ..Config::default() };
        config.connection_pool.max_per_server = MAX_PER_SERVER;
        if limited {
            config.rate_limits.global_per_second = Some(1);
            let slow = DomainConfig { rate_limit: Some(2), rate_burst: Some(1), ..DomainConfig::default() };
            config.domains.insert("0.test".parse().unwrap(), slow);
        }
        let mut queue = configured(&config);
        let mut model = Model { config, ..Model::default() };
        for step in &steps {
            model.run(&mut queue, step);
        }
        // From now on everything succeeds: then everything ends.
        model.run(&mut queue, &Step::Tell(true));
        model.run(&mut queue, &Step::Restart);
        for number in 0..=200 {
            model.run(&mut queue, &Step::Release(number));
        }
        for _ in 0..2000 {
            if queue.is_empty() {
                break;
            }
            model.run(&mut queue, &Step::Pass(500));
            while !model.flying.is_empty() {
                model.run(&mut queue, &Step::Finish(0, None, Outcome::Good));
            }
        }
        prop_assert!(queue.is_empty() && model.known.is_empty() && model.untold.is_empty());
        // Failures are forgotten, and tokens that nobody needs come.
        model.run(&mut queue, &Step::Pass(2 * 3600));
        prop_assert_eq!(queue.poll(at(model.now)), Timestamp::MAX);
        prop_assert_eq!((queue.fresh, queue.destinations.len()), (0, 0));
    }
}

/// Few destinations, so that their lanes have many connections.
fn few() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (prop::collection::vec(0..3_u8, 1..3), prop::sample::select(&Priority::ALL[..]), 0..3_usize)
            .prop_map(|(recipients, priority, sender)| Step::Accept(recipients, priority, sender)),
        5 => (0..8_usize).prop_map(Step::Reconfigure),
        120 => (any::<usize>(), prop::option::weighted(0.3, 1..500_u16), outcome())
            .prop_map(|(n, due, outcome)| Step::Finish(n, due, outcome)),
        10 => any::<usize>().prop_map(Step::TurnAway),
        40 => (any::<usize>(), 0..2_u8).prop_map(|(n, site)| Step::RollUp(n, site)),
        20 => any::<usize>().prop_map(Step::Expel),
        20 => (1..100_u16).prop_map(Step::Pass),
        5 => any::<usize>().prop_map(Step::Leave),
        10 => (prop::collection::vec(0..3_u8, 1..3), 1..2000_u16)
            .prop_map(|(recipients, seconds)| Step::Schedule(recipients, seconds)),
        5 => any::<u8>().prop_map(Step::Retry),
        3 => (1..60_u8).prop_map(Step::SendNow),
        2 => any::<u8>().prop_map(Step::Delete),
        3 => (1..60_u8).prop_map(Step::Hold),
        5 => (1..60_u8).prop_map(Step::Release),
        4 => (0..3_u8).prop_map(Step::Freeze),
        6 => (0..3_u8).prop_map(Step::Thaw),
        5 => (0..8_u8).prop_map(Step::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_ready_starts_without_new_mail(
        steps in prop::collection::vec(few(), 1..200), limited: bool, leaves: bool, threshold in 1..4_u32,
        calls in 1..4_u32, uneven: bool,
    ) {
        let mut config = Config { max_concurrent: MAX_CONCURRENT, ..Config::default() };
        config.connection_pool.max_per_server = MAX_PER_SERVER;
        config.circuit_breaker.failure_threshold = threshold;
        config.circuit_breaker.half_open_max_calls = calls;
        if limited {
            config.rate_limits.global_per_second = Some(1);
            let slow = DomainConfig { rate_limit: Some(2), rate_burst: Some(1), ..DomainConfig::default() };
            config.domains.insert("0.test".parse().unwrap(), slow);
        }
        for (name, most) in [("1.test", 1), ("2.test", 6)].into_iter().filter(|_| uneven) {
            let mx_override = Some("h.test".parse().unwrap());
            let one = DomainConfig { mx_override, max_connections: Some(most), ..DomainConfig::default() };
            config.domains.insert(name.parse().unwrap(), one);
        }
        let mut queue = configured(&config);
        let mut model = Model { config, ..Model::default() };
        for step in &steps {
            model.run(&mut queue, step);
        }
        // From now on everything succeeds and nothing new comes: then everything ends.
        (0..3).for_each(|number| model.run(&mut queue, &Step::Thaw(number)));
        (0..=200).for_each(|number| model.run(&mut queue, &Step::Release(number)));
        for _ in 0..100 {
            if queue.is_empty() {
                break;
            }
            while !model.flying.is_empty() {
                model.run(&mut queue, &Step::Finish(0, None, Outcome::Good));
            }
            while leaves && !model.idle.is_empty() {
                model.run(&mut queue, &Step::Leave(0));
            }
            model.run(&mut queue, &Step::Pass(500));
        }
        let (len, idle) = (queue.len(), queue.idle_connections());
        prop_assert!(queue.is_empty() && model.known.is_empty(), "{len} are stuck, {idle} connections idle");
    }
}
