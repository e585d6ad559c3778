//! What is wrong with this host stays in its log and queue: senders are told that, and no more.

use std::{path::Path, time::Duration};

use empath_common::MessageId;
use empath_delivery::config::DomainConfig;
use empath_testkit::peer::{Peer, Script};
use tempfile::TempDir;

use crate::world::{World, routes};

/// A message of Alice's to Bob, whose Maildir can't be written.
async fn blocked(max_attempts: u32) -> (World, Peer, TempDir, MessageId) {
    let (home, directory) = (Peer::start(Script::new()).await.unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(directory.path().join("bob@example.test"), "in the way").unwrap();
    let mut config = routes(&[("home.test", &home)]);
    config.retry.max_attempts = max_attempts;
    let maildir = Some(directory.path().join("{address}"));
    config
        .domains
        .insert("example.test".parse().unwrap(), DomainConfig { maildir, ..DomainConfig::default() });
    let mut world = World::new(config);
    let id = world.accept("alice@home.test", &["bob@example.test"]).await;
    (world, home, directory, id)
}

fn check(home: &Peer, directory: &Path, fields: &str) {
    let report = String::from_utf8(home.messages().pop().unwrap().content).unwrap();
    let diagnostic = "Diagnostic-Code: x-empath; the mail system has a local problem\r\n";
    assert!(report.contains(fields) && report.contains(diagnostic), "{report}");
    assert!(!report.contains(directory.to_str().unwrap()) && !report.contains("os error"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_sender_of_mail_that_bounces_for_it_hears_no_details() {
    let (world, home, directory, _) = blocked(1).await;
    world.done().await;
    check(&home, directory.path(), "Action: failed\r\nStatus: 4.3.0\r\n");
}

#[tokio::test(start_paused = true)]
async fn nor_does_the_sender_of_mail_that_is_late_or_expires_also_after_a_restart() {
    let (mut world, home, directory, id) = blocked(1000).await;
    world.at(world.clock.now() + Duration::from_hours(5)).await;
    check(&home, directory.path(), "Action: delayed\r\nStatus: 4.3.0\r\n");
    world.restart().await;
    let reply = world.recipient(id).await.last_reply.unwrap();
    assert!(reply.text.contains(directory.path().to_str().unwrap()), "an operator sees it: {reply:?}");
    world.done().await;
    check(&home, directory.path(), "Action: failed\r\nStatus: 4.4.7\r\n");
}
