//! `empathctl` as people and scripts use it, with a daemon of a few lines at the other end.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod fake;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
};

use empath_control::ControlServer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use fake::{BROKEN, Fake, ID, KEPT, OTHER};

struct Running {
    directory: TempDir,
}

impl Running {
    fn start(copies: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = ControlServer::bind(&directory.path().join("control.sock")).unwrap();
        tokio::spawn(server.serve(Arc::new(Fake { copies }), CancellationToken::new()));
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        run(&self.path(), arguments).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (status, stdout, stderr) = self.run(&[&["--json"], arguments].concat()).await;
        assert_eq!((status, stderr.as_str()), (0, ""));
        serde_json::from_str(&stdout).unwrap()
    }
}

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_empathctl"));
    command.arg("-c").arg(socket).args(arguments).stdin(Stdio::null());
    command
}

async fn run(socket: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(socket, arguments).output().await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn json_answers_have_the_documented_members() {
    let daemon = Running::start(1);
    assert_eq!(daemon.json(&["system", "ping"]).await, json!({"pong": true, "version": "1.2.3"}));
    let reloaded = json!({"changed": ["dsn.enabled"], "needs_restart": ["\u{1b}hostname"]});
    assert_eq!(daemon.json(&["config", "reload"]).await, reloaded);
    assert_eq!(
        daemon.json(&["system", "status"]).await,
        json!({"version": "1.2.3", "uptime_seconds": 93784, "queue_size": 1, "recovering": 0,
               "unreadable": 0, "ready": true,
               "connections": {"inbound": 3, "outbound": 4}, "dns_cache_entries": 7})
    );
    let reply = json!({"code": 451, "enhanced": "4.3.2", "text": "later"});
    let mut message = json!({
        "id": ID, "sender": "\u{1b}[31malice@home.test", "size": 1234, "received_at": "2026-01-02T03:04:05Z",
        "status": "deferred", "priority": "normal",
        "recipients": [{"address": "bob@example.test", "status": "deferred", "attempts": 2,
                        "next_attempt_at": "2026-01-02T03:14:05Z", "next_hop": "mx:example.test", "host": null,
                        "last_reply": reply}],
    });
    assert_eq!(daemon.json(&["queue", "list"]).await, message);
    let more = message.as_object_mut().unwrap();
    more.insert("ret".to_owned(), json!("HDRS"));
    more.insert("envid".to_owned(), json!("QQ+2B1"));
    let asked =
        json!({"address": "bob@example.test", "notify": "SUCCESS,FAILURE", "orcpt": "rfc822;b@x.test"});
    more.insert("notifications".to_owned(), json!([asked]));
    more.insert("headers".to_owned(), json!([["Subject", "\u{1b}]0;owned\u{7}"]]));
    let attempt = json!({"at": "2026-01-02T03:05:05Z", "address": "bob@example.test", "next_hop": null,
                         "host": "mx1.example.test[192.0.2.1]:25", "reply": reply});
    more.insert("history".to_owned(), json!([attempt]));
    assert_eq!(daemon.json(&["queue", "view", ID]).await, message);
    let why = json!({"address": "bob@example.test", "state": "pending", "because": "rate_limited",
                     "until": "2026-01-02T03:05:05Z", "detail": "\u{1b}[31m"});
    assert_eq!(daemon.json(&["queue", "why", ID]).await, json!({"id": ID, "recipients": [why]}));
    assert_eq!(
        daemon.json(&["queue", "stats"]).await,
        json!({"total": 1, "by_status": {"deferred": 1}, "by_domain": {"example.test": 1}, "oldest_seconds": 60, "frozen": ["slow.test"]})
    );
}

#[tokio::test]
async fn messages_are_selected_as_the_arguments_say() {
    let daemon = Running::start(1);
    for (arguments, matched) in [
        (&["queue", "retry", "--all"][..], 100),
        (&["queue", "retry", ID, OTHER], 2),
        (&["queue", "retry", "--domain", "example.test"], 10),
        (&["queue", "hold", "--sender", "alice@home.test"], 10),
        (&["queue", "release", "--status", "held"], 10),
        (&["queue", "delete", ID], 1),
        (&["queue", "delete", "--sender", "", "--yes"], 10),
        (&["queue", "delete", "--all", "--yes"], 100),
    ] {
        assert_eq!(daemon.json(arguments).await, json!({"matched": matched, "changed": 1}), "{arguments:?}");
    }
    let (_, pending, _) = daemon.run(&["--json", "queue", "list", "--status", "pending"]).await;
    assert_eq!(pending, "");
    let (_, limited, _) = daemon.run(&["--json", "queue", "list", "--limit", "3"]).await;
    assert_eq!(limited.lines().count(), 3);
}

#[tokio::test]
async fn people_get_tables_in_which_nothing_steers_the_terminal() {
    let daemon = Running::start(1);
    for (arguments, words) in [
        (
            &["queue", "list"][..],
            "1234  deferred  2026-01-02 03:14:05Z  normal    \\x1b[31malice@home.test  bob@example.test",
        ),
        (&["queue", "view", ID], "Subject: \\x1b]0;owned\\x07"),
        (&["queue", "view", ID], "451 4.3.2 later"),
        (&["queue", "view", ID], "priority  normal\nret       HDRS\nenvid     QQ+2B1\n\nRECIPIENT"),
        (&["queue", "view", ID], "bob@example.test  SUCCESS,FAILURE  rfc822;b@x.test\n"),
        (&["queue", "why", ID], "bob@example.test  pending  rate_limited  2026-01-02 03:05:05Z  \\x1b[31m"),
        (&["queue", "stats"], "1 message, the oldest 60 s old"),
        (&["queue", "retry", ID], "1 of 1 messages are due now"),
        (&["queue", "hold", ID], "1 of 1 messages are held now"),
        (&["queue", "release", ID], "1 of 1 messages are released"),
        (&["queue", "freeze", "Slow.test"], "slow.test is frozen now"),
        (&["queue", "thaw", "slow.test"], "slow.test was not frozen"),
        (&["queue", "stats"], "frozen: slow.test"),
        (&["system", "status"], "up           1d 02:03:04"),
        (&["config", "reload"], "applied        dsn.enabled\nneeds restart  \\x1bhostname\n"),
        (&["system", "ping"], "Empath 1.2.3 answers"),
        (&["spool", "damaged"], "7       a record does not verify \\x1b[31m  01ARZ"),
        (&["spool", "stats"], "free         5 octets, unbounded files"),
        (&["spool", "stats"], "segment 00000007 stays: it cannot be read (/spool/\\x1b[31m)"),
        (&["spool", "damaged", "discard", KEPT], "1 were deleted"),
    ] {
        let (status, stdout, stderr) = daemon.run(arguments).await;
        assert_eq!((status, stderr.as_str()), (0, ""), "{arguments:?}");
        assert!(stdout.contains(words), "{stdout}");
        assert!(!stdout.contains('\u{1b}'), "{stdout}");
    }
}

#[tokio::test]
async fn the_exit_status_tells_scripts_what_happened() {
    let daemon = Running::start(1);
    let (status, stdout, stderr) = daemon.run(&["--json", "queue", "view", OTHER]).await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    let error = json!({"error": {"code": "not_found", "message": format!("there is no message {OTHER}")}});
    assert_eq!(serde_json::from_str::<Value>(&stderr).unwrap(), error);

    let (status, _, stderr) = daemon.run(&["queue", "view", OTHER]).await;
    assert_eq!((status, stderr), (1, format!("empathctl: there is no message {OTHER}\n")));

    for usage in
        [&["queue", "view", "../../etc/passwd"][..], &["queue", "retry"], &["queue", "hold"], &["dance"]]
    {
        assert_eq!(daemon.run(usage).await.0, 2, "{usage:?}");
    }

    let nowhere = daemon.directory.path().join("nobody.sock");
    let (status, _, stderr) = run(&nowhere, &["--json", "system", "ping"]).await;
    assert_eq!(status, 3);
    assert_eq!(
        serde_json::from_str::<Value>(&stderr).unwrap().pointer("/error/code").unwrap(),
        "unreachable"
    );
}

#[tokio::test]
async fn a_script_must_say_yes_before_many_messages_are_deleted() {
    let daemon = Running::start(1);
    for arguments in [&["queue", "delete", "--all"][..], &["queue", "delete", "--domain", "example.test"]] {
        let (status, stdout, stderr) = daemon.run(arguments).await;
        assert_eq!((status, stdout.as_str()), (1, ""));
        assert!(stderr.contains("--yes"), "{stderr}");
    }
}

#[tokio::test]
async fn a_check_of_the_spool_prints_what_it_finds_and_fails_if_that_is_damage() {
    let (status, stdout, stderr) = Running::start(0).run(&["spool", "verify"]).await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.contains("2 segments with 30 records and 4000 octets, and 1 large message"), "{stdout}");

    let damaged = Running::start(1);
    let (status, stdout, stderr) = damaged.run(&["spool", "verify"]).await;
    assert_eq!(status, 1);
    let line = "segment 00000001, offset 4096, 7 octets: a record does not verify \\x1b[31m; about 01ARZ";
    assert!(stdout.contains(line) && stdout.contains("1 damaged ranges"), "{stdout}");
    assert!(stderr.contains("the spool is damaged"), "{stderr}");

    let (status, stdout, stderr) = damaged.run(&["--json", "spool", "verify"]).await;
    assert_eq!(status, 1);
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line.get("kind").unwrap()).collect();
    assert_eq!(kinds, ["damage", "kept", "summary"]);
    assert_eq!(lines.last().unwrap().get("clean").unwrap(), false);
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(error.pointer("/error/code").unwrap(), "damaged");
}

#[tokio::test]
async fn answers_about_the_spool_have_the_documented_members() {
    let daemon = Running::start(1);
    assert_eq!(
        daemon.json(&["spool", "stats"]).await,
        json!({"messages": 1, "journal_octets": 2, "live_octets": 3, "large_octets": 4, "free_octets": 5,
               "free_inodes": null, "damaged": 1, "damaged_octets": 6, "kept": 1,
               "kept_segments": [{"segment": 7, "path": "/spool/\u{1b}[31m", "reason": "it cannot be read"}],
               "healthy": true})
    );
    let report = json!({"segment": "00000001", "offset": "4096", "length": "7",
                        "reason": "a record does not verify \u{1b}[31m"});
    assert_eq!(
        daemon.json(&["spool", "damaged", "list"]).await,
        json!({"name": KEPT, "octets": 7, "report": report, "messages": [ID], "problem": null})
    );
    assert_eq!(daemon.json(&["spool", "damaged", "discard", KEPT]).await, json!({"discarded": 1}));
}

#[tokio::test]
async fn an_export_is_octet_for_octet_and_whole_or_not_there() {
    let daemon = Running::start(1);
    let export = ["spool", "damaged", "export", KEPT];
    let output = command(&daemon.path(), &export).output().await.unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"\x00\xff\r\nend"[..]));

    let (_, pieces, _) = daemon.run(&[&["--json"], &export[..]].concat()).await;
    assert_eq!(pieces, "{\"at\":0,\"octets\":\"AP8NCg==\"}\n{\"at\":4,\"octets\":\"ZW5k\"}\n");

    let file = daemon.directory.path().join("octets");
    let to_file = ["--output", file.to_str().unwrap()];
    let answer = daemon.json(&[&export[..], &to_file].concat()).await;
    assert_eq!(answer, json!({"name": KEPT, "octets": 7}));
    assert_eq!(fs::read(&file).unwrap(), b"\x00\xff\r\nend");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let (status, _, stderr) = daemon.run(&[&export[..], &to_file].concat()).await;
    assert_eq!(status, 1);
    assert!(stderr.contains("exists") && fs::read(&file).unwrap().ends_with(b"end"), "{stderr}");

    fs::remove_file(&file).unwrap();
    let broken = ["spool", "damaged", "export", BROKEN];
    assert_eq!(daemon.run(&[&broken[..], &to_file].concat()).await.0, 1);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_no_failure() {
    let daemon = Running::start(100_000);
    for format in [&["--json", "queue", "list"][..], &["queue", "list"]] {
        let mut child =
            command(&daemon.path(), format).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    }
}

#[tokio::test]
async fn the_socket_may_stand_in_the_environment() {
    let daemon = Running::start(1);
    let output = Command::new(env!("CARGO_BIN_EXE_empathctl"))
        .args(["system", "ping"])
        .env("EMPATH_CONTROL_SOCKET", daemon.path())
        .output()
        .await
        .unwrap();
    assert!(output.status.success());
}
