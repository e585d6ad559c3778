//! Delivery scenarios: a zone, a configuration, messages, scripted hosts and a clock in one file, and what comes of them.
//!
//! Each file of `tests/scenarios` begins with comments (`#`) that say what it shows. Sections follow, in any order but
//! `expect` at the end; what a heading adds (`-- mx1 +10m --`) is when the section comes into force.
//! `SCENARIO=mx-null cargo test -p empath-delivery --test scenario -- --nocapture` plays the files whose names begin so, and
//! shows what has come of them.
//!
//! Time is virtual and starts at `+0s`; there are neither sockets nor name servers. We are `relay.test`, 192.0.2.1. Mail for
//! `home.test` arrives at the host `home`, which needs to be mentioned only where it is different. Retries have no jitter.
//!
//! ```text
//! -- zone --                 As `empath_testkit::zone` reads it. An MX host that has a section and no address gets one.
//! example.test.  MX 10 mx1.example.test.
//! -- config --               The `delivery:` table, if it is not the default. `-- dsn --` is the other table.
//! (retry: (base_delay: "1h"))
//! -- message --              Several may be in one section, below each other. `3 x <alice@…` makes three of one.
//! <alice@home.test> RET=HDRS ENVID=x BODY=8BITMIME SMTPUTF8 OCTETS=90000 -> <bob@example.test> NOTIFY=NEVER ORCPT=rfc822;x
//!                                                                        -> <carol@example.test>
//!                            HOLDFOR and MT-PRIORITY are other parameters of a sender.
//!
//! Subject: content           Content behind an empty line, if it matters. OCTETS is how much there is at least.
//!
//! -- mx1 --                  A host: the first label of its name, all of it, its address, or `unix:` and the path of its
//!                            socket. Without lines it accepts all.
//! refuse                     Refuses connections; `drop` answers nothing at all, `unreachable` has no route.
//! offer PIPELINING, SIZE 90  What EHLO offers, instead of what `empath_testkit::peer` does.
//! tls mx1.example.test       Offers STARTTLS, with a certificate for this name; `tls NAME expired`, `tls NAME stranger`.
//! tls-first mx1.example.test Speaks TLS from the first octet.
//! offer-in-tls SIZE          What EHLO offers inside TLS, if it is something else.
//! login alice sesame         Wants AUTH before MAIL. The file `secret` has the password `sesame`, which is a token too.
//! lmtp                       Speaks LMTP; `C: . <bob@example.test>` is then the reply about one recipient.
//! S: 451 4.3.2 busy          The greeting. `close` closes, here after it; `stall` never answers; `delay 10s` answers late.
//! C: RCPT <bob@example.test> The same at another step: EHLO HELO STARTTLS handshake AUTH MAIL RCPT DATA content . RSET
//!                            QUIT idle.
//! S: 550 5.1.1 who?
//! C: DATA #2                 Only the second time, counted over all connections.
//! close
//! -- mx1 +10m --             Connections from then on meet this. A later zone replaces the one before.
//! -- expect --               All that happens to recipients, and no more, to the second.
//! +0s deferred  bob@example.test dsn=4.3.2 host=mx1.example.test
//! +5d bounced   bob@example.test reason=expired to=alice@home.test
//! +1h end                    Ends before everything has ended.
//! mx1 connections=1 messages=0..2 left=+5m dials=1 from=192.0.2.7,192.0.2.8
//! mx1 hears MAIL FROM:<alice@home.test>*
//! mx1 never hears DATA
//! mx1 gets Subject: content  A line of the content of a message that it took; `never gets` too.
//! dns MX example.test asked=1
//! ```
//!
//! Events are `delivered`, `deferred`, `bounced`, `removed`, and `delayed` where the sender was told that; `failed` and
//! `relayed` where he was told later than it happened, or more than once. `*` stands for anything in their values: `dsn` (the status), `host` (its name, or its address if it has none), `ip`, `code`, `reply`,
//! `attempt`; `tls` is its version, `to` who was sent a report about it, `reason` is `expired`, and these three must be there
//! if they are so. `times=3` is for the same three times. That `home` takes a report at once needs no line. Lines about what a
//! host hears come in order. `left` is when its last connection ended, `dials` counts tries to connect; `from`
//! are the addresses that they came from, in order, and empty if the client left that to the system.
//!
//! In every scenario the client waits for replies where it must (RFC 5321 §4.3.1), and without `end` nothing is left in queue
//! or spool.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::format_collect, clippy::format_push_string, reason = "the text is short")]

mod events;
mod expect;
mod file;
mod host;
mod message;
mod network;
mod play;

use std::{fs, path::Path};

use file::Scenario;

/// Plays a scenario: what has come of it, and what of that is otherwise than expected.
fn play(name: &str, text: &str) -> (String, String) {
    let wrong = |file::Wrong(line, what)| (String::new(), format!("{name}:{line}: {what}\n"));
    let scenario = match Scenario::parse(text) {
        Ok(scenario) => scenario,
        Err(error) => return wrong(error),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let seen = match runtime.block_on(play::play(&scenario)) {
        Ok(seen) => seen,
        Err(error) => return wrong(error),
    };
    let differences = scenario.expected.compare(&seen);
    (seen.shown(), differences.iter().map(|difference| format!("{name}:{difference}\n")).collect())
}

#[test]
fn every_scenario_ends_as_its_file_says() {
    let only = std::env::var("SCENARIO").ok();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut differences = String::new();
    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        if only.as_ref().is_none_or(|only| name.starts_with(only.as_str())) {
            let (seen, different) = play(name, &fs::read_to_string(path).unwrap());
            if only.is_some() {
                show(name, &seen);
            }
            if !different.is_empty() {
                differences += &format!("{different}{name} came to this:\n{seen}");
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
    assert!(paths.len() >= 60, "the scenarios are there");
}

#[expect(clippy::print_stdout, reason = "it was asked for")]
fn show(name: &str, seen: &str) {
    println!("{name} came to this:\n{seen}");
}

const SCENARIO: &str = "# What it shows.
-- zone --
one.test.  MX 10 mx1.one.test.
-- message --
<alice@home.test> -> <bob@one.test>
                  -> <carol@one.test>
-- mx1 --
C: RCPT <bob@one.test>
S: 550 5.1.1 who?
-- expect --
+0s  bounced    bob@one.test    dsn=5.1.1 code=550 reply=\"*who?\" host=mx1.one.test to=alice@home.test
+0s  delivered  carol@one.test  attempt=1
mx1  connections=1 messages=1 left=+5m
mx1  hears RCPT TO:<bob@one.test>
home messages=1
";

#[test]
fn what_happens_otherwise_is_found_with_its_line() {
    assert_eq!(play("file", SCENARIO).1, "");
    for (from, to, lines) in [
        (
            "+0s  delivered",
            "+1s  delivered",
            &["file:12: did not happen: +1s  delivered", "file: not expected: +0s delivered carol@one.test"]
                [..],
        ),
        (
            "+0s  delivered  carol@one.test  attempt=1\n",
            "",
            &["file: not expected: +0s delivered carol@one.test"],
        ),
        ("attempt=1", "attempt=1 times=2", &["file:12: did not happen: +0s  delivered"]),
        (
            "5.1.1 code",
            "5.1.2 code",
            &["file:11: did not happen", "file: not expected: +0s bounced bob@one.test"],
        ),
        (
            " to=alice@home.test",
            "",
            &["file:11: did not happen", "file: not expected: +0s bounced bob@one.test"],
        ),
        ("connections=1", "connections=2", &["file:13: mx1 connections is 1"]),
        ("left=+5m", "left=+6m", &["file:13: mx1 left is +5m"]),
        ("hears RCPT", "never hears RCPT", &["file:14: it was said: RCPT TO:<bob@one.test>"]),
        ("hears RCPT TO:<bob@", "hears RCPT TO:<rob@", &["file:14: mx1 does not hear this (any more)"]),
        ("home messages=1", "home messages=0", &["file:15: home messages is 1"]),
    ] {
        let changed = SCENARIO.replace(from, to);
        assert_ne!(changed, SCENARIO, "{from}");
        let found = play("file", &changed).1;
        for line in lines {
            assert!(found.contains(line), "{line} is not in\n{found}");
        }
    }
}

#[test]
fn what_a_file_must_not_say_is_found_with_its_line() {
    for (from, to, line) in [
        ("-- zone --", "-- zoo --", "file:2: no host of the zone is called zoo"),
        ("-- zone --", "-- zone soon --", "file:2: not a section: -- zone soon --"),
        ("MX 10", "MX", "file:3: not a line of a zone"),
        ("<alice@home.test>", "alice", "file:5: not a message"),
        (
            "<bob@one.test>\n   ",
            "<bob@one.test> MAYBE=1\n   ",
            "file:5: not a parameter of a recipient: MAYBE=1",
        ),
        ("S: 550", "T: 550", "file:9: not a line of a host"),
        ("C: RCPT", "C: MAILS", "file:8: no step of the dialogue: MAILS"),
        ("bounced ", "returned ", "file:11: no event: returned"),
        ("dsn=5", "status=5", "file:11: no such value: status"),
        ("+0s  bounced", "+soon  bounced", "file:11: not a time: +soon"),
        ("mx1  connections", "mx3  connections", "file:13: no host is called mx3"),
        ("connections=1", "talks=1", "file:13: no such value: talks"),
        ("connections=1", "connections=few", "file:13: not a number: few"),
        ("left=+5m", "left=5", "file:13: not a time: 5"),
        (
            "-- message --",
            "-- config --\n(retries: ())\n-- message --",
            "file:5: Unexpected field named `retries`",
        ),
        ("-- message --", "-- config --\n(mx_port: 0)\n-- message --", "file:4: mx_port: there is no port 0"),
        ("-- expect --", "-- expects --", "file:10: no host of the zone is called expects"),
    ] {
        let changed = SCENARIO.replacen(from, to, 1);
        assert_ne!(changed, SCENARIO, "{from}");
        let found = play("file", &changed).1;
        assert!(found.starts_with(line), "{line} is not in\n{found}");
    }
}
