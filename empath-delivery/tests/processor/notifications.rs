//! Senders are told what they asked for (RFC 3461 §5.2).

use std::time::Duration;

use empath_common::{
    Envelope, EnvelopeId, MessageNotification, Notify, OriginalRecipient, RecipientNotification, Ret,
};
use empath_delivery::{Config, config::DomainConfig};
use empath_testkit::peer::{Act, At, Peer, Script};

use crate::world::{CONTENT, World, routes};

fn asks(envelope: &mut Envelope, recipient: usize, notify: &str) {
    let orcpt = OriginalRecipient::parse(b"rfc822;Original+2Bx@Elsewhere.test");
    envelope.ask_about(recipient, RecipientNotification { notify: Notify::parse(notify.as_bytes()), orcpt });
}

fn returns(ret: Ret) -> MessageNotification {
    MessageNotification { ret: Some(ret), envid: EnvelopeId::parse(b"QQ+2B1") }
}

/// What the sender at `home` was told.
fn reports(home: &Peer) -> Vec<String> {
    let text = |content: Vec<u8>| String::from_utf8(content).unwrap();
    home.messages().into_iter().map(|message| text(message.content)).collect()
}

async fn refusing() -> Peer {
    Peer::start(Script::new().on(At::RcptTo, Act::reply("550 5.1.1 no such user"))).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_to_those_alone_who_want_to_hear_of_it() {
    let one = refusing().await;
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let recipients = ["never@one.test", "success@one.test", "failure@one.test", "unasked@one.test"];
    world
        .accept_asking("alice@home.test", &recipients, |envelope| {
            asks(envelope, 0, "NEVER");
            asks(envelope, 1, "SUCCESS,DELAY");
            asks(envelope, 2, "FAILURE");
            envelope.ask(returns(Ret::Headers));
        })
        .await;
    world.accept_asking("alice@home.test", &["never@one.test"], |envelope| asks(envelope, 0, "NEVER")).await;
    world.done().await;
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("Original-Envelope-Id: QQ+1\r\n"), "{report}");
    assert!(
        report.contains(
            "Original-Recipient: rfc822; Original+x@Elsewhere.test\r\nFinal-Recipient: rfc822; failure@one.test\r\n"
        ),
        "{report}"
    );
    assert!(report.contains("\r\n\r\nFinal-Recipient: rfc822; unasked@one.test\r\n"), "{report}");
    assert!(!report.contains("never@") && !report.contains("success@"), "{report}");
    assert!(report.contains("text/rfc822-headers") && !report.contains("message/rfc822"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_expires_is_reported_to_those_alone_who_want_to_hear_of_it() {
    let one = Peer::start(Script::new().on(At::RcptTo, Act::reply("451 4.7.1 later"))).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut config = routes(&[("one.test", &one), ("home.test", &home)]);
    config.retry.expire_after = Duration::from_hours(1);
    let mut world = World::new(config);
    let ask = |envelope: &mut Envelope| asks(envelope, 0, "NEVER");
    world.accept_asking("alice@home.test", &["never@one.test", "unasked@one.test"], ask).await;
    world.accept_asking("alice@home.test", &["alone@one.test"], ask).await;
    world.done().await;
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("Final-Recipient: rfc822; unasked@one.test\r\n"), "{report}");
    assert!(!report.contains("never@one.test"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_whole_message_comes_back_with_a_failure_if_it_was_asked_for() {
    let one = refusing().await;
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let ask = |envelope: &mut Envelope| envelope.ask(returns(Ret::Full));
    world.accept_asking("alice@home.test", &["bob@one.test"], ask).await;
    world.done().await;
    let [report] = reports(&home).try_into().unwrap();
    let content = str::from_utf8(CONTENT).unwrap();
    assert!(report.contains("Content-Type: message/rfc822\r\n") && report.contains(content), "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_care_of_reports_is_told_what_to_report_and_we_report_nothing() {
    let one = Peer::start(Script::new().offer(["PIPELINING", "DSN"])).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    world
        .accept_asking("alice@home.test", &["bob@one.test", "carol@one.test"], |envelope| {
            asks(envelope, 0, "SUCCESS,FAILURE");
            envelope.ask(returns(Ret::Full));
        })
        .await;
    world.done().await;
    let said = one.transcript();
    for line in [
        "MAIL FROM:<alice@home.test> RET=FULL ENVID=QQ+2B1\n",
        "RCPT TO:<bob@one.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Original+2Bx@Elsewhere.test\n",
        "RCPT TO:<carol@one.test>\n",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_eq!(reports(&home), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_sends_no_reports_is_told_nothing_and_we_report_that_it_has_the_message() {
    let one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let ask = |envelope: &mut Envelope| {
        asks(envelope, 0, "SUCCESS");
        asks(envelope, 1, "FAILURE,DELAY");
        envelope.ask(returns(Ret::Full));
    };
    world.accept_asking("alice@home.test", &["bob@one.test", "carol@one.test"], ask).await;
    // Nobody is told.
    world.accept_asking("", &["bob@one.test"], ask).await;
    world.done().await;
    assert!(!one.transcript().contains("NOTIFY") && !one.transcript().contains("RET="));
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("Subject: Your mail has arrived\r\n"), "{report}");
    assert!(
        report.contains("Final-Recipient: rfc822; bob@one.test\r\nAction: relayed\r\nStatus: 2."),
        "{report}"
    );
    assert!(!report.contains("carol@one.test"), "{report}");
    assert!(report.contains("text/rfc822-headers"), "RFC 3461 §4.3: RET is for failures; {report}");
    assert_eq!(one.messages().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_into_a_maildir_is_reported() {
    let home = Peer::start(Script::new()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config: Config = routes(&[("home.test", &home)]);
    let maildir = Some(directory.path().join("{address}"));
    config.domains.insert("local.test".parse().unwrap(), DomainConfig { maildir, ..DomainConfig::default() });
    let mut world = World::new(config);
    let ask = |envelope: &mut Envelope| asks(envelope, 0, "SUCCESS");
    world.accept_asking("alice@home.test", &["bob@local.test", "cid@local.test"], ask).await;
    world.done().await;
    let [report] = reports(&home).try_into().unwrap();
    let told = "Final-Recipient: rfc822; bob@local.test\r\nAction: delivered\r\nStatus: 2.0.0\r\n";
    assert!(report.contains(told) && !report.contains("cid@local.test"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn one_report_tells_of_success_and_failure() {
    let script = Script::new().on(At::Recipient("cid@one.test".into()), Act::reply("550 5.1.1 no such user"));
    let one = Peer::start(script).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    let ask = |envelope: &mut Envelope| {
        (0..2).for_each(|recipient| asks(envelope, recipient, "SUCCESS,FAILURE"));
    };
    world.accept_asking("alice@home.test", &["bob@one.test", "cid@one.test"], ask).await;
    world.done().await;
    let [report] = reports(&home).try_into().unwrap();
    assert!(report.contains("Final-Recipient: rfc822; bob@one.test\r\nAction: relayed\r\n"), "{report}");
    assert!(report.contains("Final-Recipient: rfc822; cid@one.test\r\nAction: failed\r\n"), "{report}");
}

#[tokio::test(start_paused = true)]
async fn success_is_not_reported_unasked() {
    let one = Peer::start(Script::new()).await.unwrap();
    let home = Peer::start(Script::new()).await.unwrap();
    let mut world = World::new(routes(&[("one.test", &one), ("home.test", &home)]));
    world.accept("alice@home.test", &["bob@one.test"]).await;
    world.accept_asking("alice@home.test", &["bob@one.test"], |envelope| asks(envelope, 0, "NEVER")).await;
    world.done().await;
    assert_eq!(reports(&home), [""; 0]);
}
