use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

/// Every metric of a daemon, for the exporters to visit. Cloning shares it.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<&'static str, Definition>>>);

/// What an exporter sees of one metric.
#[derive(Clone)]
pub(crate) struct Definition {
    pub(crate) help: &'static str,
    pub(crate) values: Values,
}

#[derive(Clone)]
pub(crate) enum Values {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Counters(&'static str, Family<Counter>),
    Gauges(&'static str, Family<Gauge>),
    Histograms(&'static str, Family<Histogram>),
    /// By two labels, the values of the second being known.
    CountersByKind(&'static str, &'static str, Vec<(&'static str, Family<Counter>)>),
    Collected(Kind, Arc<dyn Fn() -> Option<f64> + Send + Sync>),
}

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Values {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) | Self::Counters(..) | Self::CountersByKind(..) => Kind::Counter,
            Self::Gauge(_) | Self::Gauges(..) => Kind::Gauge,
            Self::Histogram(_) | Self::Histograms(..) => Kind::Histogram,
            Self::Collected(kind, _) => *kind,
        }
    }
}

/// Only grows. Its name ends in `_total`.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

/// Goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

/// Observations counted in buckets.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than there are bounds: the last has no upper bound.
    counts: Box<[AtomicU64]>,
    sum: Mutex<f64>,
}

/// One metric for each value of a label, at most `limit` of them; values beyond that share the label `other`.
#[derive(Debug, Clone)]
pub struct Family<M> {
    members: Arc<RwLock<BTreeMap<Box<str>, M>>>,
    limit: usize,
    make: M,
}

/// What a [`Family`] can be made of.
pub trait Metric: Clone {
    /// A new metric at zero, of the same shape.
    #[must_use]
    fn zero(&self) -> Self;
}

impl Registry {
    /// Defines a counter.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.define(name, help, Values::Counter(counter.clone()));
        counter
    }

    /// Defines a gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.define(name, help, Values::Gauge(gauge.clone()));
        gauge
    }

    /// Defines a histogram whose buckets have these upper bounds, in rising order.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        let histogram = Histogram::new(bounds);
        self.define(name, help, Values::Histogram(histogram.clone()));
        histogram
    }

    /// Defines a counter for each value of `label`.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        limit: usize,
    ) -> Family<Counter> {
        let family = Family::new(Counter::default(), limit);
        self.define(name, help, Values::Counters(label, family.clone()));
        family
    }

    /// Defines a counter for each value of `label` and each of the kinds, which are the values of a second label: a family
    /// for each kind, in their order.
    pub fn counters_by_kind<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        (kind, kinds): (&'static str, [&'static str; N]),
        limit: usize,
    ) -> [Family<Counter>; N] {
        let families = kinds.map(|_| Family::new(Counter::default(), limit));
        let named = kinds.into_iter().zip(families.clone()).collect();
        self.define(name, help, Values::CountersByKind(label, kind, named));
        families
    }

    /// Defines a gauge for each value of `label`.
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        limit: usize,
    ) -> Family<Gauge> {
        let family = Family::new(Gauge::default(), limit);
        self.define(name, help, Values::Gauges(label, family.clone()));
        family
    }

    /// Defines a histogram for each value of `label`.
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        limit: usize,
        bounds: &'static [f64],
    ) -> Family<Histogram> {
        let family = Family::new(Histogram::new(bounds), limit);
        self.define(name, help, Values::Histograms(label, family.clone()));
        family
    }

    /// Defines a counter or gauge whose value `collect` finds out whenever the metrics are read. It must be quick;
    /// `None` is not known at present.
    pub fn collected(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        collect: impl Fn() -> Option<f64> + Send + Sync + 'static,
    ) {
        self.define(name, help, Values::Collected(kind, Arc::new(collect)));
    }

    fn define(&self, name: &'static str, help: &'static str, values: Values) {
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.insert(name, Definition { help, values });
    }

    pub(crate) fn definitions(&self) -> Vec<(&'static str, Definition)> {
        let metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.iter().map(|(name, definition)| (*name, definition.clone())).collect()
    }
}

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// This many.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, counts, sum: Mutex::new(0.0) }))
    }

    /// Counts one observation.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.0.bounds.len());
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        *self.0.sum.lock().unwrap_or_else(PoisonError::into_inner) += value;
    }

    /// The upper bound of each bucket with the observations in it alone, the last bucket without a bound.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<f64>, u64)> + '_ {
        let bounds = self.0.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.0.counts.iter().map(|count| count.load(Relaxed)))
    }

    pub(crate) fn sum(&self) -> f64 {
        *self.0.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metric for Counter {
    fn zero(&self) -> Self {
        Self::default()
    }
}

impl Metric for Gauge {
    fn zero(&self) -> Self {
        Self::default()
    }
}

impl Metric for Histogram {
    fn zero(&self) -> Self {
        Self::new(self.0.bounds)
    }
}

impl<M: Metric> Family<M> {
    fn new(make: M, limit: usize) -> Self {
        Self { members: Arc::default(), limit, make }
    }

    /// The metric with this label value; the shared `other` when there are too many values.
    pub fn with(&self, value: &str) -> M {
        if let Some(member) = self.members.read().unwrap_or_else(PoisonError::into_inner).get(value) {
            return member.clone();
        }
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let value = if members.len() < self.limit || members.contains_key(value) { value } else { "other" };
        members.entry(value.into()).or_insert_with(|| self.make.zero()).clone()
    }

    pub(crate) fn members(&self) -> Vec<(Box<str>, M)> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.iter().map(|(value, member)| (value.clone(), member.clone())).collect()
    }
}
