use std::io;

use empath_smtp::client::{GarbledReason, Mechanisms};

use super::*;
use Disposition::{Bounce, Defer, TryNextHost};

fn at(stage: Stage, kind: FailureKind) -> Failure {
    client::Failure { stage, kind }.into()
}

fn name() -> empath_common::Domain {
    "example.test".parse().unwrap()
}

fn reply(stage: Stage, code: u16) -> Failure {
    at(stage, FailureKind::Refused(Reply::plain(code, "no")))
}

/// Failure, disposition with more hosts, without, status.
fn check(table: &[(Failure, Disposition, Disposition, &str)]) {
    for (failure, with_more, without, status) in table {
        assert_eq!(disposition(failure, true), *with_more, "{failure:?}");
        assert_eq!(disposition(failure, false), *without, "{failure:?}");
        assert_eq!(failure.status.to_string(), *status, "{failure:?}");
    }
}

fn said(code: u16, enhanced: &str) -> FailureKind {
    FailureKind::Refused(Reply { enhanced: enhanced.parse().ok(), ..Reply::plain(code, "no") })
}

/// The same on a footing.
fn check_on<const N: usize>(table: [(Footing, Stage, FailureKind, Disposition, Disposition, &str); N]) {
    check(&table.map(|(footing, stage, kind, more, none, status)| {
        (Failure::at(footing, client::Failure { stage, kind }), more, none, status)
    }));
}

#[test]
fn every_failure_of_a_transaction_has_its_disposition_and_status() {
    let refused = FailureKind::Io(io::ErrorKind::ConnectionRefused);
    let table = [
        (at(Stage::Connect, refused), TryNextHost, Defer, "4.4.1"),
        (at(Stage::Connect, FailureKind::Timeout), TryNextHost, Defer, "4.4.1"),
        (at(Stage::Greeting, FailureKind::Timeout), TryNextHost, Defer, "4.4.2"),
        (at(Stage::Content, FailureKind::Closed), TryNextHost, Defer, "4.4.2"),
        (at(Stage::Content, FailureKind::Unreadable), TryNextHost, Defer, "4.3.0"),
        (at(Stage::EndOfData, FailureKind::Closed), TryNextHost, Defer, "4.4.2"),
        (at(Stage::Ehlo, FailureKind::Garbled(GarbledReason::NoCode)), TryNextHost, Defer, "4.5.0"),
        (at(Stage::StartTls, FailureKind::Unsupported(Feature::StartTls)), TryNextHost, Defer, "4.7.4"),
        (reply(Stage::StartTls, 554), TryNextHost, Defer, "4.7.4"),
        (reply(Stage::StartTls, 454), TryNextHost, Defer, "4.7.4"),
        (reply(Stage::StartTls, 421), TryNextHost, Defer, "4.0.0"),
        (at(Stage::StartTls, FailureKind::Timeout), TryNextHost, Defer, "4.4.2"),
        (at(Stage::Handshake, FailureKind::Timeout), TryNextHost, Defer, "4.7.5"),
        (at(Stage::Handshake, FailureKind::Closed), TryNextHost, Defer, "4.7.5"),
        (at(Stage::MailFrom, FailureKind::Unsupported(Feature::EightBitMime)), TryNextHost, Bounce, "5.6.3"),
        (at(Stage::MailFrom, FailureKind::Unsupported(Feature::Smtputf8)), TryNextHost, Bounce, "5.6.7"),
        (at(Stage::MailFrom, FailureKind::Unsupported(Feature::Size)), TryNextHost, Bounce, "5.3.4"),
        (reply(Stage::Greeting, 554), TryNextHost, Bounce, "5.0.0"),
        (reply(Stage::Greeting, 421), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::Ehlo, 550), TryNextHost, Bounce, "5.0.0"),
        (reply(Stage::EhloAgain, 550), TryNextHost, Defer, "4.7.4"),
        (reply(Stage::EhloAgain, 421), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::Auth, 535), TryNextHost, Defer, "4.7.8"),
        (reply(Stage::Auth, 454), TryNextHost, Defer, "4.7.0"),
        (reply(Stage::Auth, 421), TryNextHost, Defer, "4.3.2"),
        (at(Stage::Auth, FailureKind::Impostor), TryNextHost, Defer, "4.7.8"),
        (
            at(Stage::Auth, FailureKind::Unsupported(Feature::Password(Mechanisms::default()))),
            TryNextHost,
            Defer,
            "4.7.4",
        ),
        (
            at(Stage::Auth, FailureKind::Unsupported(Feature::Token(Mechanisms::default()))),
            TryNextHost,
            Defer,
            "4.7.4",
        ),
        (reply(Stage::Lhlo, 500), TryNextHost, Defer, "4.3.5"),
        (reply(Stage::Lhlo, 421), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::MailFrom, 550), Bounce, Bounce, "5.0.0"),
        (reply(Stage::MailFrom, 451), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::RcptTo, 550), Bounce, Bounce, "5.0.0"),
        (reply(Stage::RcptTo, 450), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::RcptTo, 552), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::RcptTo, 421), TryNextHost, Defer, "4.0.0"),
        (reply(Stage::Data, 554), Bounce, Bounce, "5.0.0"),
        (reply(Stage::EndOfData, 552), Bounce, Bounce, "5.0.0"),
        (reply(Stage::EndOfData, 451), TryNextHost, Defer, "4.0.0"),
    ];
    check(&table);
}

#[test]
fn a_host_that_wants_tls_bounces_nothing_in_clear_text_if_it_offers_it() {
    let (bare, usual) = (Footing { bare: true, configured: false }, Footing::default());
    let wanted = |code, enhanced: &str| match said(code, enhanced) {
        FailureKind::Refused(reply) => FailureKind::Refused(reply.with_text("StartTLS required".to_owned())),
        kind => kind,
    };
    let table = [
        (bare, Stage::MailFrom, said(530, "5.7.0"), TryNextHost, Defer, "4.7.4"),
        (bare, Stage::MailFrom, said(530, ""), TryNextHost, Defer, "4.7.4"),
        (bare, Stage::RcptTo, wanted(550, "5.7.1"), TryNextHost, Defer, "4.7.4"),
        (bare, Stage::EndOfData, said(554, "5.7.10"), TryNextHost, Defer, "4.7.4"),
        (bare, Stage::EndOfData, said(554, "5.7.1"), Bounce, Bounce, "5.7.1"),
        (bare, Stage::RcptTo, wanted(550, "5.1.1"), Bounce, Bounce, "5.1.1"),
        (bare, Stage::RcptTo, said(550, "5.1.1"), Bounce, Bounce, "5.1.1"),
        (bare, Stage::MailFrom, said(550, ""), Bounce, Bounce, "5.0.0"),
        (bare, Stage::RcptTo, said(450, "4.7.1"), TryNextHost, Defer, "4.7.1"),
        (usual, Stage::MailFrom, said(530, "5.7.0"), Bounce, Bounce, "5.7.0"),
        (usual, Stage::RcptTo, wanted(550, "5.7.1"), Bounce, Bounce, "5.7.1"),
    ];
    check_on(table);
}

#[test]
fn a_configured_host_that_refuses_us_bounces_nothing() {
    let (configured, usual) = (Footing { configured: true, bare: false }, Footing::default());
    let table = [
        (configured, Stage::Greeting, said(554, ""), TryNextHost, Defer, "4.7.0"),
        (configured, Stage::Ehlo, said(550, "5.7.1"), TryNextHost, Defer, "4.7.0"),
        (configured, Stage::MailFrom, said(530, "5.7.0"), TryNextHost, Defer, "4.7.0"),
        (configured, Stage::RcptTo, said(530, ""), TryNextHost, Defer, "4.7.0"),
        (configured, Stage::Auth, said(535, ""), TryNextHost, Defer, "4.7.8"),
        (configured, Stage::MailFrom, said(550, "5.7.1"), Bounce, Bounce, "5.7.1"),
        (configured, Stage::RcptTo, said(554, "5.7.1"), Bounce, Bounce, "5.7.1"),
        (configured, Stage::Greeting, said(421, ""), TryNextHost, Defer, "4.0.0"),
        (usual, Stage::Greeting, said(554, ""), TryNextHost, Bounce, "5.0.0"),
        (usual, Stage::MailFrom, said(530, "5.7.0"), Bounce, Bounce, "5.7.0"),
    ];
    check_on(table);
}

#[test]
fn what_dns_and_this_host_say_has_its_disposition_and_status_too() {
    let table = [
        ((&ResolveError::NullMx(name())).into(), Bounce, Bounce, "5.1.10"),
        ((&ResolveError::NoSuchDomain(name())).into(), Bounce, Bounce, "5.1.2"),
        ((&ResolveError::ServerFailure(name())).into(), TryNextHost, Defer, "4.4.3"),
        ((&ResolveError::Refused(name())).into(), TryNextHost, Defer, "4.4.3"),
        ((&ResolveError::Timeout(name())).into(), TryNextHost, Defer, "4.4.3"),
        ((&ResolveError::Busy(name())).into(), TryNextHost, Defer, "4.4.5"),
        ((&ResolveError::NoAddress(name())).into(), Bounce, Bounce, "5.4.4"),
        ((&ResolveError::NoHost(name())).into(), TryNextHost, Defer, "4.4.4"),
        ((&ResolveError::Unusable(name())).into(), TryNextHost, Defer, "4.4.4"),
        (Failure::of_host(&ResolveError::NoSuchDomain(name())), TryNextHost, Bounce, "5.4.4"),
        (Failure::of_host(&ResolveError::Timeout(name())), TryNextHost, Defer, "4.4.3"),
        (Failure::of_configured_host(&ResolveError::NoSuchDomain(name())), TryNextHost, Defer, "4.3.5"),
        (Failure::loops_back(), Bounce, Bounce, "5.4.6"),
        (Failure::configured_loop(), TryNextHost, Defer, "4.3.5"),
        (Failure::local("damaged"), TryNextHost, Defer, "4.3.0"),
    ];
    check(&table);
}

#[test]
fn the_code_wins_over_the_enhanced_status() {
    let table =
        [(550, "2.1.5", "5.1.5"), (450, "5.1.1", "4.1.1"), (550, "5.7.1", "5.7.1"), (552, "5.5.3", "4.5.3")];
    for (code, said, status) in table {
        let reply = Reply { enhanced: Some(said.parse().unwrap()), ..Reply::plain(code, "x") };
        let failure = at(Stage::RcptTo, FailureKind::Refused(reply));
        assert_eq!(failure.status.to_string(), status, "{code} {said}");
    }
}

#[test]
fn a_dead_host_and_one_that_refuses_us_are_no_bounce() {
    let dead = at(Stage::Connect, FailureKind::Timeout);
    let closed_to_us = reply(Stage::Greeting, 554);
    assert!(dead.outweighs(&closed_to_us));
    assert!(!closed_to_us.outweighs(&dead));
    assert!(!closed_to_us.outweighs(&closed_to_us));
    // A host that knows the recipient has the last word.
    assert!(!dead.outweighs(&reply(Stage::RcptTo, 550)));
}

#[test]
fn what_a_host_says_of_the_mail_remains_when_another_host_is_dead() {
    let (dead, busy) = (at(Stage::Connect, FailureKind::Timeout), reply(Stage::RcptTo, 450));
    assert!(busy.outweighs(&dead) && busy.outweighs(&reply(Stage::Greeting, 421)));
    assert!(!dead.outweighs(&busy) && !busy.outweighs(&busy));
    let denied = reply(Stage::Auth, 535);
    assert!(denied.reply.is_none() && denied.outweighs(&dead) && !dead.outweighs(&denied));
    let full = reply(Stage::Greeting, 451);
    assert!(full.outweighs(&dead) && !dead.outweighs(&full));
}

#[test]
fn a_host_that_says_421_has_no_time_whatever_it_was_asked() {
    for stage in
        [Stage::Greeting, Stage::Ehlo, Stage::EhloAgain, Stage::StartTls, Stage::Auth, Stage::MailFrom]
    {
        assert!(reply(stage, 421).is_busy(), "{stage}");
        assert!(!reply(stage, 451).is_busy(), "{stage}");
    }
}
