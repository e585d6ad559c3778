//! Fills the queue with messages for a host that is down, and says what they cost:
//! `cargo run -p empath-delivery --release --example queue_load -- waiting 1000000` for messages that were tried and wait, and
//! `ready` for messages that were not; `reload` for half of each and a new configuration. Each is measured in a process of its own.
//!
//! Prints lines of `name=value`. Times are in microseconds where the name does not say otherwise.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::{env, fs, sync::Arc, time::Duration};

use bytes::Bytes;
use empath_common::{Envelope, MessageId, ReversePath};
use empath_delivery::{
    Config,
    config::CircuitBreaker,
    queue::{Action, Fate, Limits, Next, Queue, Queued, Settlement},
    route::Routes,
};
use empath_spool::{RecipientState, Status, Stored};
use jiff::Timestamp;
use tokio::time::Instant;

/// Due times are spread over so many seconds.
const SPREAD: u32 = 3600;

fn main() {
    let messages = || env::args().nth(2).map_or(1_000_000, |number| number.parse().unwrap());
    match env::args().nth(1).as_deref() {
        Some("waiting") => waiting(messages()),
        Some("ready") => ready(messages()),
        Some("reload") => reload(messages()),
        _ => println!("say waiting, ready or reload, and how many messages"),
    }
}

fn queue() -> Queue {
    Queue::new(routes(), limits())
}

fn routes() -> Routes {
    Routes::new(&Config::default(), "mx.home.test".parse().unwrap())
}

fn limits() -> Limits {
    Limits {
        max_concurrent: 500,
        content_memory: 0,
        expire_after: Duration::from_hours(120),
        delay_after: None,
        rate: None,
        breaker: CircuitBreaker::default(),
    }
}

fn id(number: u32) -> MessageId {
    MessageId::from_bytes((u128::from(number) << 80).to_be_bytes())
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_second(second.into()).unwrap()
}

fn envelope(number: u32, domain: &str) -> Envelope {
    let sender = format!("sender-{number}@home.test").parse().unwrap();
    let recipient = format!("<recipient-{number}@{domain}>").parse().unwrap();
    let mut envelope = Envelope::new(ReversePath::Mailbox(sender), recipient);
    envelope.received_at = at(0);
    envelope
}

/// Messages that were tried, as after a start.
fn waiting(messages: u32) {
    let (before, started) = (resident(), Instant::now());
    let mut queue = queue();
    for number in 0..messages {
        let state = RecipientState {
            status: Status::Deferred,
            attempts: 3,
            next_attempt_at: Some(at(1000 + number % SPREAD)),
            ..RecipientState::default()
        };
        let envelope = Arc::new(envelope(number, "dead.test"));
        let stored = Stored { envelope, recipients: vec![state], size: 4096, held: false };
        queue.restore(id(number), &stored, at(0));
    }
    println!("waiting_fill_ms={}", started.elapsed().as_millis());
    println!("waiting_octets_per_message={}", (resident() - before) / u64::from(messages));
    // While nothing is due there is nothing to do: one call says until when.
    let mut polls = 0;
    let mut now = at(0);
    while now < at(999) {
        now = queue.poll(now);
        polls += 1;
    }
    println!("waiting_polls_until_first_due={polls}");
    turn(&mut queue, messages, "waiting");
    // All of them come due; a call of `poll` takes some, and others have their turn in between.
    let (started, mut longest, mut calls) = (Instant::now(), Duration::ZERO, 0_u32);
    loop {
        let call = Instant::now();
        let next = queue.poll(at(1000 + SPREAD));
        longest = longest.max(call.elapsed());
        calls += 1;
        if next > at(1000 + SPREAD) {
            break;
        }
    }
    println!("due_all_ms={} due_calls={calls}", started.elapsed().as_millis());
    println!("due_longest_call={}", longest.as_micros());
    turn(&mut queue, messages + 1, "due");
}

/// Messages that were not tried yet, as after a flood.
fn ready(messages: u32) {
    let (before, started) = (resident(), Instant::now());
    let mut queue = queue();
    let content = Bytes::from_static(b"Subject: x\r\n\r\n").into();
    for number in 0..messages {
        queue.accept(id(number), Arc::new(envelope(number, "dead.test")), &content, at(0));
    }
    println!("ready_fill_ms={}", started.elapsed().as_millis());
    println!("ready_octets_per_message={}", resident().saturating_sub(before) / u64::from(messages));
    let opened = queue.take_actions();
    turn(&mut queue, messages, "ready");
    // The host is tried and fails, again and again: each message goes back to waiting.
    let (started, mut failed) = (Instant::now(), 0_u32);
    let first = opened.into_iter().find_map(|action| match action {
        Action::Open { connection, job, .. } => Some((connection, job)),
        _ => None,
    });
    let (connection, mut job) = first.unwrap();
    loop {
        fail(&mut queue, &job);
        failed += 1;
        match queue.next(connection, at(1)) {
            Next::Job(next) => job = next,
            Next::Idle | Next::Close => break,
        }
    }
    println!("failed={failed} failed_ms={}", started.elapsed().as_millis());
    println!("deferred_octets_per_message={}", resident().saturating_sub(before) / u64::from(messages));
}

/// A new configuration while half of the messages are ready and half of them wait.
fn reload(messages: u32) {
    let mut queue = queue();
    let content = Bytes::from_static(b"Subject: x\r\n\r\n").into();
    for number in 0..messages / 2 {
        queue.accept(id(number), Arc::new(envelope(number, "dead.test")), &content, at(0));
    }
    for number in messages / 2..messages {
        let next_attempt_at = Some(at(9000));
        let state = RecipientState { attempts: 3, next_attempt_at, ..RecipientState::default() };
        let envelope = Arc::new(envelope(number, "dead.test"));
        let stored = Stored { envelope, recipients: vec![state], size: 4096, held: false };
        queue.restore(id(number), &stored, at(0));
    }
    queue.poll(at(0));
    let started = Instant::now();
    let limits = Limits { expire_after: Duration::from_hours(100), ..limits() };
    queue.replace(routes(), limits, at(1));
    println!("reload_call={}", started.elapsed().as_micros());
    turn(&mut queue, messages, "reload");
    let (started, mut longest, mut calls) = (Instant::now(), Duration::ZERO, 0_u32);
    loop {
        let call = Instant::now();
        let next = queue.poll(at(1));
        longest = longest.max(call.elapsed());
        calls += 1;
        if next > at(1) {
            break;
        }
    }
    println!("reload_all_ms={} reload_calls={calls}", started.elapsed().as_millis());
    println!("reload_longest_call={}", longest.as_micros());
    turn(&mut queue, messages + 1, "reloaded");
}

fn fail(queue: &mut Queue, job: &Queued) {
    let settlement = Settlement { index: 0, attempts: 1, fate: Fate::Due(at(60)) };
    queue.settle(job.id, &[settlement], at(1));
}

/// How long a message for another host waits for its connection.
fn turn(queue: &mut Queue, number: u32, name: &str) {
    let envelope = Arc::new(envelope(number, &format!("live-{name}.test")));
    let content = Bytes::from_static(b"Subject: x\r\n\r\n").into();
    drop(queue.take_actions());
    let started = Instant::now();
    queue.accept(id(number), envelope, &content, at(0));
    let opened = queue.take_actions();
    println!("{name}_turn_of_another={}", started.elapsed().as_micros());
    assert!(matches!(&opened[..], [Action::Open { job, .. }] if job.id == id(number)));
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
