//! The addresses that mail leaves from.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use empath_common::{Domain, MessageId};
use empath_smtp::client::Target;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::config::{Source, WarmUp};

/// The part of its weight that a new source has on its first day.
const FIRST: f64 = 0.001;
/// What the weight of 1 counts.
const WHOLE: f64 = 1e6;

/// Where connections come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    /// What EHLO says, if not the name of this host.
    pub(crate) hostname: Option<Domain>,
}

/// Sources that share the mail by their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool(Arc<[Member]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    origin: Arc<Origin>,
    weight: u32,
    warm_up: Option<WarmUp>,
}

impl Pool {
    pub(crate) fn new(sources: &[Source]) -> Self {
        let member = |Source { ipv4, ipv6, hostname, weight, warm_up }: &Source| Member {
            origin: Arc::new(Origin { ipv4: *ipv4, ipv6: *ipv6, hostname: hostname.clone() }),
            weight: *weight,
            warm_up: *warm_up,
        };
        Self(sources.iter().map(member).collect())
    }

    /// All that messages may leave from.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &Arc<Origin>> {
        self.0.iter().map(|member| &member.origin)
    }

    /// Where a message leaves from. It is the same at every attempt, because a server that makes unknown clients come again
    /// (RFC 6647) knows them by their address.
    pub(crate) fn choose(&self, id: MessageId) -> Option<&Arc<Origin>> {
        let day = day(id);
        let weights = |weight: fn(&Member, Date) -> u64| self.0.iter().map(move |member| weight(member, day));
        // Before the first day of a pool that is all new, there is nobody else.
        let weight = if weights(weight).any(|weight| weight > 0) { weight } else { whole };
        let total = weights(weight).fold(0, u64::saturating_add);
        if total == 0 {
            return None;
        }
        let random = u128::from_be_bytes(id.to_bytes()) & u128::from(u64::MAX);
        let mut point = fastrand::Rng::with_seed(u64::try_from(random).unwrap_or_default()).u64(..total);
        let chosen = self.0.iter().find(|member| match point.checked_sub(weight(member, day)) {
            None => true,
            Some(rest) => {
                point = rest;
                false
            }
        });
        chosen.map(|member| &member.origin)
    }
}

/// `192.0.2.1`, `2001:db8::1`, `192.0.2.1,2001:db8::1`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ipv4, self.ipv6) {
            (Some(v4), Some(v6)) => write!(f, "{v4},{v6}"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (None, None) => f.write_str("none"),
        }
    }
}

impl Origin {
    /// The address from which a server is reached; `None` if it has none of its family.
    pub(crate) fn towards(&self, target: &Target) -> Option<IpAddr> {
        match target {
            Target::Tcp(address) if address.is_ipv4() => self.ipv4.map(IpAddr::V4),
            Target::Tcp(_) => self.ipv6.map(IpAddr::V6),
            Target::Unix(_) => None,
        }
    }
}

/// The day of the message's reception, in UTC.
fn day(id: MessageId) -> Date {
    let milliseconds = i64::try_from(id.milliseconds()).unwrap_or(i64::MAX);
    let received_at = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX);
    received_at.to_zoned(TimeZone::UTC).date()
}

fn whole(member: &Member, _: Date) -> u64 {
    scaled(member.weight, 1.0)
}

fn weight(member: &Member, day: Date) -> u64 {
    scaled(member.weight, member.warm_up.map_or(1.0, |warm_up| warmth(warm_up, day)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between nothing and a million times a u32"
)]
fn scaled(weight: u32, part: f64) -> u64 {
    (f64::from(weight) * part * WHOLE).ceil() as u64
}

/// The part of its weight that a source has on a day.
fn warmth(WarmUp { since, days }: WarmUp, day: Date) -> f64 {
    let (elapsed, days) = (f64::from((day - since).get_days()), f64::from(days));
    match elapsed {
        elapsed if elapsed < 0.0 => 0.0,
        elapsed if elapsed >= days => 1.0,
        elapsed => FIRST.powf(1.0 - elapsed / days),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8, weight: u32, warm_up: Option<(&str, u16)>) -> Source {
        let warm_up = warm_up.map(|(since, days)| WarmUp { since: since.parse().unwrap(), days });
        Source { ipv4: Some([192, 0, 2, last].into()), weight, warm_up, ..Source::default() }
    }

    /// How many of a hundred thousand messages leave from each.
    fn shares(pool: &[Source], now: &str) -> Vec<usize> {
        let (now, mut rng) = (now.parse().unwrap(), fastrand::Rng::with_seed(1));
        let pool = Pool::new(pool);
        let mut shares = vec![0; pool.0.len()];
        for _ in 0..100_000 {
            let chosen = pool.choose(MessageId::generate(now, &mut rng)).unwrap();
            shares[pool.origins().position(|origin| origin == chosen).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn sources_share_the_mail_by_their_weights() {
        let pool = [source(1, 3, None), source(2, 1, None), source(3, 0, None)];
        let shares = shares(&pool, "2026-11-21T12:00:00Z");
        assert!(shares[0].abs_diff(75_000) < 1000 && shares[1].abs_diff(25_000) < 1000, "{shares:?}");
        assert_eq!(shares[2], 0);
    }

    #[test]
    fn a_new_source_starts_with_a_thousandth_and_grows_by_the_same_factor_every_day() {
        let warm_up = WarmUp { since: "2026-11-01".parse().unwrap(), days: 30 };
        let on = |day: &str| warmth(warm_up, day.parse().unwrap());
        assert!((on("2026-11-01") - 0.001).abs() < 1e-9);
        assert!((on("2026-11-16") - 0.001_f64.sqrt()).abs() < 1e-9);
        assert!((on("2026-11-30") / on("2026-11-29") - 1.2589).abs() < 1e-3);
        assert!((on("2026-12-01") - 1.0).abs() < 1e-9 && (on("2027-12-01") - 1.0).abs() < 1e-9);

        let pool = [source(1, 1, None), source(2, 1, Some(("2026-11-01", 30)))];
        assert_eq!(shares(&pool, "2026-10-31T23:59:59Z"), [100_000, 0]);
        let first = shares(&pool, "2026-11-01T00:00:00Z")[1];
        assert!((50..200).contains(&first), "{first}");
        assert!(shares(&pool, "2026-12-01T00:00:00Z")[1].abs_diff(50_000) < 1000);
    }

    #[test]
    fn a_pool_that_is_all_new_shares_the_mail_before_its_first_day_too() {
        let pool = [source(1, 1, Some(("2026-11-01", 30))), source(2, 1, Some(("2026-11-02", 30)))];
        assert!(shares(&pool, "2026-10-01T00:00:00Z")[1].abs_diff(50_000) < 1000);
    }

    #[test]
    fn a_server_is_reached_from_an_address_of_its_family() {
        let both = Source { ipv6: Some("2001:db8::1".parse().unwrap()), ..source(1, 1, None) };
        let pool = Pool::new(&[both, source(1, 1, None)]);
        let origins: Vec<_> = pool.origins().collect();
        let target = |address: &str| Target::Tcp(address.parse().unwrap());
        assert_eq!(origins[0].towards(&target("198.51.100.1:25")), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(origins[0].towards(&target("[2001:db8::25]:25")), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(origins[1].towards(&target("[2001:db8::25]:25")), None);
    }
}
