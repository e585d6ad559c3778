//! What may happen in a random run, and how often.

use super::*;

/// What happens next in a random run.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// For so many domains, of the n-th sender.
    Accept(Vec<u8>, Priority, usize),
    /// The same, to be sent so many seconds later.
    Schedule(Vec<u8>, u16),
    /// The n-th of the senders have routes from now on.
    Reconfigure(usize),
    /// It is looked up whose each message is, and what is ready is routed again.
    Reclassify,
    /// The n-th job in flight is delivered, or fails until so many seconds later, and says this about the destination.
    Finish(usize, Option<u16>, Outcome),
    /// The n-th job in flight comes to an end of which the sender is to be told.
    Bounce(usize),
    /// From now on the sender can be told, or can't.
    Tell(bool),
    /// The destination has too many connections for the n-th job.
    TurnAway(usize),
    /// The domain of the n-th job, if it is in the domain's own lane, is found to have these hosts.
    RollUp(usize, u8),
    /// The n-th job waits for name servers without a place.
    GiveWay(usize),
    /// The n-th job, if it does, needs one.
    ComeBack(usize),
    /// The first domain of the n-th job, if it shares a lane, is found to have others.
    Expel(usize),
    Pass(u16),
    Leave(usize),
    Retry(u8),
    /// The same, whatever its sender wants.
    SendNow(u8),
    Delete(u8),
    Hold(u8),
    Release(u8),
    Freeze(u8),
    Thaw(u8),
    /// Whatever is not in flight is forgotten and read back from what was stored.
    Restart,
    Stop,
    /// A new configuration, one of these.
    Reload(u8),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (prop::collection::vec(0..6_u8, 1..5), prop::sample::select(&Priority::ALL[..]), 0..3_usize)
            .prop_map(|(recipients, priority, sender)| Step::Accept(recipients, priority, sender)),
        5 => (0..8_usize).prop_map(Step::Reconfigure),
        5 => Just(Step::Reclassify),
        120 => (any::<usize>(), prop::option::of(1..500_u16), outcome())
            .prop_map(|(n, due, outcome)| Step::Finish(n, due, outcome)),
        60 => any::<usize>().prop_map(Step::Bounce),
        5 => prop::bool::weighted(0.8).prop_map(Step::Tell),
        20 => any::<usize>().prop_map(Step::TurnAway),
        60 => (any::<usize>(), 0..2_u8).prop_map(|(n, site)| Step::RollUp(n, site)),
        60 => any::<usize>().prop_map(Step::GiveWay),
        40 => any::<usize>().prop_map(Step::ComeBack),
        20 => any::<usize>().prop_map(Step::Expel),
        40 => (1..1000_u16).prop_map(Step::Pass),
        20 => any::<usize>().prop_map(Step::Leave),
        20 => (prop::collection::vec(0..6_u8, 1..5), 1..20_000_u16)
            .prop_map(|(recipients, seconds)| Step::Schedule(recipients, seconds)),
        20 => any::<u8>().prop_map(Step::Retry),
        10 => (1..60_u8).prop_map(Step::SendNow),
        20 => any::<u8>().prop_map(Step::Delete),
        20 => (1..60_u8).prop_map(Step::Hold),
        30 => (1..60_u8).prop_map(Step::Release),
        4 => Just(Step::Restart),
        1 => Just(Step::Stop),
        10 => (0..8_u8).prop_map(Step::Reload),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Good),
        1 => Just(Outcome::Interrupted),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::TurnedAway),
        1 => Just(Outcome::Denied),
        1 => Just(Outcome::Unknown),
    ]
}

/// Few destinations, so that their lanes have many connections.
pub(super) fn few() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (prop::collection::vec(0..3_u8, 1..3), prop::sample::select(&Priority::ALL[..]), 0..3_usize)
            .prop_map(|(recipients, priority, sender)| Step::Accept(recipients, priority, sender)),
        5 => (0..8_usize).prop_map(Step::Reconfigure),
        5 => Just(Step::Reclassify),
        120 => (any::<usize>(), prop::option::weighted(0.3, 1..500_u16), outcome())
            .prop_map(|(n, due, outcome)| Step::Finish(n, due, outcome)),
        10 => any::<usize>().prop_map(Step::TurnAway),
        40 => (any::<usize>(), 0..2_u8).prop_map(|(n, site)| Step::RollUp(n, site)),
        40 => any::<usize>().prop_map(Step::GiveWay),
        30 => any::<usize>().prop_map(Step::ComeBack),
        20 => any::<usize>().prop_map(Step::Expel),
        20 => (1..100_u16).prop_map(Step::Pass),
        5 => any::<usize>().prop_map(Step::Leave),
        10 => (prop::collection::vec(0..3_u8, 1..3), 1..2000_u16)
            .prop_map(|(recipients, seconds)| Step::Schedule(recipients, seconds)),
        5 => any::<u8>().prop_map(Step::Retry),
        3 => (1..60_u8).prop_map(Step::SendNow),
        2 => any::<u8>().prop_map(Step::Delete),
        3 => (1..60_u8).prop_map(Step::Hold),
        5 => (1..60_u8).prop_map(Step::Release),
        4 => (0..3_u8).prop_map(Step::Freeze),
        6 => (0..3_u8).prop_map(Step::Thaw),
        5 => (0..8_u8).prop_map(Step::Reload),
    ]
}
