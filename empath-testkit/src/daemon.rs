//! The real binary, on ports of its own, in a directory of its own.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness fails its test by panicking, and shows why"
)]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that the daemon should do.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running daemon. It is killed when dropped; when the test failed, its log is printed.
///
/// Everything here blocks; an async test calls it through `spawn_blocking`.
pub struct Daemon {
    binary: PathBuf,
    empathctl: Option<PathBuf>,
    dir: TempDir,
    smtp: SocketAddr,
    health: SocketAddr,
    metrics: SocketAddr,
    child: Option<Child>,
    log: Arc<Log>,
}

/// A daemon to be started: its binary and its configuration.
#[derive(Debug, Clone)]
pub struct Builder {
    binary: PathBuf,
    empathctl: Option<PathBuf>,
    keys: BTreeMap<String, String>,
    smtp: BTreeMap<String, String>,
}

/// What the daemon has written since its last start.
#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// Where the lines of the present process begin.
    start: usize,
    ended: bool,
}

impl Builder {
    /// Sets the key `name` of the root to a RON value: `.key("delivery", r#"(mx_port: 2525)"#)`.
    ///
    /// In values `{dir}` is the daemon's directory and `{smtp}` the address of its SMTP listener.
    #[must_use]
    pub fn key(mut self, name: &str, ron: &str) -> Self {
        self.keys.insert(name.to_owned(), ron.to_owned());
        self
    }

    /// Sets the key `name` of the section `smtp`, as [`key`](Self::key) does.
    #[must_use]
    pub fn smtp(mut self, name: &str, ron: &str) -> Self {
        self.smtp.insert(name.to_owned(), ron.to_owned());
        self
    }

    /// The client that [`Daemon::ctl`] runs.
    #[must_use]
    pub fn empathctl(mut self, path: impl Into<PathBuf>) -> Self {
        self.empathctl = Some(path.into());
        self
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(self) -> Daemon {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let mut daemon = Daemon {
            binary: self.binary.clone(),
            empathctl: self.empathctl.clone(),
            dir,
            smtp: free_address(),
            health: free_address(),
            metrics: free_address(),
            child: None,
            log: Arc::default(),
        };
        fs::write(daemon.config_file(), self.config(&daemon)).expect("write the configuration");
        daemon.start();
        daemon
    }

    fn config(mut self, daemon: &Daemon) -> String {
        let Daemon { smtp, health, metrics, .. } = daemon;
        let defaults = [
            ("control_socket", r#""control.sock""#.to_owned()),
            ("hostname", r#""mx.empath.test""#.to_owned()),
            ("health", format!(r#"(listen_address: "{health}")"#)),
            ("metrics", format!(r#"(listen_address: "{metrics}")"#)),
            ("spool", r#"(path: "spool")"#.to_owned()),
        ];
        for (name, value) in defaults {
            self.keys.entry(name.to_owned()).or_insert(value);
        }
        self.smtp.entry("listeners".to_owned()).or_insert_with(|| format!(r#"[(socket: "{smtp}")]"#));
        self.keys.insert("smtp".to_owned(), format!("({})", fields(&self.smtp)));
        let config = format!("Empath({})\n", fields(&self.keys));
        config.replace("{dir}", &daemon.dir().display().to_string()).replace("{smtp}", &smtp.to_string())
    }
}

fn fields(values: &BTreeMap<String, String>) -> String {
    values.iter().fold(String::new(), |mut text, (name, value)| {
        write!(text, "\n{name}: {value},").expect("writing to a string succeeds");
        text
    })
}

impl Daemon {
    /// A daemon of this binary: `env!("CARGO_BIN_EXE_empath")`.
    ///
    /// It listens on free ports of 127.0.0.1 and keeps its spool and control socket in a temporary directory.
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder { binary: binary.into(), empathctl: None, keys: BTreeMap::new(), smtp: BTreeMap::new() }
    }

    /// Where it speaks SMTP. The same after a restart.
    pub fn smtp_address(&self) -> SocketAddr {
        self.smtp
    }

    /// Where it serves health.
    pub fn health_address(&self) -> SocketAddr {
        self.health
    }

    /// Where it serves metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its directory, which holds the configuration, the spool and the control socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("empath.config.ron")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// All that it has logged, across restarts.
    pub fn log(&self) -> String {
        self.log.lines().all.join("\n")
    }

    /// Waits for a log line of the present process with this message, and returns it.
    pub fn wait_for(&self, message: &str) -> Value {
        self.wait_for_line(message, |_| true)
    }

    /// Waits for a log line of the present process with this message that is `wanted`, and returns it.
    pub fn wait_for_line(&self, message: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        match self.log.wait_for(|line| has_message(line, message) && wanted(line)) {
            Some(line) => line,
            None => panic!("the daemon did not log {message:?}"),
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the daemon");
            child.wait().expect("wait for the daemon");
            self.log.wait_for_end();
        }
    }

    /// Starts it again, after killing it where it still runs, and waits until it is ready.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Ends it with SIGTERM and returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("signal the daemon");
        if !self.log.wait_for_end() {
            child.kill().expect("kill the daemon");
            panic!("the daemon did not end after SIGTERM");
        }
        child.wait().expect("wait for the daemon")
    }

    /// Runs `empathctl --json` with these arguments, which must succeed, and returns its lines.
    pub fn ctl(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.ctl_output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "empathctl {arguments:?}: {}: {errors}", output.status);
        let lines = String::from_utf8(output.stdout).expect("empathctl writes UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("empathctl writes JSON")).collect()
    }

    /// Runs `empathctl --json` with these arguments.
    pub fn ctl_output(&self, arguments: &[&str]) -> Output {
        let empathctl = self.empathctl.as_ref().expect("the builder was given an empathctl");
        Command::new(empathctl)
            .arg("--control-socket")
            .arg(self.control_socket())
            .arg("--json")
            .args(arguments)
            .output()
            .expect("run empathctl")
    }

    /// `GET path` from one of its HTTP addresses: status and body.
    pub fn get(&self, address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("write");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("read the response");
        let (head, body) = response.split_once("\r\n\r\n").expect("a response has a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    fn start(&mut self) {
        let mut child = Command::new(&self.binary)
            .arg("--config")
            .arg(self.config_file())
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start the daemon");
        let output = child.stdout.take().expect("its output is piped");
        self.log.follow(output);
        self.child = Some(child);
        self.wait_for("ready");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let config = fs::read_to_string(self.config_file()).unwrap_or_default();
            eprintln!("--- configuration of the daemon\n{config}--- its log\n{}\n---", self.log());
        }
    }
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A test that panics while it holds the lock still gets its log printed.
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, output: ChildStdout) {
        let mut lines = self.lines();
        lines.start = lines.all.len();
        lines.ended = false;
        drop(lines);
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                log.lines().all.push(line);
                log.grown.notify_all();
            }
            log.lines().ended = true;
            log.grown.notify_all();
        });
    }

    fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let mut seen = self.lines().start;
        let mut found = None;
        let waited = self.grown.wait_timeout_while(self.lines(), PATIENCE, |lines| {
            let mut new = lines.all.iter().skip(seen).filter_map(|line| serde_json::from_str(line).ok());
            found = new.find(&wanted);
            seen = lines.all.len();
            found.is_none() && !lines.ended
        });
        drop(waited);
        found
    }

    fn wait_for_end(&self) -> bool {
        let waited = self.grown.wait_timeout_while(self.lines(), PATIENCE, |lines| !lines.ended);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

fn has_message(line: &Value, message: &str) -> bool {
    let found = line.get("message").or_else(|| line.get("fields")?.get("message"));
    found.is_some_and(|found| found == message)
}

/// A free port of 127.0.0.1 below those that the kernel gives to outgoing connections, so that none of them takes
/// it while the daemon is down.
fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(10_240..32_768)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
