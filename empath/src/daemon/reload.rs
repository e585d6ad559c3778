//! A new configuration while the daemon runs: read and checked as a whole, and applied as a whole or not at all.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use empath_common::{Clock, Hook, Hooks, Problem};
use empath_delivery::{Processor, Reload, Resolver, resolve::ResolverError};
use empath_metrics::{
    Registry,
    log::{Level, LogError},
};
use empath_smtp::server::{Authenticator, RelayControl, Server, Tls};
use sd_notify::NotifyState;
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};
use tracing::{error, info, warn};

use super::{descriptors, memory, notify, settings, warn_of};
use crate::{
    config::{self, Config, Errors, differences},
    intake::{Intake, Priorities},
};

/// What reloads the configuration. One does so at a time.
pub struct Reloader {
    /// The file.
    pub(super) path: PathBuf,
    /// What applies, as it was written.
    pub(super) running: Mutex<Config>,
    /// What there was at the start.
    pub(super) memory: Option<u64>,
    pub(super) registry: Registry,
    pub(super) level: Level,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) processor: Processor,
    /// What new sessions begin with.
    pub(super) server: watch::Sender<Arc<Server<Intake>>>,
    /// What is asked before relay control.
    pub(super) first: Option<Arc<dyn Hook>>,
    /// And after it.
    pub(super) modules: Vec<Arc<dyn Hook>>,
    pub(super) smtp_metrics: empath_smtp::server::Metrics,
}

/// What a reload has come to: keys by their paths from the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Those whose new values apply.
    pub changed: Vec<String>,
    /// Those whose old values apply until the next start.
    pub needs_restart: Vec<String>,
}

/// Why nothing was changed. A line for each problem.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There are errors in the file.
    #[error(transparent)]
    Config(#[from] Errors),
    /// A file that it names was lost after it had been checked.
    #[error("{0}")]
    Problem(Problem),
    /// What can change now contradicts what can only change with a restart.
    #[error("{0}; by what applies until then, so this needs a restart")]
    NeedsRestart(Problem),
    /// The resolver could not be set up.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The level of the log could not be set.
    #[error(transparent)]
    Level(#[from] LogError),
    /// The file could not be looked at.
    #[error("the configuration could not be read: {0}")]
    System(#[from] io::Error),
}

/// Everything that may fail, done before anything is changed.
struct Prepared {
    /// What applies from now on.
    config: Config,
    reloaded: Reloaded,
    delivery_tls: empath_smtp::client::Tls,
    tls: Option<Tls>,
    users: Option<Arc<Authenticator>>,
}

/// As long as this lives systemd takes the daemon to be reloading.
struct Reloading;

impl Reloading {
    fn begin() -> Self {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(failure) => warn!(error = %failure, "systemd could not be told when"),
        }
        Self
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        notify(&[NotifyState::Ready]);
    }
}

impl Reloader {
    /// Reads the file again, and applies what is new. If anything is wrong with it, nothing changes. What it came to is in
    /// the log, too. Dropped while it reads, it changes nothing either.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let mut running = self.running.lock().await;
        let reloading = Reloading::begin();
        let outcome = self.renew(&mut running).await;
        drop(reloading);
        match &outcome {
            Ok(Reloaded { changed, needs_restart }) => {
                info!(
                    config = %self.path.display(),
                    changed = changed.join(" "),
                    needs_restart = needs_restart.join(" "),
                    "configuration reloaded"
                );
                warn_of(&running, self.clock.now());
            }
            Err(failure) => {
                for line in failure.to_string().lines() {
                    error!(error = line, "the configuration was not reloaded, and nothing has changed");
                }
            }
        }
        outcome
    }

    async fn renew(&self, running: &mut Config) -> Result<Reloaded, ReloadError> {
        let server = Arc::clone(&self.server.borrow());
        let (path, before, users) = (self.path.clone(), running.clone(), server.auth.clone());
        let level_is_fixed = self.level.is_fixed();
        let prepared = spawn_blocking(move || prepare(&path, &before, level_is_fixed, users));
        let Prepared { config, reloaded, delivery_tls, tls, users } =
            prepared.await.map_err(io::Error::other)??;
        let resolver = self.processor.resolver();
        let resolver = if config.delivery.dns == running.delivery.dns {
            resolver
        } else {
            Arc::new(Resolver::renewed(&resolver, &config.delivery.dns, &self.registry)?)
        };
        self.level.set(&config.log)?;

        // From here on nothing can fail.
        let mut fitted = config.clone();
        descriptors::fit(&mut fitted);
        memory::fit(&mut fitted.smtp.limits, self.memory);
        self.processor.reload(Reload {
            delivery: fitted.delivery.clone(),
            dsn: fitted.dsn.clone(),
            own_names: fitted.smtp.local_domains.clone(),
            resolver,
            tls: delivery_tls,
        });
        let hooks = Hooks::new(hooks(self.first.as_ref(), RelayControl::new(&fitted.smtp), &self.modules));
        let intake =
            server.intake.successor(Priorities::new(&fitted.delivery, &fitted.smtp), &fitted.smtp.limits);
        let settings = settings(&fitted, self.smtp_metrics.clone());
        let mut server = server.successor(settings, hooks, intake).with_tls(tls);
        server.auth = users;
        self.server.send_replace(Arc::new(server));
        *running = config;
        Ok(reloaded)
    }
}

/// In the order in which they are asked: core policy first, then the modules in configured order.
pub(super) fn hooks(
    first: Option<&Arc<dyn Hook>>,
    relay: RelayControl,
    modules: &[Arc<dyn Hook>],
) -> Vec<Arc<dyn Hook>> {
    let relay: Arc<dyn Hook> = Arc::new(relay);
    first.cloned().into_iter().chain([relay]).chain(modules.iter().cloned()).collect()
}

fn prepare(
    path: &Path,
    running: &Config,
    level_is_fixed: bool,
    users: Option<Arc<Authenticator>>,
) -> Result<Prepared, ReloadError> {
    let new = config::load(Some(path))?.config;
    let config = applicable(running, &new, level_is_fixed);
    let reloaded =
        Reloaded { changed: differences(running, &config), needs_restart: differences(&config, &new) };
    if !reloaded.needs_restart.is_empty()
        && let Some(problem) = config.validate().into_iter().next()
    {
        return Err(ReloadError::NeedsRestart(problem));
    }
    let first = |problems: Vec<Problem>, section| {
        let problem = problems.into_iter().next().unwrap_or_else(|| Problem::new("", "is unusable"));
        ReloadError::Problem(problem.within(section))
    };
    let delivery_tls = config.delivery.tls().map_err(|problem| first(vec![problem], "delivery"))?;
    let tls = Tls::load(&config.smtp).map_err(|problems| first(problems, "smtp"))?;
    // Who guesses passwords is not forgotten without need. A users file that has changed is read again in any case.
    let users = if config.smtp.auth == running.smtp.auth {
        users
    } else {
        let users = Authenticator::load(&config.smtp.auth);
        users.map_err(|problems| first(problems, "smtp.auth"))?.map(Arc::new)
    };
    Ok(Prepared { config, reloaded, delivery_tls, tls, users })
}

/// The running configuration with all that can be changed while it runs: what is not named here needs a restart.
fn applicable(running: &Config, new: &Config, level_is_fixed: bool) -> Config {
    let mut config = running.clone();
    config.delivery.clone_from(&new.delivery);
    config.dsn.clone_from(&new.dsn);
    if !level_is_fixed {
        config.log.level.clone_from(&new.log.level);
    }
    config.smtp = empath_smtp::server::Config {
        listeners: config.smtp.listeners,
        limits: empath_smtp::server::Limits {
            content_memory: config.smtp.limits.content_memory,
            min_free_space: config.smtp.limits.min_free_space,
            min_free_inodes: config.smtp.limits.min_free_inodes,
            ..new.smtp.limits.clone()
        },
        ..new.smtp.clone()
    };
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("empath.config.ron");
        let spool = r#"hostname: "mx.home.test", spool: (path: "spool"), control_socket: "socket""#;
        std::fs::write(&file, format!("Empath({})", text.replace("..", spool))).unwrap();
        let mut config = config::load(Some(&file)).unwrap_or_else(|errors| panic!("{errors}")).config;
        // The directory is another one each time.
        config.spool.path = config.spool.path.file_name().unwrap().into();
        config.control_socket = config.control_socket.file_name().unwrap().into();
        config
    }

    #[test]
    fn what_cannot_change_while_the_daemon_runs_stays_as_it_is_and_is_named() {
        let running = config("..");
        for (text, changed, needs_restart) in [
            ("..", "", ""),
            (
                ".., delivery: (retry: (max_attempts: 3)), dsn: (enabled: false)",
                "delivery.retry.max_attempts dsn.enabled",
                "",
            ),
            (r#".., log: (level: "debug", format: Text)"#, "log.level", "log.format"),
            (
                r#".., smtp: (bare_newlines: Normalize, limits: (hops: 5, min_free_inodes: 7, min_free_space: "1MiB"))"#,
                "smtp.bare_newlines smtp.limits.hops",
                "smtp.limits.min_free_inodes smtp.limits.min_free_space",
            ),
            (
                r#".., smtp: (listeners: [(socket: "[::1]:2500")], relay_domains: ["a.test"])"#,
                "smtp.relay_domains",
                "smtp.listeners",
            ),
            (".., health: (enabled: false), metrics: (enabled: false)", "", "health.enabled metrics.enabled"),
            (
                r#"hostname: "other.test", spool: (path: "other"), control_socket: "other""#,
                "",
                "control_socket hostname spool.path",
            ),
        ] {
            let new = config(text);
            let applied = applicable(&running, &new, false);
            assert_eq!(differences(&running, &applied).join(" "), changed, "{text}");
            assert_eq!(differences(&applied, &new).join(" "), needs_restart, "{text}");
        }
    }

    #[test]
    fn a_level_of_the_log_that_the_environment_fixes_does_not_change() {
        let (running, new) = (config(".."), config(r#".., log: (level: "debug")"#));
        let applied = applicable(&running, &new, true);
        assert_eq!(differences(&applied, &new), ["log.level"]);
    }
}
