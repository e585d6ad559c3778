//! Messages that their senders want to be sent later.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use empath_common::{Envelope, FutureRelease, MessageId};
use empath_delivery::{Because, Filter, MessageStatus, RecipientStatus, Touched};
use empath_spool::Spool as _;
use empath_testkit::peer::{Act, At, Peer, Script};
use jiff::Timestamp;
use tokio::time::sleep;

use crate::world::{Pipes, World, routes, to};

const HOUR: Duration = Duration::from_hours(1);
const ONE: Touched = Touched { matched: 1, changed: 1 };
const NOTHING_NEW: Touched = Touched { matched: 1, changed: 0 };

/// A message that is to be sent an hour later, and when that is.
async fn scheduled(script: Script) -> (World, Arc<Peer>, MessageId, Timestamp) {
    let one = Arc::new(Peer::start(script).await.unwrap());
    let mut world = World::over(Pipes::to(&[&one]), routes(&[("one.test", &one)]));
    let ask = |envelope: &mut Envelope| envelope.future_release = Some(FutureRelease::For(3600));
    let id = world.accept_asking("alice@home.test", &["bob@one.test"], ask).await;
    let time = world.clock.now() + HOUR;
    (world, one, id, time)
}

fn this(id: MessageId) -> Filter {
    Filter { id: Some(id), ..Filter::default() }
}

#[tokio::test(start_paused = true)]
async fn it_is_shown_with_its_time_and_outlives_restarts() {
    let (mut world, one, id, time) = scheduled(Script::new()).await;
    for _ in 0..3 {
        sleep(HOUR / 4).await;
        world.restart().await;
        let message = world.view(id).await.unwrap();
        assert_eq!(message.status, MessageStatus::Pending);
        let recipient = &message.recipients[0];
        assert_eq!((recipient.status, recipient.attempts), (RecipientStatus::Pending, 0));
        assert_eq!(recipient.next_attempt_at, Some(time));
        let why = world.processor.why(id).await.unwrap().remove(0);
        assert_eq!((why.because, why.until), (Because::Scheduled, Some(time)));
    }
    world.at(time - Duration::from_secs(1)).await;
    assert_eq!(one.connections(), 0);
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
    let late = world.clock.now().duration_since(time);
    assert!(late < jiff::SignedDuration::from_secs(2), "{late}");
}

#[tokio::test(start_paused = true)]
async fn what_came_due_while_nobody_was_there_is_sent_at_the_start() {
    let (mut world, one, id, _) = scheduled(Script::new()).await;
    assert!(world.processor.shutdown(Duration::from_secs(30)).await);
    sleep(1000 * HOUR).await;
    assert!(world.spool.load(id).await.is_ok());
    world.restart().await;
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn only_a_retry_by_its_id_sends_it_before_its_time() {
    let (world, one, id, time) = scheduled(Script::new()).await;
    assert_eq!(world.processor.retry(&Filter::default()).await, NOTHING_NEW);
    let pending = Filter { status: Some(MessageStatus::Pending), ..Filter::default() };
    assert_eq!(world.processor.retry(&pending).await, NOTHING_NEW);
    assert_eq!(world.recipient(id).await.next_attempt_at, Some(time));
    assert_eq!(world.processor.retry(&this(id)).await, ONE);
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
    assert!(world.clock.now() < time);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_early_in_vain_is_deferred_as_any_other_also_after_a_restart() {
    let busy = Script::new().on(At::RcptTo, Act::reply("450 4.2.1 mailbox busy"));
    let (mut world, _one, id, time) = scheduled(busy).await;
    world.processor.retry(&this(id)).await;
    world.rest().await;
    let before = world.recipient(id).await;
    assert!(before.next_attempt_at.is_some_and(|at| at < time));
    world.restart().await;
    let after = world.recipient(id).await;
    assert_eq!((after.status, after.next_attempt_at), (RecipientStatus::Deferred, before.next_attempt_at));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_early_in_vain_is_late_and_expires_in_its_time_also_after_a_restart() {
    for restarts in [false, true] {
        let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("450 4.2.1 busy"))).await.unwrap();
        let home = Peer::start(Script::new()).await.unwrap();
        let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
        let received = world.clock.now();
        let ask = |envelope: &mut Envelope| envelope.future_release = Some(FutureRelease::For(24 * 3600));
        let id = world.accept_asking("alice@home.test", &["bob@one.test"], ask).await;
        world.processor.retry(&this(id)).await;
        world.rest().await;
        if restarts {
            world.restart().await;
        }
        world.at(received + 4 * HOUR + Duration::from_secs(5)).await;
        let reports =
            || home.messages().into_iter().map(|message| String::from_utf8(message.content).unwrap());
        let [delay] = reports().collect::<Vec<_>>().try_into().unwrap();
        assert!(delay.contains("Will-Retry-Until: Tue, 06 Jan 2026 00:00:0"), "{delay}");
        world.at(received + 120 * HOUR + Duration::from_secs(5)).await;
        assert_eq!((reports().count(), world.spool.is_empty()), (2, true), "{restarts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_keeps_it_beyond_its_time_and_a_release_sends_it() {
    let (mut world, one, id, time) = scheduled(Script::new()).await;
    assert_eq!(world.processor.hold(&this(id)).await.unwrap(), ONE);
    assert_eq!(world.recipient(id).await.next_attempt_at, None);
    assert_eq!(world.processor.retry(&this(id)).await, NOTHING_NEW);
    assert_eq!(world.processor.release(&this(id)).await.unwrap(), ONE);
    assert_eq!(world.recipient(id).await.next_attempt_at, Some(time), "it waits as before");
    world.processor.hold(&this(id)).await.unwrap();
    world.restart().await;
    sleep(2 * HOUR).await;
    assert_eq!((world.recipient(id).await.status, one.connections()), (RecipientStatus::Held, 0));
    world.processor.release(&this(id)).await.unwrap();
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_deleted_and_a_removal_that_is_not_stored_changes_nothing() {
    let (mut world, one, id, time) = scheduled(Script::new()).await;
    world.spool.hooks.full.store(true, Relaxed);
    assert!(world.processor.delete(&this(id)).await.is_err());
    world.spool.hooks.full.store(false, Relaxed);
    let recipient = world.recipient(id).await;
    assert_eq!((recipient.status, recipient.next_attempt_at), (RecipientStatus::Pending, Some(time)));
    assert_eq!(world.processor.delete(&Filter::default()).await.unwrap(), ONE);
    assert!(world.spool.is_empty());
    world.restart().await;
    sleep(2 * HOUR).await;
    assert_eq!(one.connections(), 0);
}
