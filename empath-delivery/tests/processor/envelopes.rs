//! Messages whose envelopes are read back from the spool.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use empath_delivery::{Filter, Touched};
use empath_spool::Spool as _;
use empath_testkit::peer::Peer;
use empath_testkit::peer::Script;
use tokio::time::sleep;

use crate::{
    failing::Unreadable,
    world::{World, routes, to},
};

/// A message that was tried once, and is due again in a minute; its host is there again.
async fn waiting(unreadable: Unreadable) -> (World, Peer) {
    let mut one = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one)]));
    one.stop().await;
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.rest().await;
    one.restart().await.unwrap();
    *world.spool.hooks.unreadable.lock().unwrap() = Some(unreadable);
    (world, one)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_give_an_envelope_back_costs_no_attempt() {
    let (world, one) = waiting(Unreadable::Io).await;
    sleep(Duration::from_mins(30)).await;
    assert_eq!((world.processor.queue_len(), world.spool.len(), one.connections()), (1, 1, 0));
    *world.spool.hooks.unreadable.lock().unwrap() = None;
    let message = world.processor.list(&Filter::default(), None, 1).await.remove(0);
    assert_eq!((message.recipients[0].attempts, message.recipients[0].address.as_str()), (1, "bob@one.test"));
    world.done().await;
    assert_eq!(to(&one), ["bob@one.test"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_envelope_is_damaged_is_set_aside_and_ends() {
    let (world, one) = waiting(Unreadable::Damaged).await;
    world.done().await;
    assert!(world.spool.hooks.set_aside.load(Relaxed));
    assert_eq!(one.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_shown_as_far_as_the_queue_knows_it_and_can_be_deleted() {
    let (world, _one) = waiting(Unreadable::Io).await;
    let id = world.spool.ids()[0];
    let (message, history) = world.processor.view(id).await.unwrap();
    assert_eq!((message.recipients[0].address.as_str(), message.recipients[0].attempts), ("@one.test", 1));
    assert!(history.is_empty());
    let domain = Filter { domain: Some("one.test".parse().unwrap()), ..Filter::default() };
    assert_eq!(world.processor.delete(&domain).await.unwrap(), Touched { matched: 1, changed: 1 });
    assert!(world.spool.is_empty());
}
