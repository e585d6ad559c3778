use std::{collections::VecDeque, sync::Arc, time::Duration};

use empath_common::MessageId;
use empath_spool::{Entry, LoadError, Stored};
use tokio::{
    task::{JoinHandle, yield_now},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{Commits, Processor, Shared};
use crate::log;

/// How many messages are read at one go.
const CHUNK: usize = 256;
/// How many chunks are read at the same time, or wait to be taken in.
const AHEAD: usize = 4;
/// How long messages that the disk did not give back are left alone, at first and at most.
const AGAIN: Duration = Duration::from_secs(5);
const MAX_AGAIN: Duration = Duration::from_mins(10);

impl Processor {
    /// Takes over every message of the spool that is not in the queue: what was pending is due at once, what was
    /// deferred at its stored time. Returns how many there were.
    ///
    /// It looks the messages up when it is called; those accepted while the future runs don't concern it. They are taken
    /// in by their ids, so oldest first, and an order to stop ends it early.
    pub fn recover(&self) -> impl Future<Output = usize> + Send + use<> {
        let shared = Arc::clone(&self.0);
        let ids = shared.spool.ids();
        shared.unread.send_modify(|unread| *unread += ids.len());
        let mut unread = Unread { left: ids.len(), shared };
        async move {
            let started = Instant::now();
            let shared = Arc::clone(&unread.shared);
            let mut ids = ids.into_iter();
            let mut reading = VecDeque::with_capacity(AHEAD);
            let mut commits = Commits::default();
            let (mut recovered, mut again) = (0, Vec::new());
            while !shared.stopping.is_cancelled() {
                while reading.len() < AHEAD && !ids.as_slice().is_empty() {
                    reading.push_back(shared.read(ids.by_ref().take(CHUNK).collect()));
                }
                let Some(chunk) = reading.pop_front() else { break };
                let chunk = chunk.await.unwrap_or_default();
                let looked_at = chunk.len();
                for (id, loaded) in chunk {
                    match shared.take_over(id, loaded, &mut commits).await {
                        Ok(queued) => recovered += usize::from(queued),
                        Err(failure) => {
                            log::not_read(id, &failure);
                            shared.metrics.unreadable.increment();
                            again.push(id);
                        }
                    }
                }
                unread.less(looked_at);
                // Sessions and deliveries have their turn.
                yield_now().await;
            }
            commits.settled(&shared).await;
            if !again.is_empty() {
                // The others must not wait for them.
                shared.tasks.spawn(Arc::clone(&shared).read_again(again));
            }
            if unread.left == 0 {
                let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                info!(messages = recovered, milliseconds, "queue recovered");
            }
            recovered
        }
    }

    /// Messages of the spool that [`recover`](Self::recover) has not taken in yet.
    pub fn unread(&self) -> usize {
        *self.0.unread.borrow()
    }

    /// Messages that the disk did not give back, and that are tried again.
    pub fn unreadable(&self) -> usize {
        usize::try_from(self.0.metrics.unreadable.get()).unwrap_or(0)
    }

    /// Waits until there are none.
    pub async fn all_read(&self) {
        // The sender lives as long as the processor.
        let _ = self.0.unread.subscribe().wait_for(|unread| *unread == 0).await;
    }
}

/// Counts what one recovery has not taken in yet.
struct Unread {
    left: usize,
    shared: Arc<Shared>,
}

impl Unread {
    fn less(&mut self, n: usize) {
        let n = n.min(self.left);
        self.left -= n;
        self.shared.unread.send_modify(|unread| *unread -= n);
    }
}

/// A recovery that ends early leaves the rest to the next start.
impl Drop for Unread {
    fn drop(&mut self) {
        self.less(self.left);
    }
}

type Loaded = Result<Stored, LoadError>;

impl Shared {
    fn read(&self, ids: Vec<MessageId>) -> JoinHandle<Vec<(MessageId, Loaded)>> {
        let (spool, stopping) = (Arc::clone(&self.spool), self.stopping.clone());
        let read =
            async move { stopping.run_until_cancelled(spool.load_some(ids)).await.unwrap_or_default() };
        self.tasks.spawn(read)
    }

    /// Reads messages until the disk gives them back: the longer it takes, the less often.
    async fn read_again(self: Arc<Self>, mut ids: Vec<MessageId>) {
        let mut wait = AGAIN;
        while !ids.is_empty() && self.stopping.run_until_cancelled(sleep(wait)).await.is_some() {
            wait = MAX_AGAIN.min(2 * wait);
            let mut commits = Commits::default();
            let mut left = Vec::new();
            for chunk in ids.chunks(CHUNK) {
                for (id, loaded) in self.read(chunk.to_vec()).await.unwrap_or_default() {
                    match self.take_over(id, loaded, &mut commits).await {
                        Ok(_) => {
                            self.metrics.unreadable.decrement();
                            info!(message_id = %id, "the spool has given the message back");
                        }
                        Err(_) => left.push(id),
                    }
                }
            }
            commits.settled(&self).await;
            if !left.is_empty() && !self.stopping.is_cancelled() {
                warn!(messages = left.len(), next = ?wait, "the spool still does not give some messages back");
            }
            ids = left;
        }
        for _ in ids {
            self.metrics.unreadable.decrement();
        }
    }

    /// Whether the message is in the queue now. An error may go away.
    async fn take_over(
        self: &Arc<Self>,
        id: MessageId,
        loaded: Loaded,
        commits: &mut Commits,
    ) -> Result<bool, LoadError> {
        match loaded {
            Ok(stored) => {
                if self.restored(id, &stored) {
                    return Ok(true);
                }
                // The end of the last recipient was stored, the end of the message wasn't.
                commits.push(self, id, Entry::Removed(id)).await;
            }
            // It has ended since.
            Err(LoadError::Unknown(_)) => {}
            // Nobody can tell any more whose it was: what there is of it is kept for an operator.
            Err(failure @ LoadError::Damaged { .. }) => {
                self.spool.set_aside(id).await?;
                log::not_read(id, &failure);
                commits.push(self, id, Entry::Removed(id)).await;
            }
            Err(failure @ LoadError::Io { .. }) => return Err(failure),
        }
        Ok(false)
    }

    fn restored(self: &Arc<Self>, id: MessageId, stored: &Stored) -> bool {
        let now = self.now();
        self.update(|queue| queue.restore(id, stored, now))
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use bytes::Bytes;
    use empath_common::{Clock, Envelope, ReversePath, SystemClock};
    use empath_spool::{Batch, LoadingSome, MemorySpool, Progress, RecipientUpdate, Spool as _, Status};
    use empath_testkit::spool::{HookedSpool, Hooks};
    use tokio::{sync::Semaphore, time::timeout};

    use super::*;
    use crate::{Config, processor::trial};

    /// A disk that is slow about one message, and may fail for another.
    struct Slow {
        held_up: MessageId,
        ready: Semaphore,
        bad: Mutex<Option<MessageId>>,
    }

    impl Hooks for Slow {
        fn load_some<'a>(&'a self, memory: &'a MemorySpool, ids: Vec<MessageId>) -> LoadingSome<'a> {
            Box::pin(async move {
                if ids.contains(&self.held_up) {
                    self.ready.acquire().await.unwrap().forget();
                }
                let mut loaded = memory.load_some(ids).await;
                if let Some(bad) = *self.bad.lock().unwrap()
                    && let Some((id, loaded)) = loaded.iter_mut().find(|(id, _)| *id == bad)
                {
                    *loaded = Err(LoadError::Io { id: *id, source: io::Error::other("bad block") });
                }
                loaded
            })
        }
    }

    type SlowSpool = HookedSpool<Slow>;

    const MESSAGES: usize = 3 * CHUNK - 1;

    fn id(n: usize) -> MessageId {
        MessageId::from_bytes((n as u128).to_be_bytes())
    }

    fn envelope() -> Arc<Envelope> {
        let mut envelope = Envelope::new(ReversePath::Null, "<bob@example.test>".parse().unwrap());
        envelope.received_at = SystemClock.now();
        Arc::new(envelope)
    }

    /// A processor and its spool with messages that are due in an hour. The spool is slow about one of them.
    async fn processor(slow: usize) -> (Processor, Arc<SlowSpool>) {
        let (memory, ready) = (MemorySpool::new(), Semaphore::new(0));
        let due = SystemClock.now() + Duration::from_hours(1);
        for id in (1..=MESSAGES).map(id) {
            let content = Bytes::new().into();
            let update = RecipientUpdate {
                recipient: 0,
                status: Status::Deferred,
                attempts: 1,
                next_attempt_at: Some(due),
                told_of_delay: false,
                untold: None,
                attempt: None,
            };
            let progress = Entry::Progress(Progress { id, updates: vec![update] });
            let accepted = Entry::Accepted { id, envelope: envelope(), content };
            memory.commit(Batch(vec![accepted, progress])).await.unwrap();
        }
        let hooks = Slow { held_up: id(slow), ready, bad: Mutex::default() };
        let spool = Arc::new(HookedSpool { memory, hooks });
        (trial::processor(Arc::clone(&spool) as _, Config::default()), spool)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_yet_counts_and_is_waited_for_in_order() {
        let (processor, spool) = processor(1).await;
        let recovery = processor.recover();
        assert_eq!((processor.unread(), processor.queue_len()), (MESSAGES, MESSAGES));
        let recovery = tokio::spawn(recovery);
        assert!(timeout(Duration::from_mins(1), processor.all_read()).await.is_err());
        // The others have been read by now, and stand behind it.
        assert_eq!(processor.unread(), MESSAGES);
        spool.hooks.ready.add_permits(1);
        processor.all_read().await;
        assert_eq!((processor.unread(), processor.queue_len()), (0, MESSAGES));
        assert_eq!(recovery.await.unwrap(), MESSAGES);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_accepted_meanwhile_are_in_the_queue_once() {
        let (processor, spool) = processor(MESSAGES).await;
        let recovery = tokio::spawn(processor.recover());
        assert!(timeout(Duration::from_mins(1), processor.all_read()).await.is_err());
        assert_eq!(processor.unread(), CHUNK - 1);
        let new = Entry::Accepted { id: id(9999), envelope: envelope(), content: Bytes::new().into() };
        spool.commit(new.into()).await.unwrap();
        processor.accepted(id(9999), envelope(), &Bytes::new().into());
        assert_eq!(processor.queue_len(), MESSAGES + 1);
        spool.hooks.ready.add_permits(1);
        assert_eq!(recovery.await.unwrap(), MESSAGES);
        assert_eq!(processor.queue_len(), MESSAGES + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_stop_does_not_wait_for_the_disk() {
        let (processor, _spool) = processor(CHUNK + 1).await;
        let recovery = tokio::spawn(processor.recover());
        assert!(timeout(Duration::from_mins(1), processor.all_read()).await.is_err());
        assert!(processor.shutdown(Duration::from_hours(1)).await);
        assert_eq!(recovery.await.unwrap(), CHUNK);
        assert_eq!(processor.unread(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_disk_does_not_give_back_is_tried_again_until_it_does() {
        let (processor, spool) = processor(0).await;
        *spool.hooks.bad.lock().unwrap() = Some(id(7));
        assert_eq!(processor.recover().await, MESSAGES - 1);
        // Nobody waits for it, and it is not forgotten.
        processor.all_read().await;
        for _ in 0..3 {
            assert_eq!((processor.unread(), processor.unreadable(), processor.queue_len()), (0, 1, MESSAGES));
            assert!(processor.view(id(7)).await.is_none());
            sleep(MAX_AGAIN).await;
        }
        *spool.hooks.bad.lock().unwrap() = None;
        sleep(MAX_AGAIN).await;
        assert_eq!((processor.unreadable(), processor.queue_len()), (0, MESSAGES));
        assert!(processor.view(id(7)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_stop_does_not_wait_for_a_bad_disk() {
        let (processor, spool) = processor(0).await;
        *spool.hooks.bad.lock().unwrap() = Some(id(7));
        processor.recover().await;
        assert!(processor.shutdown(Duration::from_secs(1)).await);
        assert_eq!(processor.unreadable(), 0);
    }
}
