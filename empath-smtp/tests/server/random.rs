//! Octets that no client would send.

use empath_smtp::server::{BareNewlines, Config, Mode};
use proptest::prelude::*;

use crate::{intake::Shelf, machine::Machine, model::Model, script::default_config};

/// Pieces from which most of the protocol can be reached, and noise.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "EHLO c.example\r\n", "HELO c.example\r\n", "MAIL FROM:<a@o.example>\r\n", "MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
            "MAIL FROM:<a@o.example> HOLDFOR=60 MT-PRIORITY=-9\r\n", "MAIL FROM:<a@o.example> HOLDUNTIL=2026-11-22T00:00:00Z\r\n",
            "RCPT TO:<b@test.example>\r\n", "RCPT TO:<Postmaster>\r\n", "RCPT TO:<c@other.example>\r\n", "DATA\r\n", "RSET\r\n",
            "NOOP\r\n", "QUIT\r\n", "VRFY x\r\n", "\r\n.\r\n", ".\r\n", "Subject: x\r\n", "Received: x\r\n", "BDAT 5\r\n", "BDAT 0\r\n", "BDAT 0 LAST\r\n", "BDAT 9 LAST\r\nab\r\n.\r\nc",
            "MAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nBDAT 3\r\na\r\n", "BDAT -1\r\n", "BDAT 99999999999\r\n", "..\r\n", ".", "\r", "\n",
            "\0", "\r\n", "MAIL FROM:<a@o.example>\r\nRCPT TO:<b@test.example>\r\nDATA\r\n",
            "AUTH PLAIN\r\n", "AUTH LOGIN\r\n", "AUTH SCRAM-SHA-256 biwsbj11LHI9eA==\r\n", "*\r\n", "=\r\n", "dQ==\r\n",
            "Yz1iaXdzLHI9eHNlcnZlck5vbmNlLHA9QUFBQQ==\r\n", "AUTH PLAIN AGFsaWNlQHRlc3QuZXhhbXBsZQBzZWNyZXQ=\r\n",
            "AGFsaWNlQHRlc3QuZXhhbXBsZQBzZWNyZXQ=\r\n", "EHLO c.example\r\nAUTH PLAIN AGFsaWNlQHRlc3QuZXhhbXBsZQBzZWNyZXQ=\r\n",
            "MAIL FROM:<x@alice.example>\r\nRCPT TO:<c@other.example>\r\nDATA\r\n", "From: x@alice.example\r\n", "From: boss@o.example\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 1900..2200_usize).prop_map(|(octet, len)| vec![octet; len]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_octets_and_no_splits_bring_the_session_down_and_splits_change_nothing(
        stream in stream(),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        normalize in any::<bool>(),
        submission in any::<bool>(),
    ) {
        let bare_newlines = if normalize { BareNewlines::Normalize } else { BareNewlines::Reject };
        let mut config = Config { bare_newlines, ..serde_json::from_value(default_config()).unwrap() };
        config.auth.users_file = Some("users".into());
        config.auth.require_tls = false;
        config.listeners[0].mode = if submission { Mode::Submission } else { Mode::Relay };
        let mut at: Vec<_> = splits.iter().map(|split| split.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let whole = vec![stream.clone()];
        let parts = at.windows(2).map(|pair| stream.get(pair[0]..pair[1]).unwrap().to_vec()).collect();
        let octets = stream.iter().map(|octet| vec![*octet]).collect();
        let results = [whole, parts, octets].map(|chunks: Vec<Vec<u8>>| {
            let shelf = Shelf::default();
            let mut machine = Machine::new(&config, "203.0.113.9".parse().unwrap(), &shelf);
            for chunk in &chunks { machine.feed(chunk); }
            (machine.output(), shelf.messages(), machine.closed)
        });
        let model = Model::new(submission);
        if let Some(messages) = model.follow(&stream, &results[0].0, results[0].2) {
            prop_assert_eq!(messages, results[0].1.len());
        }
        prop_assert_eq!(&results[0], &results[1]);
        prop_assert_eq!(&results[0], &results[2]);
        for (_, content) in &results[0].1 {
            let text = String::from_utf8_lossy(content).replace("\r\n", "");
            prop_assert!(!text.contains(['\r', '\n', '\0']), "content is clean lines");
        }
    }
}
