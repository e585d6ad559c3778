//! The harness itself, with a shell script in the place of the daemon.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use empath_testkit::daemon::Daemon;
use tempfile::TempDir;

const DAEMON: &str = r#"#!/bin/sh
trap 'kill $!; echo "{\"message\":\"stopping\"}"; exit 3' TERM
echo "not JSON"
echo '{"level":"INFO","fields":{"message":"ready","pid":'$$'}}'
sleep 60 >/dev/null 2>&1 &
wait $!
"#;
const CLIENT: &str = r#"#!/bin/sh
case "$*" in *fail*) exit 1;; esac
printf '{"arguments":"%s"}\n{}\n' "$*"
"#;

fn script(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn start(scripts: &TempDir) -> Daemon {
    Daemon::builder(script(scripts, "empath", DAEMON))
        .empathctl(script(scripts, "empathctl", CLIENT))
        .key("delivery", r#"(path: "{dir}")"#)
        .smtp("relay_domains", r#"["{smtp}.test"]"#)
        .start()
}

#[test]
fn a_daemon_is_ready_then_killed_restarted_and_terminated() {
    let scripts = tempfile::tempdir().unwrap();
    let mut daemon = start(&scripts);
    let (first, address) = (daemon.pid(), daemon.smtp_address());
    let ready = daemon.wait_for_line("ready", |line| line["fields"]["pid"] == first);
    assert_eq!(ready["level"], "INFO");
    daemon.restart();
    assert_ne!(daemon.pid(), first);
    assert_eq!(daemon.smtp_address(), address);
    assert_eq!(
        daemon.wait_for("ready")["fields"]["pid"],
        daemon.pid(),
        "lines of the first process are past"
    );
    assert_eq!(daemon.terminate().code(), Some(3));
    assert_eq!(daemon.log().matches("ready").count(), 2);
    assert!(daemon.log().ends_with(r#"{"message":"stopping"}"#));
}

#[test]
fn the_configuration_has_what_the_test_set_and_defaults_for_the_rest() {
    let scripts = tempfile::tempdir().unwrap();
    let daemon = start(&scripts);
    let config = fs::read_to_string(daemon.config_file()).unwrap();
    for line in [
        format!(r#"delivery: (path: "{}"),"#, daemon.dir().display()),
        format!(r#"relay_domains: ["{}.test"],"#, daemon.smtp_address()),
        format!(r#"listeners: [(socket: "{}")],"#, daemon.smtp_address()),
        r#"spool: (path: "spool"),"#.to_owned(),
    ] {
        assert!(config.contains(&line), "{line} is not in {config}");
    }
}

#[test]
fn the_control_client_speaks_json_over_the_daemons_socket() {
    let scripts = tempfile::tempdir().unwrap();
    let daemon = start(&scripts);
    let lines = daemon.ctl(&["queue", "list"]);
    let socket = daemon.control_socket();
    let expected = format!("--control-socket {} --json queue list", socket.display());
    assert_eq!((lines.len(), &lines[0]["arguments"]), (2, &expected.into()));
    assert_eq!(daemon.ctl_output(&["fail"]).status.code(), Some(1));
}
