//! Mail that leaves from several addresses.

use std::collections::{BTreeMap, BTreeSet};

use empath_common::Domain;

use super::*;
use crate::{config::Source, route::NextHop};

/// Two sources, and one connection from each.
fn pooled() -> Queue {
    let mut config = Config { max_concurrent: 50, source: Some("all".into()), ..Config::default() };
    let source = |last: u8| Source { ipv4: Some([192, 0, 2, last].into()), ..Source::default() };
    config.sources.insert("all".into(), vec![source(7), source(8)]);
    config.connection_pool.max_per_server = 1;
    configured(&config)
}

fn opened(queue: &mut Queue) -> Vec<(NextHop, MessageId)> {
    let opened = queue.take_actions().into_iter().filter_map(|action| match action {
        Action::Open { next_hop, job, .. } => Some((next_hop, job.id)),
        _ => None,
    });
    opened.collect()
}

fn source(next_hop: &NextHop) -> String {
    next_hop.terms().and_then(|terms| terms.source.as_ref()).unwrap().to_string()
}

#[test]
fn each_source_has_a_lane_of_its_own_and_a_message_is_found_in_its_own() {
    let mut queue = pooled();
    (1..=40).for_each(|number| accept(&mut queue, number, &["a@one.test"]));
    let opened = opened(&mut queue);
    let sources: BTreeSet<_> = opened.iter().map(|(next_hop, _)| source(next_hop)).collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["192.0.2.7", "192.0.2.8"]);
    assert_eq!(opened.len(), 2);
    for (_, id) in &opened {
        assert!(queue.connection_of(*id, 0).is_some());
    }
    let waiting = (1..=40).map(id).filter(|id| opened.iter().all(|(_, other)| other != id));
    let mut ready = BTreeMap::new();
    for id in waiting {
        let Some(Obstacle::Busy { connections: 1, allowed: 1, ready: behind }) = queue.obstacle(id, 0, at(0))
        else {
            panic!("{:?}", queue.obstacle(id, 0, at(0)))
        };
        ready.insert(source(&queue.lane(id, 0).unwrap()), behind);
    }
    assert_eq!(ready.values().sum::<usize>(), 38, "{ready:?}");
}

#[test]
fn an_override_takes_along_what_is_ready_for_every_source() {
    let mut queue = pooled();
    (1..=40).for_each(|number| accept(&mut queue, number, &["a@one.test"]));
    let before = opened(&mut queue);
    let (domain, over): (Domain, _) = ("one.test".parse().unwrap(), "relay.test".parse().unwrap());
    queue.reroute(&domain, at(1), |routes| routes.set_override(domain.clone(), over)).unwrap();
    let mut jobs = opened(&mut queue);
    assert!(jobs.iter().all(|(next_hop, _)| next_hop.to_string() == "smtp:relay.test:25"), "{jobs:?}");
    let mut waiting = jobs.len();
    // One connection from each source takes all.
    let mut connections: Vec<_> =
        jobs.drain(..).map(|(_, id)| (queue.connection_of(id, 0).unwrap(), id)).collect();
    while let Some((connection, id)) = connections.pop() {
        queue.settle(id, &[Settlement { index: 0, attempts: 1, fate: DELIVERED }], at(1));
        if let Next::Job(job) = queue.next(connection, at(1)) {
            waiting += 1;
            connections.push((connection, job.id));
        }
    }
    assert_eq!(before.len() + waiting, 40);
}
