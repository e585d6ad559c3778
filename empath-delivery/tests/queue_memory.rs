//! What a message costs in the queue, by counting every octet that is allocated. Nothing else may run in this process.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, and a figure for people")]

use std::{alloc::System, sync::Arc, time::Duration};

use bytes::Bytes;
use cap::Cap;
use empath_common::{Envelope, FutureRelease, MessageId, ReversePath};
use empath_delivery::{
    Config,
    config::CircuitBreaker,
    queue::{Limits, Queue},
    route::Routes,
};
use empath_spool::{RecipientState, Status, Stored};
use jiff::Timestamp;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const MESSAGES: u32 = 100_000;

/// Of 500 that a message may cost the process, the spool's index has 76; the allocator rounds up what is counted here, and
/// the process needs some for itself.
const MOST: usize = 320;

fn queue(content_memory: usize) -> Queue {
    let routes = Routes::new(&Config::default(), "mx.home.test".parse().unwrap());
    let expire_after = Duration::from_hours(120);
    Queue::new(
        routes,
        Limits {
            max_concurrent: 5,
            content_memory,
            expire_after,
            delay_after: None,
            rate: None,
            breaker: CircuitBreaker::default(),
        },
    )
}

fn id(number: u32) -> MessageId {
    MessageId::from_bytes((u128::from(number) << 80).to_be_bytes())
}

fn envelope(number: u32) -> Envelope {
    let sender = format!("sender-{number}@home.test").parse().unwrap();
    let recipient = format!("<recipient-{number}@dead.test>").parse().unwrap();
    let mut envelope = Envelope::new(ReversePath::Mailbox(sender), recipient);
    envelope.received_at = Timestamp::from_second(i64::from(number)).unwrap();
    envelope
}

/// Octets that each message adds to a queue.
fn cost(mut queue: Queue, add: impl Fn(&mut Queue, u32)) -> usize {
    let before = ALLOCATOR.allocated();
    (0..MESSAGES).for_each(|number| add(&mut queue, number));
    assert_eq!(queue.len(), MESSAGES as usize);
    let cost = (ALLOCATOR.allocated() - before) / MESSAGES as usize;
    println!("{cost} octets a message");
    cost
}

#[test]
fn a_message_costs_little_whether_it_waits_is_ready_or_is_scheduled() {
    let deferred = |number| RecipientState {
        status: Status::Deferred,
        attempts: 3,
        next_attempt_at: Some(Timestamp::from_second(200_000 + i64::from(number * 7919 % MESSAGES)).unwrap()),
        ..RecipientState::default()
    };
    let now = Timestamp::from_second(1000).unwrap();
    let waiting = cost(queue(0), |queue, number| {
        let recipients = vec![deferred(number)];
        let stored = Stored { envelope: Arc::new(envelope(number)), recipients, size: 4096, held: false };
        assert!(queue.restore(id(number), &stored, now));
    });
    assert!(waiting <= MOST, "{waiting} octets");
    let content = Bytes::from(vec![b'x'; 4096]).into();
    let ready = cost(queue(0), |queue, number| {
        queue.accept(id(number), Arc::new(envelope(number)), &content, now);
    });
    assert!(ready <= MOST, "{ready} octets");
    // For these there is memory, and it is not taken: they may wait for days.
    let scheduled = cost(queue(usize::MAX), |queue, number| {
        let mut envelope = envelope(number);
        envelope.future_release = Some(FutureRelease::For(200_000 + number * 7919 % MESSAGES));
        queue.accept(id(number), Arc::new(envelope), &content, now);
    });
    assert!(scheduled <= MOST, "{scheduled} octets");
}
