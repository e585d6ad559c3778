//! The configuration file: found, read with all its errors at once, and documented.

mod diff;
mod error;
mod outline;
mod read;
mod reference;

use std::{
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use empath_common::{Domain, Problem};
use empath_delivery::config::{DomainConfig, SenderRoute};
use empath_smtp::server::Tls;
use empath_spool::Backend;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use diff::differences;
pub use error::{Error, Errors, Place, Reason};
pub use outline::{Entry, Key, Node};
pub use reference::reference;

/// The configuration of an Empath daemon.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Empath", default, deny_unknown_fields)]
pub struct Config {
    /// Our own name, in the greeting, in EHLO and in `Received` fields.
    ///
    /// A fully qualified domain name that resolves to this machine (RFC 5321 §2.3.5, §4.1.1.1); other servers may
    /// refuse mail from a host with a name of its own invention. Default: the system's host name.
    pub hostname: Option<Domain>,
    /// The receiving of mail over SMTP.
    pub smtp: empath_smtp::server::Config,
    /// Where accepted messages live until their end.
    pub spool: empath_spool::Config,
    /// How accepted messages are delivered.
    pub delivery: empath_delivery::Config,
    /// How senders are told about messages that could not be delivered (RFC 3464).
    pub dsn: empath_delivery::DsnConfig,
    /// The socket of `empathctl`.
    ///
    /// Only the user that the daemon runs as can connect. Relative to the configuration file. Default:
    /// `"/run/empath/control.sock"`.
    #[schemars(with = "String")]
    pub control_socket: PathBuf,
    /// Health and readiness over HTTP.
    pub health: empath_health::HealthConfig,
    /// Metrics over HTTP.
    pub metrics: empath_health::MetricsConfig,
    /// What is logged.
    pub log: empath_metrics::LogConfig,
    /// Plugin modules, which have a say in what is accepted, in the order in which they are asked.
    ///
    /// Default: `[]`.
    pub modules: Vec<empath_ffi::ModuleConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: None,
            smtp: empath_smtp::server::Config::default(),
            spool: empath_spool::Config::default(),
            delivery: empath_delivery::Config::default(),
            dsn: empath_delivery::DsnConfig::default(),
            control_socket: "/run/empath/control.sock".into(),
            health: empath_health::HealthConfig::default(),
            metrics: empath_health::MetricsConfig::default(),
            log: empath_metrics::LogConfig::default(),
            modules: Vec::new(),
        }
    }
}

/// A configuration without errors, its paths resolved.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration. Its `hostname` is there.
    pub config: Config,
    /// The file that it came from.
    pub path: PathBuf,
    /// The directory of the file, absolute: relative paths start here.
    pub dir: PathBuf,
}

/// Where the configuration is looked for when nobody says where it is.
const USUAL_PLACES: [&str; 2] = ["./empath.config.ron", "/etc/empath/empath.config.ron"];

/// Octets of a configuration file.
const MAX_SIZE: u64 = 10 << 20;

impl Config {
    /// Our own name: the configured one, else the system's.
    pub fn hostname(&self) -> Domain {
        self.hostname.clone().or_else(system_name).unwrap_or_else(Domain::localhost)
    }

    /// What is wrong beyond what the types say, with paths from the root.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.hostname.is_none() {
            let message = "is needed, since the host name of the system is not a domain name";
            problems.push(Problem::new("hostname", message));
        }
        if self.control_socket.file_name().is_none() {
            problems.push(Problem::new("control_socket", "is not the path of a socket"));
        }
        if self.smtp.listeners.is_empty() {
            let message = "is empty: nothing could be received; give at least one";
            problems.push(Problem::new("smtp.listeners", message));
        }
        let mut add = |section: &str, found: Vec<Problem>| {
            problems.extend(found.into_iter().map(|problem| problem.within(section)));
        };
        add("smtp", self.smtp.validate());
        add("spool", self.spool.validate());
        add("delivery", self.delivery.validate());
        add("dsn", self.dsn.validate());
        add("health", self.health.validate());
        add("log", self.log.validate());
        for (n, module) in self.modules.iter().enumerate() {
            add(&format!("modules[{n}]"), module.validate());
        }
        let limits = &self.smtp.limits;
        if self.spool.backend == Backend::Memory && limits.content_memory < limits.message_size {
            let size = limits.message_size;
            let message = format!("a message of message_size ({size}) would never fit: give more than that");
            problems.push(Problem::new("smtp.limits.content_memory", message));
        }
        // Port 0 is a free port, another one each time.
        if self.health.enabled
            && self.metrics.enabled
            && self.health.listen_address.port() != 0
            && self.health.listen_address == self.metrics.listen_address
        {
            let message = "is the address of the health server too: give each its own port";
            problems.push(Problem::new("metrics.listen_address", message));
        }
        problems
    }

    /// What works and still needs somebody's attention, with paths from the root.
    pub fn warnings(&self, now: Timestamp) -> Vec<Problem> {
        let smtp = self.smtp.warnings().into_iter().chain(Tls::warnings(&self.smtp, now));
        let delivery = self.delivery.warnings().into_iter().map(|problem| problem.within("delivery"));
        smtp.map(|problem| problem.within("smtp")).chain(delivery).collect()
    }

    /// Local domains whose mail would be looked up by MX and so leave this machine: the start warns about them.
    pub fn local_domains_without_delivery(&self) -> impl Iterator<Item = &Domain> {
        self.smtp.local_domains.iter().filter(|domain| {
            let config = self.delivery.domain(domain);
            config.is_none_or(|config| !config.has_next_hop())
        })
    }

    /// Makes relative paths absolute, and takes from the system what it is to say.
    fn resolve(&mut self, dir: &Path) {
        self.hostname = self.hostname.take().or_else(system_name);
        let domains = self.delivery.domains.values_mut().flat_map(DomainConfig::paths);
        let senders = self.delivery.sender_routes.values_mut().flat_map(SenderRoute::paths);
        let modules = self.modules.iter_mut().map(|module| &mut module.path);
        let certificates = self.smtp.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
        let paths = [&mut self.control_socket, &mut self.spool.path]
            .into_iter()
            .chain(&mut self.smtp.client_ca)
            .chain(&mut self.delivery.tls.ca_file)
            .chain(&mut self.smtp.auth.users_file);
        for path in paths.chain(certificates).chain(domains).chain(senders).chain(modules) {
            // An empty path stays what it is: an error.
            if !path.as_os_str().is_empty() {
                *path = dir.join(&path);
            }
        }
    }
}

/// The host name of the system, if it is a domain name.
fn system_name() -> Option<Domain> {
    rustix::system::uname().nodename().to_str().ok()?.parse().ok()
}

/// Finds, reads and validates the configuration: `explicit`, else `EMPATH_CONFIG`, else one of the usual places.
pub fn load(explicit: Option<&Path>) -> Result<Loaded, Errors> {
    let named = explicit
        .map(Path::to_path_buf)
        .or_else(|| env::var_os("EMPATH_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let usual = || USUAL_PLACES.iter().map(PathBuf::from).find(|path| path.exists());
    let Some(path) = named.or_else(usual) else {
        let reason = Reason::NoFile(USUAL_PLACES.join(", "));
        return Err(Errors { file: None, errors: vec![Error { place: None, reason }] });
    };
    match load_file(&path) {
        Ok((config, dir)) => Ok(Loaded { config, path, dir }),
        Err(errors) => Err(Errors { file: Some(path), errors }),
    }
}

fn load_file(path: &Path) -> Result<(Config, PathBuf), Vec<Error>> {
    let failed = |error: io::Error| vec![Error { place: None, reason: Reason::Read(error) }];
    let mut octets = Vec::new();
    // Before it is opened: that alone waits for somebody to write into a pipe.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(vec![Error { place: None, reason: Reason::NotRegular }]);
    }
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_SIZE + 1).read_to_end(&mut octets).map_err(failed)?;
    let text = text(octets)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = fs::canonicalize(parent).map_err(failed)?;
    let config = read::read(&text, |config: &mut Config| {
        config.resolve(&dir);
        config.validate()
    })?;
    Ok((config, dir))
}

/// The octets of a file as text that may be a configuration.
fn text(octets: Vec<u8>) -> Result<String, Vec<Error>> {
    let whole = |reason| Err(vec![Error { place: None, reason }]);
    if octets.len() as u64 > MAX_SIZE {
        return whole(Reason::TooLarge(MAX_SIZE));
    }
    if octets.starts_with(b"\xef\xbb\xbf") {
        let place = Some(Place { line: 1, column: 1 });
        return Err(vec![Error { place, reason: Reason::ByteOrderMark }]);
    }
    String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        vec![Error { place: Some(read::place(&text, valid)), reason: Reason::NotUtf8 }]
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FileType, Mode};

    use super::*;

    #[test]
    fn a_local_domain_that_nothing_delivers_is_noticed() {
        let text = r#"Empath(smtp: (local_domains: ["a.test", "b.test", "x.c.test", "d.test", "e.test"]), delivery: (domains: {
            "b.test": (mx_override: "127.0.0.1:24"), "*.c.test": (maildir: "{local}"), "d.test": (),
            "e.test": (lmtp: "unix:/run/lmtp") }))"#;
        let config: Config = read::read(text, |_| Vec::new()).unwrap();
        let found: Vec<_> = config.local_domains_without_delivery().map(Domain::as_str).collect();
        assert_eq!(found, ["a.test", "d.test"]);
    }

    #[test]
    fn paths_of_domains_start_at_the_file() {
        let text = r#"Empath(delivery: (domains: {
            "a.test": (maildir: "mail/{local}"), "b.test": (lmtp: "unix:run/lmtp"), "c.test": (lmtp: "unix:/run/lmtp"),
            "d.test": (smarthost: (hosts: ["relay.test"], auth: (user: "u", password_file: "secret"))) },
            sender_routes: { "a.test": (lmtp: "unix:run/archive"),
            "b.test": (smarthost: (hosts: ["relay.test"], auth: (user: "u", token_file: "token"))) }))"#;
        let mut config: Config = read::read(text, |_| Vec::new()).unwrap();
        config.resolve(Path::new("/etc/empath"));
        let paths: Vec<_> = config.delivery.domains.values_mut().flat_map(DomainConfig::paths).collect();
        let expected =
            ["/etc/empath/mail/{local}", "/etc/empath/run/lmtp", "/run/lmtp", "/etc/empath/secret"];
        assert_eq!(paths, expected.map(Path::new));
        let senders = config.delivery.sender_routes.values_mut().flat_map(SenderRoute::paths);
        assert_eq!(
            senders.collect::<Vec<_>>(),
            ["/etc/empath/run/archive", "/etc/empath/token"].map(Path::new)
        );
        let server = config.delivery.domains.values().find_map(|domain| domain.lmtp.as_ref()).unwrap();
        assert_eq!(server.to_string(), "unix:/etc/empath/run/lmtp");
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
            let error = load(Some(path)).unwrap_err().to_string();
            assert_eq!(error, format!("{}: is not a regular file\n", path.display()));
        }
    }

    #[test]
    fn a_message_must_fit_into_memory_only_where_there_is_nothing_else() {
        for (backend, expected) in [("File", &[][..]), ("Memory", &["smtp.limits.content_memory"])] {
            let limits = r#"limits: (message_size: "1GiB", content_memory: "2MiB")"#;
            let text = format!(
                r#"Empath(hostname: "a.test", smtp: ({limits}), spool: (path: "/var/x", backend: {backend}))"#
            );
            let config: Config = read::read(&text, |_| Vec::new()).unwrap();
            let keys: Vec<_> = config.validate().into_iter().map(|problem| problem.key).collect();
            assert_eq!(keys, expected, "{backend}");
        }
    }
}
