//! The daemon: everything is opened and bound, then `ready`, then it runs until a signal and drains in order.

mod descriptors;
mod memory;
mod own;
mod reload;
mod signals;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use empath_common::{Clock, Hook, Hooks, Problem, SystemClock};
use empath_control::{ControlServer, SocketError};
use empath_delivery::{Processor, Resolver};
use empath_ffi::Module;
use empath_health::{HttpServer, Part, Readiness};
use empath_metrics::{
    Registry,
    log::{Level, LogError},
};
use empath_smtp::server::{Authenticator, Listener, RelayControl, Server, Settings, Tls};
use empath_spool::Spool;
use sd_notify::NotifyState;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{Config, Loaded},
    free_space::FreeSpace,
    intake::{Intake, Priorities},
    operations::{Operations, SpoolOperations},
};

pub use reload::{ReloadError, Reloaded, Reloader};
use signals::Signals;

/// How long sessions and deliveries in flight may take to finish after a signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log could not be set up.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The runtime could not be started, or signals not be caught.
    #[error("the daemon cannot start: {0}")]
    System(#[from] io::Error),
    /// The spool could not be opened.
    #[error(transparent)]
    Spool(#[from] empath_spool::OpenError),
    /// What an operator has frozen could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Frozen {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The resolver could not be set up.
    #[error(transparent)]
    Resolver(#[from] empath_delivery::resolve::ResolverError),
    /// A certificate could not be loaded.
    #[error("{0}")]
    Tls(Problem),
    /// The users file could not be loaded.
    #[error("{0}")]
    Users(Problem),
    /// An SMTP address could not be bound.
    #[error(transparent)]
    Smtp(#[from] empath_smtp::server::BindError),
    /// An HTTP address could not be bound.
    #[error(transparent)]
    Http(#[from] empath_health::BindError),
    /// The control socket could not be bound.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// A plugin module could not be loaded.
    #[error(transparent)]
    Module(#[from] empath_ffi::LoadError),
}

/// Runs the daemon until SIGTERM or SIGINT; a second signal ends it at once.
pub fn run(loaded: &Loaded) -> Result<(), StartError> {
    let logging = empath_metrics::log::start(&loaded.config.log)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(memory::threads()).build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let daemon = Daemon::start(loaded, logging.level()).await?;
        info!(version = env!("CARGO_PKG_VERSION"), config = %loaded.path.display(), "ready");
        notify(&[NotifyState::Ready]);
        let reload = async || {
            // What came of it is in the log.
            let _ = daemon.reloader.reload().await;
        };
        signals.reload_until_stop(reload).await;
        notify(&[NotifyState::Stopping]);
        info!("stopping: sessions and deliveries in flight may finish; a second signal ends this at once");
        tokio::select! {
            () = daemon.stop() => info!("stopped"),
            () = signals.stop() => warn!("stopped by a second signal; what was in flight is repeated after the next start"),
        }
        Ok(())
    });
    // A thread that hangs in a plugin module must not keep the process.
    runtime.shutdown_background();
    if let Err(failure) = &outcome {
        error!(error = %failure, "the daemon did not start");
    }
    outcome
}

struct Daemon {
    smtp: Tasks,
    processor: Processor,
    spool: Arc<dyn Spool>,
    services: Tasks,
    readiness: Readiness,
    reloader: Arc<Reloader>,
}

/// Tasks that end together.
struct Tasks {
    stop: CancellationToken,
    running: JoinSet<()>,
}

/// The delivery of a host with these addresses.
fn processor(
    config: &Config,
    addresses: &[SocketAddr],
    parts: empath_delivery::Parts,
) -> Result<Processor, StartError> {
    let settings = empath_delivery::Settings {
        delivery: config.delivery.clone(),
        dsn: config.dsn.clone(),
        hostname: config.hostname(),
        own_names: config.smtp.local_domains.clone(),
        own_addresses: own::addresses(addresses),
        // The queue holds what intake has counted: at most a quarter, so that mail for a dead host leaves room for new mail.
        content_memory: config.smtp.limits.content_memory.as_usize() / 4,
    };
    let processor = Processor::start(settings, parts);
    if config.spool.backend == empath_spool::Backend::File {
        let path = config.spool.path.join("frozen");
        processor.keep_frozen_in(path.clone()).map_err(|source| StartError::Frozen { path, source })?;
    }
    Ok(processor)
}

impl Daemon {
    /// Opens and binds everything; serves only when all of it has succeeded.
    async fn start(loaded: &Loaded, level: Level) -> Result<Self, StartError> {
        let mut config = loaded.config.clone();
        let memory = memory::limit();
        descriptors::fit(&mut config);
        memory::fit(&mut config.smtp.limits, memory);
        let config = &config;
        let registry = Registry::default();
        empath_metrics::process::define(&registry);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        warn_of(config, clock.now());
        let modules = modules(config)?;
        let tls = certificates(config)?;
        let auth = users(config)?;

        let listeners = config.smtp.listeners.iter().map(Listener::bind).collect::<Result<Vec<_>, _>>()?;
        let control = ControlServer::bind(&config.control_socket)?;
        let readiness = Readiness::new(config.health.max_queue_size);
        let mut http = Vec::new();
        if config.health.enabled {
            let pages = empath_health::health(readiness.clone(), env!("CARGO_PKG_VERSION"));
            http.push(HttpServer::bind(config.health.listen_address, pages).await?);
        }
        if config.metrics.enabled {
            let pages = empath_health::metrics(registry.clone());
            http.push(HttpServer::bind(config.metrics.listen_address, pages).await?);
        }

        let storage = empath_spool::Metrics::new(&registry);
        let spool = open_spool(config, storage.clone()).await?;
        let space = FreeSpace::new(&config.smtp.limits, Arc::clone(&spool), &registry);
        if let Some(space) = &space {
            space.look().await;
        }
        let first = space.clone().map(|space| Arc::new(space) as Arc<dyn Hook>);
        let resolver = Arc::new(Resolver::counted(&config.delivery.dns, &registry)?);
        let addresses: Vec<_> = listeners.iter().map(Listener::address).collect();
        let parts = empath_delivery::Parts {
            spool: Arc::clone(&spool),
            resolver,
            dial: Arc::new(empath_smtp::client::Sockets),
            tls: config.delivery.tls().map_err(|problem| StartError::Tls(problem.within("delivery")))?,
            clock: Arc::clone(&clock),
            metrics: empath_delivery::Metrics::new(&registry),
            rng: fastrand::Rng::new(),
        };
        let processor = processor(config, &addresses, parts)?;
        // Before anything new is accepted: what it finds is what a former process has left.
        let recovery = processor.recover();

        let intake = Intake::new(
            Arc::clone(&spool),
            &config.spool,
            processor.clone(),
            Priorities::new(&config.delivery, &config.smtp),
            Arc::clone(&clock),
            &config.smtp.limits,
        );
        let metrics = empath_smtp::server::Metrics::new(&registry);
        let hooks = Hooks::new(reload::hooks(first.as_ref(), RelayControl::new(&config.smtp), &modules));
        let server = Server::new(settings(config, metrics.clone()), hooks, intake, Arc::clone(&clock));
        let server = Arc::new(server.with_tls(tls).with_auth(auth));
        let connections = Arc::clone(&server.connections);
        let reloader = Arc::new(Reloader {
            path: loaded.path.clone(),
            running: Mutex::new(loaded.config.clone()),
            memory,
            registry,
            level,
            clock,
            processor: processor.clone(),
            server: watch::Sender::new(server),
            first,
            modules,
            smtp_metrics: metrics,
        });

        report_readiness(&readiness, &spool, space, &processor);
        let mut services = Tasks::new();
        // The queue fills while mail is accepted. An order to stop reaches it through the processor.
        services.spawn(|_| async {
            recovery.await;
        });
        let operations = Operations {
            processor: processor.clone(),
            reloader: Arc::clone(&reloader),
            spool: Arc::clone(&spool),
            storage: SpoolOperations::new(Arc::clone(&spool), storage),
            readiness: readiness.clone(),
            inbound: Arc::clone(&connections),
            started: Instant::now(),
        };
        services.spawn(|stop| memory::give_back(connections, stop));
        services.spawn(|stop| control.serve(Arc::new(operations), stop));
        for page in http {
            services.spawn(|stop| page.serve(stop));
        }
        let mut smtp = Tasks::new();
        for listener in listeners {
            smtp.spawn(|stop| listener.serve(reloader.server.subscribe(), stop));
        }
        Ok(Self { smtp, processor, spool, services, readiness, reloader })
    }

    /// Listeners first, then sessions, then deliveries, then the spool; health and control answer to the last.
    async fn stop(mut self) {
        self.readiness.set(Part::Smtp, false);
        let drained = timeout(DRAIN, async {
            tokio::join!(self.smtp.stop(), self.processor.shutdown(DRAIN));
        });
        if drained.await.is_err() {
            warn!("sessions were cut off: they took longer than {DRAIN:?}");
        }
        self.smtp.abort().await;
        self.readiness.set(Part::Delivery, false);
        self.spool.close().await;
        self.services.stop().await;
    }
}

impl Tasks {
    fn new() -> Self {
        Self { stop: CancellationToken::new(), running: JoinSet::new() }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(CancellationToken) -> F) {
        self.running.spawn(task(self.stop.clone()));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }

    async fn abort(&mut self) {
        self.running.shutdown().await;
    }
}

fn modules(config: &Config) -> Result<Vec<Arc<dyn Hook>>, StartError> {
    let mut modules: Vec<Arc<dyn Hook>> = Vec::new();
    for module in &config.modules {
        let module = Module::load(module)?;
        info!(module = module.name(), "module loaded");
        modules.push(Arc::new(module));
    }
    Ok(modules)
}

/// What sessions keep to.
fn settings(config: &Config, metrics: empath_smtp::server::Metrics) -> Settings {
    Settings { dsn: config.dsn.enabled, ..Settings::new(&config.smtp, config.hostname(), metrics) }
}

/// The check of the configuration has loaded them already: only what changed since can be wrong.
fn certificates(config: &Config) -> Result<Option<Tls>, StartError> {
    Tls::load(&config.smtp).map_err(|problems| {
        let problem = problems.into_iter().next().unwrap_or_else(|| Problem::new("tls", "is unusable"));
        StartError::Tls(problem.within("smtp"))
    })
}

/// Likewise.
fn users(config: &Config) -> Result<Option<Authenticator>, StartError> {
    Authenticator::load(&config.smtp.auth).map_err(|problems| {
        let problem =
            problems.into_iter().next().unwrap_or_else(|| Problem::new("users_file", "is unusable"));
        StartError::Users(problem.within("smtp.auth"))
    })
}

/// Recovery reads the whole journal, so it has a thread of its own.
async fn open_spool(config: &Config, metrics: empath_spool::Metrics) -> Result<Arc<dyn Spool>, StartError> {
    let config = config.spool.clone();
    let opened = tokio::task::spawn_blocking(move || empath_spool::open(&config, metrics));
    let (spool, report) = opened.await.map_err(io::Error::other)??;
    info!(messages = report.messages, damaged = report.damaged.len(), "spool recovered");
    Ok(spool)
}

/// What works and still needs somebody's attention.
fn warn_of(config: &Config, now: jiff::Timestamp) {
    for domain in config.local_domains_without_delivery() {
        warn!(%domain, "a local domain has no next hop in delivery.domains: its mail is looked up by MX");
    }
    for warning in config.warnings(now) {
        warn!(key = warning.key, "{}", warning.message);
    }
}

fn report_readiness(
    readiness: &Readiness,
    spool: &Arc<dyn Spool>,
    space: Option<FreeSpace>,
    processor: &Processor,
) {
    let (spool, queue, names) = (Arc::clone(spool), processor.clone(), processor.clone());
    readiness
        .check(Part::Spool, move || spool.is_healthy() && !space.as_ref().is_some_and(FreeSpace::is_short));
    readiness.check(Part::Dns, move || names.resolver().is_healthy());
    readiness.queue_size(move || queue.queue_len() as u64);
    for part in [Part::Smtp, Part::Spool, Part::Delivery, Part::Dns] {
        readiness.set(part, true);
    }
}

/// Tells systemd, where it listens.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(failure) = sd_notify::notify(states) {
        warn!(error = %failure, "systemd could not be notified");
    }
}
