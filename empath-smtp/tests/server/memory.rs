//! What a session holds.

use empath_smtp::server::Config;

use crate::{intake::Shelf, machine::Machine, script::default_config};

const TO_DATA: &[u8] = b"EHLO c.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n";

fn machine() -> Machine {
    let config: Config = serde_json::from_value(default_config()).unwrap();
    Machine::new(&config, "203.0.113.9".parse().unwrap(), &Shelf::default())
}

/// Feeds as a socket does: no more at a time than there is room for. Returns the largest room.
pub(crate) fn flow(machine: &mut Machine, octets: &[u8]) -> usize {
    let (mut rest, mut largest) = (octets, 0);
    while !rest.is_empty() {
        let room = machine.session.buffer().capacity();
        largest = largest.max(room);
        let (now, later) = rest.split_at(rest.len().min(room - machine.session.buffer().len()));
        machine.feed(now);
        rest = later;
    }
    largest
}

#[test]
fn an_idle_session_holds_little_also_after_a_large_message() {
    let mut machine = machine();
    assert!(machine.session.buffer().capacity() <= 4096);
    machine.feed(TO_DATA);
    machine.feed(b"Subject: x\r\n\r\n");
    let largest = flow(&mut machine, &b"0123456789\r\n".repeat(200_000));
    assert!((32 * 1024..=128 * 1024).contains(&largest), "content is read in large blocks: {largest}");
    flow(&mut machine, b".\r\n");
    assert_eq!(machine.codes().last(), Some(&250));
    assert!(machine.session.buffer().capacity() <= 8192);
}

#[test]
fn a_command_line_without_end_is_not_kept() {
    let mut machine = machine();
    assert!(flow(&mut machine, &vec![b'x'; 5_000_000]) <= 16 * 1024);
    flow(&mut machine, b"\r\nNOOP\r\n");
    assert_eq!(machine.codes(), [220, 500, 250]);
}

#[test]
fn the_replies_to_a_flood_are_sent_in_small_parts() {
    // A driver that cannot write stops there, and so does the reading.
    let mut machine = machine();
    machine.session.buffer().extend_from_slice(&b"HELP\r\n".repeat(100));
    let mut parts = Vec::new();
    loop {
        match machine.session.step() {
            empath_smtp::server::Step::Write(part) => parts.push(part.len()),
            empath_smtp::server::Step::Read => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(parts.len() > 1 && parts.iter().all(|len| *len <= 4096 + 512), "{parts:?}");
}
