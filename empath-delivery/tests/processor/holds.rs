//! Messages that an operator holds.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use empath_delivery::{Because, Filter, MessageStatus, RecipientStatus, Touched};
use empath_spool::Spool as _;
use empath_testkit::peer::{Peer, Script};
use tokio::time::sleep;

use crate::world::{World, deferred, routes, to};

fn from(sender: &str) -> Filter {
    Filter { sender: Some(sender.to_owned()), ..Filter::default() }
}

const ONE: Touched = Touched { matched: 1, changed: 1 };
const NOTHING_NEW: Touched = Touched { matched: 1, changed: 0 };

#[tokio::test(start_paused = true)]
async fn a_held_message_outlives_restarts_and_its_expiry_and_is_delivered_when_it_is_released() {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    one.stop().await;
    let id = world.accept("alice@home.test", &["bob@one.test"]).await;
    world.accept("carol@home.test", &["dave@one.test"]).await;
    world.rest().await;
    assert_eq!(world.processor.hold(&from("alice@home.test")).await.unwrap(), ONE);
    assert_eq!(world.processor.hold(&from("alice@home.test")).await.unwrap(), NOTHING_NEW);
    assert!(world.spool.load(id).await.unwrap().held);
    one.restart().await.unwrap();
    sleep(Duration::from_hours(10 * 24)).await;
    world.restart().await;
    sleep(Duration::from_hours(10 * 24)).await;
    assert_eq!(to(&one), ["dave@one.test"]);
    let held = Filter { status: Some(MessageStatus::Held), ..Filter::default() };
    let message = world.processor.list(&held, None, 9).await.remove(0);
    assert_eq!((message.id, message.recipients[0].status), (id, RecipientStatus::Held));
    assert_eq!(message.recipients[0].next_attempt_at, None);
    assert_eq!(world.processor.stats().await.by_status[&MessageStatus::Held], 1);
    assert!((world.metric("empath_delivery_queue_size{status=\"held\"}") - 1.0).abs() < 0.1);
    assert_eq!(world.processor.retry(&held).await, NOTHING_NEW);
    assert_eq!(world.processor.release(&held).await.unwrap(), ONE);
    world.done().await;
    assert_eq!(to(&one), ["dave@one.test", "bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_refused_and_nothing_changes() {
    let (mut one, world, id) = deferred().await;
    let before = world.recipient(id).await.next_attempt_at;
    world.spool.hooks.full.store(true, Relaxed);
    assert!(world.processor.hold(&Filter::default()).await.is_err());
    assert_eq!(world.recipient(id).await.next_attempt_at, before);
    world.spool.hooks.full.store(false, Relaxed);
    assert_eq!(world.processor.hold(&Filter::default()).await.unwrap(), ONE);
    world.spool.hooks.full.store(true, Relaxed);
    assert!(world.processor.release(&Filter::default()).await.is_err());
    assert_eq!(world.recipient(id).await.status, RecipientStatus::Held);
    world.spool.hooks.full.store(false, Relaxed);
    one.restart().await.unwrap();
    assert_eq!(world.processor.release(&Filter::default()).await.unwrap(), ONE);
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_to_a_frozen_domain_and_what_waited_goes_when_it_is_thawed() {
    let one = Peer::start(Script::new()).await.unwrap();
    let two = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("two.test", &two)]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("frozen");
    world.frozen = Some(file.clone());
    world.keep_frozen();
    let domain = "one.test".parse().unwrap();
    assert!(world.processor.freeze(&domain).await.unwrap());
    assert!(!world.processor.freeze(&domain).await.unwrap());
    let id = world.accept("alice@home.test", &["bob@one.test", "carol@two.test"]).await;
    two.wait_for_messages(1).await;
    assert_eq!(world.processor.why(id).await.unwrap()[0].because, Because::Frozen);
    world.restart().await;
    assert!(world.processor.frozen().contains(&domain));
    sleep(Duration::from_hours(1)).await;
    world.processor.retry(&Filter::default()).await;
    sleep(Duration::from_hours(1)).await;
    assert_eq!(to(&one).len(), 0);
    assert!(world.processor.thaw(&domain).await.unwrap());
    assert!(!world.processor.thaw(&domain).await.unwrap());
    world.done().await;
    assert_eq!((to(&one).len(), to(&two).len()), (1, 1));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn what_has_failed_and_whose_domain_is_frozen_then_waits_for_the_operator() {
    let (_one, world, id) = deferred().await;
    world.processor.freeze(&"one.test".parse().unwrap()).await.unwrap();
    let [why] = world.processor.why(id).await.unwrap().try_into().unwrap();
    assert_eq!((why.because, why.until), (Because::Frozen, None));
    assert!(why.detail.contains(": ") && why.detail.contains("queue thaw"), "{}", why.detail);
}
