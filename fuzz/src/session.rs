use crate::{Machine, Model, Shelf, assert_clean, config, peer};

/// What happens to a session, in its order.
#[derive(Debug, Clone)]
enum Event {
    Octets(Vec<u8>),
    Handshake,
    Eof,
    Timeout,
    Shutdown,
}

/// In the input, this octet and a letter stand for something other than octets from the client.
pub(crate) const ESCAPE: u8 = 1;

/// A session: its server by the first octet, then what the client sends. `ESCAPE` and a letter: `s` splits the client's
/// writes, `h` does its handshake, `e` closes its side, `t` lets time pass, `d` shuts the server down.
///
/// It never panics, agrees with a simpler model of it, stores clean content, leaves nothing behind, and replies the same
/// however the client's octets are split.
pub fn session(data: &[u8]) {
    let Some((flags, input)) = data.split_first() else {
        return;
    };
    let events = parse(input);
    let given = play(*flags, &events);
    let whole = merged(&events);
    let octets = whole.iter().flat_map(|event| match event {
        Event::Octets(octets) => octets.iter().map(|octet| Event::Octets(vec![*octet])).collect(),
        other => vec![other.clone()],
    });
    // A server that shuts down serves what it has read already.
    if !events.iter().any(|event| matches!(event, Event::Shutdown)) {
        assert_eq!(given, play(*flags, &whole), "given and whole");
        assert_eq!(given, play(*flags, &octets.collect::<Vec<_>>()), "given and octet by octet");
    }
    if let [Event::Octets(stream)] = whole.as_slice() {
        let (output, messages, closed) = given;
        let submission = config(*flags).listeners[0].mode.is_submission();
        if let Some(taken) = Model::new(submission).follow(stream, &output, closed) {
            assert_eq!(taken, messages.len(), "{output}");
        }
    }
}

fn play(flags: u8, events: &[Event]) -> (String, Vec<Vec<u8>>, bool) {
    let shelf = Shelf::default();
    let mut machine = Machine::new(&config(flags), peer(flags), &shelf);
    for event in events {
        match event {
            Event::Octets(octets) => machine.feed(octets),
            Event::Handshake if machine.handshaking => machine.handshake(),
            Event::Shutdown => machine.stopping = true,
            Event::Eof if !machine.closed && !machine.handshaking => machine.session.eof(),
            Event::Timeout if !machine.closed && !machine.handshaking => machine.session.timed_out(),
            _ => continue,
        }
        if !machine.handshaking {
            machine.run();
        }
    }
    let messages: Vec<_> = shelf.messages().into_iter().map(|(_, content)| content).collect();
    messages.iter().for_each(|content| assert_clean(content));
    assert!(shelf.drafts() == 0 || !machine.closed, "nothing is left behind");
    (machine.output(), messages, machine.closed)
}

fn parse(input: &[u8]) -> Vec<Event> {
    let mut events = vec![Event::Octets(Vec::new())];
    let mut octets = input.iter().copied();
    while let Some(octet) = octets.next() {
        let event = match (octet, (octet == ESCAPE).then(|| octets.next()).flatten()) {
            (_, Some(b's')) => Event::Octets(Vec::new()),
            (_, Some(b'h')) => Event::Handshake,
            (_, Some(b'e')) => Event::Eof,
            (_, Some(b't')) => Event::Timeout,
            (_, Some(b'd')) => Event::Shutdown,
            (octet, other) => {
                if let Some(Event::Octets(last)) = events.last_mut() {
                    last.push(other.unwrap_or(octet));
                    continue;
                }
                Event::Octets(vec![other.unwrap_or(octet)])
            }
        };
        events.push(event);
    }
    events
}

/// The same with every split removed.
fn merged(events: &[Event]) -> Vec<Event> {
    let mut merged = Vec::new();
    for event in events {
        match (merged.last_mut(), event) {
            (Some(Event::Octets(last)), Event::Octets(more)) => last.extend(more),
            _ => merged.push(event.clone()),
        }
    }
    merged
}
