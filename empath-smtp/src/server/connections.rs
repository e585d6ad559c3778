use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use empath_metrics::Gauge;

use tokio::sync::Notify;

use super::Limits;

/// Counts the sessions, over all listeners and by address.
#[derive(Debug)]
pub struct Connections {
    most: AtomicUsize,
    most_per_address: AtomicUsize,
    active: Gauge,
    open: Mutex<Open>,
    ebb: Notify,
}

/// Fewer sessions are worth nobody's attention.
const FEW: usize = 64;

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// The most sessions since half of them had ended.
    high: usize,
    /// Only addresses with a session are in it, so it is no larger than `total`.
    by_address: HashMap<IpAddr, usize>,
}

/// A session that counts until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    connections: Arc<Connections>,
    /// `None` while it counts for no address.
    address: Option<IpAddr>,
}

/// Why a client gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There are as many sessions as there may be.
    #[error("too many connections")]
    Total,
    /// The client's address has as many sessions as it may have.
    #[error("too many connections from this address")]
    Address,
}

impl Connections {
    /// No session yet; `active` shows how many there are.
    pub fn new(limits: &Limits, active: Gauge) -> Arc<Self> {
        Arc::new(Self {
            most: limits.connections.into(),
            most_per_address: limits.connections_per_address.into(),
            active,
            open: Mutex::default(),
            ebb: Notify::new(),
        })
    }

    /// From now on there may be so many; nobody is cut off.
    pub fn limit(&self, limits: &Limits) {
        self.most.store(limits.connections, Relaxed);
        self.most_per_address.store(limits.connections_per_address, Relaxed);
    }

    /// Counts a session from this address, if it may have one.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Refused> {
        let mut admitted = self.admit_proxy()?;
        admitted.identify(address)?;
        Ok(admitted)
    }

    /// Counts a session of somebody who speaks for others, so that its own address says nothing.
    pub fn admit_proxy(self: &Arc<Self>) -> Result<Admitted, Refused> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.most.load(Relaxed) {
            return Err(Refused::Total);
        }
        open.total += 1;
        open.high = open.high.max(open.total);
        self.active.increment();
        Ok(Admitted { connections: Arc::clone(self), address: None })
    }

    /// Waits until half of many sessions have ended. One task may wait.
    pub async fn ebb(&self) {
        self.ebb.notified().await;
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Admitted {
    /// Counts the session for this address from now on, if that may have one more.
    pub fn identify(&mut self, address: IpAddr) -> Result<(), Refused> {
        let address = counted(address);
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.connections.most_per_address.load(Relaxed);
        if open.by_address.get(&address).is_some_and(|count| *count >= most) {
            return Err(Refused::Address);
        }
        *open.by_address.entry(address).or_default() += 1;
        if let Some(before) = self.address.replace(address) {
            open.forget(before);
        }
        Ok(())
    }
}

impl Open {
    fn forget(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut count) = self.by_address.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        self.connections.active.decrement();
        if open.high >= FEW && open.total <= open.high / 2 {
            open.high = open.total;
            self.connections.ebb.notify_one();
        }
        if let Some(address) = self.address {
            open.forget(address);
        }
    }
}

/// What counts as one address: of IPv6, the /64 that one customer has.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn connections(most: usize, most_per_address: usize) -> Arc<Connections> {
        let limits =
            Limits { connections: most, connections_per_address: most_per_address, ..Limits::default() };
        Connections::new(&limits, Gauge::default())
    }

    fn refusal(connections: &Arc<Connections>, address: &str) -> Option<Refused> {
        connections.admit(address.parse().unwrap()).err()
    }

    #[test]
    fn sessions_are_limited_by_address_until_they_end() {
        let connections = connections(10, 1);
        let one = connections.admit("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(refusal(&connections, "192.0.2.1"), Some(Refused::Address));
        assert_eq!(refusal(&connections, "::ffff:192.0.2.1"), Some(Refused::Address));
        assert_eq!(refusal(&connections, "192.0.2.2"), None);
        drop(one);
        assert_eq!(refusal(&connections, "192.0.2.1"), None);
        assert_eq!((connections.count(), connections.active.get()), (0, 0));
        assert!(connections.open.lock().unwrap().by_address.is_empty(), "what has ended takes no memory");
    }

    #[test]
    fn a_proxys_session_counts_for_the_client_that_it_names() {
        let connections = connections(10, 1);
        let mut proxied = [(); 3].map(|()| connections.admit_proxy().unwrap());
        assert_eq!(proxied[0].identify("192.0.2.1".parse().unwrap()), Ok(()));
        assert_eq!(proxied[1].identify("192.0.2.1".parse().unwrap()), Err(Refused::Address));
        assert_eq!(refusal(&connections, "192.0.2.1"), Some(Refused::Address));
        assert_eq!(connections.count(), 3, "a refused client counts until its session ends, and not twice");
        drop(proxied);
        assert_eq!(connections.count(), 0);
        assert!(connections.open.lock().unwrap().by_address.is_empty());
    }

    #[test]
    fn sessions_are_limited_together() {
        let connections = connections(1, 1);
        let _one = connections.admit("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(refusal(&connections, "192.0.2.2"), Some(Refused::Total));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_when_half_of_many_sessions_have_ended() {
        let connections = connections(1000, 1000);
        let ebbs = async || timeout(Duration::from_secs(1), connections.ebb()).await.is_ok();
        let few: Vec<_> = (0..FEW - 1).map(|_| connections.admit_proxy().unwrap()).collect();
        drop(few);
        assert!(!ebbs().await);
        let mut many: Vec<_> = (0..2 * FEW).map(|_| connections.admit_proxy().unwrap()).collect();
        many.truncate(FEW + 1);
        assert!(!ebbs().await);
        many.truncate(FEW);
        assert!(ebbs().await && !ebbs().await);
        many.clear();
        assert!(ebbs().await && !ebbs().await);
    }

    #[test]
    fn new_limits_count_for_who_comes_and_cut_nobody_off() {
        let connections = connections(1, 1);
        let _one = connections.admit("192.0.2.1".parse().unwrap()).unwrap();
        connections.limit(&Limits { connections: 3, connections_per_address: 2, ..Limits::default() });
        let _two = connections.admit("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(refusal(&connections, "192.0.2.1"), Some(Refused::Address));
        let _three = connections.admit("192.0.2.2".parse().unwrap()).unwrap();
        connections.limit(&Limits { connections: 1, connections_per_address: 1, ..Limits::default() });
        assert_eq!((refusal(&connections, "192.0.2.3"), connections.count()), (Some(Refused::Total), 3));
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let connections = connections(10, 1);
        let _one = connections.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(refusal(&connections, "2001:db8::2"), Some(Refused::Address));
        assert_eq!(refusal(&connections, "2001:db8:0:1::1"), None);
    }
}
