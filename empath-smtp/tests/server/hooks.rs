//! What hooks decide and remember.

use std::sync::{Arc, Mutex};

use empath_common::{Answer, Asked, Hook, Metadata, Query, Reply, Verdict};
use empath_smtp::server::Config;

use crate::{intake::Shelf, machine::Machine, script::default_config};

/// Notes every question, remembers something at each, and refuses what is said to be refused.
#[derive(Default)]
struct Witness {
    asked: Mutex<Vec<String>>,
    refuse: Option<&'static str>,
    reply: Option<Reply>,
}

impl Hook for Witness {
    fn ask<'a>(&'a self, query: Query<'a>) -> Asked<'a> {
        let (name, subject) = match query {
            Query::Connect(client) => ("connect", client.peer.ip().to_string()),
            Query::Ehlo(client) => ("ehlo", client.helo.as_deref().unwrap_or_default().to_owned()),
            Query::MailFrom(_, path) => ("mail", path.to_string()),
            Query::RcptTo(_, sender, path) => ("rcpt", format!("{sender} {path}")),
            Query::Data(_, envelope) => ("data", envelope.recipients().len().to_string()),
        };
        self.asked.lock().unwrap().push(format!("{name} {subject}"));
        let mut metadata = Metadata::default();
        metadata.insert(format!("{name} {subject}"), "seen".to_owned()).unwrap();
        let refused = self.refuse.is_some_and(|what| format!("{name} {subject}").starts_with(what));
        let reply = self.reply.clone().unwrap_or(Reply::new(550, (5, 7, 1), "Not today"));
        let verdict = if refused { Verdict::Refuse(reply) } else { Verdict::Accept };
        Asked::Now(Answer { verdict, metadata })
    }
}

fn play(witness: &Arc<Witness>, commands: &str) -> (Machine, Shelf) {
    let config: Config = serde_json::from_value(default_config()).unwrap();
    let shelf = Shelf::default();
    let hook: Arc<dyn Hook> = Arc::<Witness>::clone(witness);
    let mut machine = Machine::with_hooks(&config, "203.0.113.9".parse().unwrap(), &shelf, vec![hook]);
    machine.feed(commands.as_bytes());
    (machine, shelf)
}

fn metadata(shelf: &Shelf) -> Vec<Vec<String>> {
    let messages = shelf.messages();
    messages
        .iter()
        .map(|(envelope, _)| envelope.metadata.iter().map(|(name, _)| name.to_owned()).collect())
        .collect()
}

const MESSAGE: &str =
    "EHLO c.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\nx\r\n.\r\n";

#[test]
fn every_step_of_a_transaction_is_asked_about_in_order() {
    let witness = Arc::default();
    let (machine, _) = play(&witness, MESSAGE);
    assert_eq!(machine.codes(), [220, 250, 250, 250, 354, 250]);
    let asked = witness.asked.lock().unwrap();
    let rcpt = "rcpt <a@o.example> <b@test.example>";
    assert_eq!(*asked, ["connect 203.0.113.9", "ehlo c.example", "mail <a@o.example>", rcpt, "data 1"]);
}

#[test]
fn metadata_of_a_transaction_travels_with_its_message_and_with_no_other() {
    let commands = "EHLO c.example\r\nMAIL FROM:<first@o.example>\r\nRCPT TO:<b@test.example>\r\nRSET\r\n\
        MAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nRCPT TO:<c@test.example>\r\nDATA\r\nx\r\n.\r\n\
        MAIL FROM:<>\r\nRCPT TO:<d@test.example>\r\nDATA\r\nx\r\n.\r\n";
    let (_, shelf) = play(&Arc::default(), commands);
    assert_eq!(
        metadata(&shelf),
        [
            vec![
                "data 2",
                "mail <a@o.example>",
                "rcpt <a@o.example> <b@test.example>",
                "rcpt <a@o.example> <c@test.example>"
            ],
            vec!["data 1", "mail <>", "rcpt <> <d@test.example>"],
        ]
    );
}

#[test]
fn a_refused_recipient_leaves_no_metadata() {
    let witness = Arc::new(Witness { refuse: Some("rcpt <> <no@"), ..Witness::default() });
    let commands = "EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<no@test.example>\r\nRCPT TO:<b@test.example>\r\n\
        RCPT TO:<no@test.example>\r\nDATA\r\nx\r\n.\r\n";
    let (machine, shelf) = play(&witness, commands);
    assert_eq!(machine.codes(), [220, 250, 250, 550, 250, 550, 354, 250]);
    assert_eq!(metadata(&shelf), [["data 1", "mail <>", "rcpt <> <b@test.example>"]]);
}

#[test]
fn a_refused_first_chunk_is_consumed_with_its_commands_for_content() {
    let commands = "EHLO c.example\r\nMAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\n\
        BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\nNOOP\r\n";
    let witness = Arc::new(Witness { refuse: Some("data"), ..Witness::default() });
    let (machine, shelf) = play(&witness, commands);
    assert_eq!(machine.codes(), [220, 250, 250, 250, 550, 503, 250]);
    assert!(shelf.messages().is_empty());
    let (machine, shelf) = play(&Arc::default(), commands);
    assert_eq!(machine.codes(), [220, 250, 250, 250, 250, 250, 250]);
    assert_eq!(metadata(&shelf)[0][0], "data 1", "asked once");
}

#[test]
fn a_refusal_is_the_reply_and_nothing_else_changes() {
    for (refuse, codes) in [
        ("connect", &[550][..]),
        ("ehlo", &[220, 550, 503, 503, 503, 500, 500]),
        ("mail", &[220, 250, 550, 503, 503, 500, 500]),
        ("rcpt", &[220, 250, 250, 550, 503, 500, 500]),
        ("data", &[220, 250, 250, 250, 550, 500, 500]),
    ] {
        let witness = Arc::new(Witness { refuse: Some(refuse), ..Witness::default() });
        let (machine, shelf) = play(&witness, MESSAGE);
        assert_eq!(machine.codes(), codes, "{refuse}");
        assert_eq!(machine.closed, refuse == "connect", "{refuse}");
        assert!(shelf.messages().is_empty(), "{refuse}");
    }
}

#[test]
fn a_refused_name_is_forgotten_and_the_earlier_one_stays() {
    let witness = Arc::new(Witness { refuse: Some("ehlo bad"), ..Witness::default() });
    let commands = "EHLO good.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@test.example>\r\nEHLO bad.example\r\n\
        DATA\r\nx\r\n.\r\n";
    let (machine, shelf) = play(&witness, commands);
    assert_eq!(machine.codes(), [220, 250, 250, 250, 550, 354, 250]);
    let messages = shelf.messages();
    let content = str::from_utf8(&messages[0].1).unwrap();
    assert!(content.starts_with("Received: from good.example ("), "{content}");
}

#[test]
fn a_hook_that_refuses_with_success_is_broken_and_counts_as_451() {
    let reply = Some(Reply::new(250, (2, 0, 0), "I refuse"));
    let witness = Arc::new(Witness { refuse: Some("mail"), reply, ..Witness::default() });
    let (machine, _) = play(&witness, "EHLO c.example\r\nMAIL FROM:<>\r\n");
    assert_eq!(machine.codes(), [220, 250, 451]);
}
