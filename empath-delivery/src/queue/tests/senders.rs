//! Mail that goes its own way because of its sender.

use empath_common::{Domain, Host};

use super::*;
use crate::config::{DomainConfig, SenderRoute};

/// Senders and where their mail goes.
pub(super) fn with_senders(config: &Config, senders: &[(&str, &str)]) -> Config {
    let to = |host: &str| SenderRoute { mx_override: Some(host.parse().unwrap()), ..SenderRoute::default() };
    let routes = senders.iter().map(|(sender, host)| (sender.parse().unwrap(), to(host)));
    Config { sender_routes: routes.collect(), ..config.clone() }
}

/// What a change of the configuration does to the routes alone.
pub(super) fn reconfigure(queue: &mut Queue, config: &Config) {
    let before = std::mem::replace(&mut queue.routes, Routes::new(config, "mx.home.test".parse().unwrap()));
    queue.routes.keep_classes_of(&before);
}

fn from(sender: &str, recipients: &[&str]) -> Arc<Envelope> {
    let mut envelope = Envelope::clone(&envelope(at(0), recipients));
    envelope.reverse_path = sender.parse().unwrap();
    Arc::new(envelope)
}

/// Connections that were opened, and their jobs.
fn opened(queue: &mut Queue) -> Vec<(String, ConnectionId, Queued)> {
    let open = |action| match action {
        Action::Open { connection, next_hop, job } => (next_hop.to_string(), connection, job),
        other => panic!("{other:?}"),
    };
    queue.take_actions().into_iter().map(open).collect()
}

fn hops(opened: &[(String, ConnectionId, Queued)]) -> Vec<&str> {
    opened.iter().map(|(hop, ..)| hop.as_str()).collect()
}

#[test]
fn recipients_in_many_domains_travel_together_on_the_way_of_their_sender() {
    let mut queue = configured(&with_senders(&Config::default(), &[("news@home.test", "own.test")]));
    let recipients = ["a@one.test", "b@two.test"];
    let content = Bytes::from_static(b"x\r\n").into();
    queue.accept(id(1), from("<news@home.test>", &recipients), &content, at(0));
    queue.accept(id(2), from("<other@home.test>", &recipients), &content, at(0));
    let first = opened(&mut queue);
    assert_eq!(hops(&first), ["smtp:own.test:25", "mx:one.test", "mx:two.test"]);
    assert_eq!(first[0].2.recipients.len(), 2);
    // Also what comes from the spool.
    restore(
        &mut queue,
        3,
        &from("<news@home.test>", &recipients),
        &[(); 2].map(|()| RecipientState::default()),
        at(9),
    );
    assert_eq!(hops(&opened(&mut queue)), ["smtp:own.test:25"]);
    assert_eq!(queue.connection_of(id(1), 1), Some(first[0].1));
}

#[test]
fn a_sender_that_was_given_a_route_meanwhile_is_seen_with_its_envelope_and_costs_no_attempt() {
    let config = Config::default();
    let mut queue = configured(&config);
    let envelope = from("<news@home.test>", &["a@one.test", "b@one.test"]);
    queue.accept(id(1), Arc::clone(&envelope), &Bytes::from_static(b"x\r\n").into(), at(0));
    let [(_, connection, job)] = <[_; 1]>::try_from(opened(&mut queue)).unwrap();
    let job = job.with(Arc::clone(&envelope));
    assert_eq!(queue.redirect(&job, at(1)), None, "the way is right");
    reconfigure(&mut queue, &with_senders(&config, &[("home.test", "own.test")]));
    assert_eq!(queue.redirect(&job, at(1)), Some(false));
    let [(hop, _, again)] = <[_; 1]>::try_from(opened(&mut queue)).unwrap();
    assert_eq!((hop.as_str(), &again.recipients), ("smtp:own.test:25", &job.recipients));
    assert!(matches!(queue.next(connection, at(1)), Next::Idle));
    assert_eq!(queue.redirect(&again.with(envelope), at(1)), None);
    assert_eq!(queue.snapshot(id(1)).unwrap().recipients[0], (RecipientStatus::InProgress, 0, None));
}

#[test]
fn what_stands_in_the_old_lane_is_redirected_though_the_entry_was_corrected_before() {
    let config = Config { max_concurrent: 1, ..Config::default() };
    let mut queue = configured(&config);
    let envelope = from("<news@home.test>", &["a@one.test", "b@one.test"]);
    queue.accept(id(1), Arc::clone(&envelope), &Bytes::from_static(b"x\r\n").into(), at(0));
    let [(_, connection, job)] = <[_; 1]>::try_from(opened(&mut queue)).unwrap();
    queue.isolate(id(1), &[0, 1]);
    settle(&mut queue, &job, Fate::Due(at(60)), at(0));
    assert!(matches!(queue.next(connection, at(0)), Next::Idle));
    // One is tried again, the other waits behind it.
    queue.poll(at(60));
    let [(_, first)] = <[_; 1]>::try_from(jobs(&mut queue)).unwrap();
    reconfigure(&mut queue, &with_senders(&config, &[("home.test", "own.test")]));
    assert_eq!(queue.redirect(&first.with(Arc::clone(&envelope)), at(60)), Some(false));
    let Next::Job(second) = queue.next(connection, at(60)) else { panic!() };
    assert_eq!(second.recipients, [JobRecipient { index: 1, attempts: 1, due: at(60) }]);
    assert_eq!(queue.redirect(&second.with(envelope), at(60)), Some(false));
    assert!(matches!(queue.next(connection, at(60)), Next::Close), "the new lane waits for its place");
    assert_eq!(hops(&opened(&mut queue)), ["smtp:own.test:25"]);
}

#[test]
fn what_was_redirected_is_still_removed_held_and_tried_once_more_when_it_is_old() {
    let config = Config::default();
    let senders = with_senders(&config, &[("home.test", "own.test")]);
    let envelope = from("<news@home.test>", &["a@one.test"]);
    let begin = |queue: &mut Queue, now| {
        restore(queue, 1, &envelope, &[RecipientState::default()], now);
        let [(_, job)] = <[_; 1]>::try_from(jobs(queue)).unwrap();
        reconfigure(queue, &senders);
        job.with(Arc::clone(&envelope))
    };

    let mut queue = configured(&config);
    let job = begin(&mut queue, at(0));
    queue.delete(id(1), at(0));
    assert_eq!(queue.redirect(&job, at(0)), Some(true), "it has ended");
    assert!(queue.is_empty());

    let mut queue = configured(&config);
    let job = begin(&mut queue, at(0));
    queue.hold(id(1), at(0));
    assert_eq!(queue.redirect(&job, at(0)), Some(false));
    assert!(jobs(&mut queue).is_empty());
    queue.release(id(1), at(0));
    assert_eq!(hops(&opened(&mut queue)), ["smtp:own.test:25"]);

    let mut queue = configured(&config);
    let late = schedule::after(at(0), 2 * EXPIRE_AFTER);
    let job = begin(&mut queue, late);
    assert_eq!(queue.redirect(&job, late), Some(false));
    queue.poll(late);
    assert!(!queue.has_expired());
    assert_eq!(hops(&opened(&mut queue)), ["smtp:own.test:25"]);
}

#[test]
fn an_override_takes_along_what_waits_on_the_ways_of_senders() {
    let config =
        with_senders(&Config::default(), &[("news@home.test", "own.test"), ("ads@home.test", "ads.test")]);
    let mut queue = configured(&Config { max_concurrent: 3, ..config });
    let content = Bytes::from_static(b"x\r\n").into();
    // Three that keep all connections busy, and what waits behind them.
    for (number, sender) in [(1, "<news@home.test>"), (2, "<ads@home.test>"), (3, "<x@home.test>")] {
        queue.accept(id(number), from(sender, &["a@one.test"]), &content, at(0));
        queue.accept(id(10 + number), from(sender, &["a@one.test", "b@two.test"]), &content, at(0));
    }
    let busy = opened(&mut queue);
    assert_eq!(hops(&busy), ["smtp:own.test:25", "smtp:own.test:25", "smtp:ads.test:25"]);
    let domain: Domain = "one.test".parse().unwrap();
    queue
        .reroute(&domain, at(1), |routes| routes.set_override(domain.clone(), "hub.test".parse().unwrap()))
        .unwrap();
    let to_hub = |queue: &Queue, number| {
        let mail = queue.snapshot(id(number)).unwrap().mail();
        queue.routes().route_to(mail, Some(&Host::Domain("one.test".parse().unwrap()))).next_hop.to_string()
    };
    assert_eq!([12, 3, 13].map(|number| to_hub(&queue, number)), ["smtp:hub.test:25"; 3]);
    for (_, connection, job) in busy {
        settle(&mut queue, &job, DELIVERED, at(1));
        queue.leave(connection, at(1));
        let _ = queue.next(connection, at(1));
    }
    let mut found = Vec::new();
    loop {
        let started = queue.take_actions();
        if started.is_empty() {
            break;
        }
        for action in started {
            let Action::Open { connection, next_hop, job } = action else { continue };
            found.push((job.id.to_bytes()[0], next_hop.to_string(), job.recipients[0].index));
            settle(&mut queue, &job, DELIVERED, at(1));
            while let Next::Job(job) = queue.next(connection, at(1)) {
                found.push((job.id.to_bytes()[0], next_hop.to_string(), job.recipients[0].index));
                settle(&mut queue, &job, DELIVERED, at(1));
            }
            queue.leave(connection, at(1));
        }
    }
    assert!(queue.is_empty(), "{found:?}");
    // Whoever is at one.test gets it from the hub, the others from the hosts of their senders.
    for (number, hop, index) in &found {
        let expected = match (index, number) {
            (0, _) => "smtp:hub.test:25",
            (_, 12) => "smtp:ads.test:25",
            (_, 13) => "mx:two.test",
            _ => "smtp:own.test:25",
        };
        assert_eq!(hop, expected, "{number} {index}");
    }
}

#[test]
fn what_was_queued_before_its_sender_had_a_route_goes_that_way_as_soon_as_it_is_known_whose_it_is() {
    let mut config = Config::default();
    let one = DomainConfig { max_connections: Some(1), ..DomainConfig::default() };
    config.domains.insert("one.test".parse().unwrap(), one);
    let mut queue = configured(&config);
    let envelope = from("<news@home.test>", &["a@one.test"]);
    // One is in flight, one ready behind it, one waits and one is held.
    let untried = [RecipientState::default()];
    let waiting = [RecipientState { next_attempt_at: Some(at(60)), ..RecipientState::default() }];
    restore(&mut queue, 1, &envelope, &untried, at(0));
    restore(&mut queue, 2, &envelope, &untried, at(0));
    restore(&mut queue, 3, &envelope, &waiting, at(0));
    restore(&mut queue, 4, &envelope, &untried, at(0));
    queue.hold(id(4), at(0));
    let [(_, connection, flying)] = <[_; 1]>::try_from(opened(&mut queue)).unwrap();

    let senders = with_senders(&config, &[("news@home.test", "own.test")]);
    let (routes, limits) = routes_and_limits(&senders);
    assert!(queue.replace(routes, limits, at(1)), "senders have other routes");
    queue.poll(at(1));
    assert_eq!(hops(&opened(&mut queue)), [""; 0], "nobody knows whose it is");
    for number in 1..=4 {
        assert!(queue.reclassify(id(number), &envelope.reverse_path), "{number}");
        assert!(!queue.reclassify(id(number), &envelope.reverse_path), "{number}");
    }
    queue.route_all_again(at(1));
    assert!(queue.take_wake(), "the caller must hear that there is work");
    queue.poll(at(1));
    let mut started = opened(&mut queue);
    queue.poll(at(60));
    started.extend(opened(&mut queue));
    assert_eq!(hops(&started), ["smtp:own.test:25"; 2]);
    assert_eq!(started.iter().map(|(.., job)| job.id).collect::<Vec<_>>(), [2, 3].map(id));
    // What was in flight is seen as it starts; what was held goes the same way, when there is a connection.
    let redirected = queue.redirect(&flying.with(Arc::clone(&envelope)), at(60));
    assert_eq!(redirected, Some(false));
    assert!(matches!(queue.next(connection, at(60)), Next::Idle), "nothing is left there");
    queue.release(id(4), at(60));
    for ((_, connection, job), expected) in started.iter().zip([1, 4]) {
        settle(&mut queue, job, DELIVERED, at(60));
        let Next::Job(next) = queue.next(*connection, at(60)) else { panic!("{expected} is ready") };
        assert_eq!(next.id, id(expected));
    }

    let (routes, limits) = routes_and_limits(&with_senders(&config, &[("news@home.test", "b.test")]));
    assert!(!queue.replace(routes, limits, at(61)), "another way of the same sender");
}

#[test]
fn mail_of_which_the_envelope_is_in_memory_goes_the_way_of_its_sender_with_the_configuration() {
    let mut config = Config::default();
    config.connection_pool.max_per_server = 1;
    let mut queue = configured(&config);
    let content = Bytes::from_static(b"x\r\n").into();
    for number in 1..=2 {
        queue.accept(id(number), from("<news@home.test>", &["a@one.test", "b@two.test"]), &content, at(0));
    }
    assert_eq!(hops(&opened(&mut queue)), ["mx:one.test", "mx:two.test"]);
    reload::replace(&mut queue, &with_senders(&config, &[("home.test", "own.test")]), at(1));
    queue.poll(at(1));
    assert_eq!(hops(&opened(&mut queue)), ["smtp:own.test:25"]);
}
