//! What an operator can see and do about a spool, in use and at rest, whole and damaged.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at the first surprise")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use empath_testkit::daemon::Daemon;
use serde_json::Value;

/// A daemon that delivers to nobody, with a message of each of these bodies.
fn daemon(bodies: &[&str]) -> (Daemon, Vec<String>) {
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_empath"))
        .empathctl(env!("CARGO_BIN_EXE_empathctl"))
        .key("delivery", r#"(domains: {"*": (mx_override: "127.0.0.1:1")})"#)
        .start();
    let ids = bodies.iter().map(|body| send(&daemon, body)).collect();
    (daemon, ids)
}

/// Sends a message and returns its id.
fn send(daemon: &Daemon, body: &str) -> String {
    let mut stream = BufReader::new(TcpStream::connect(daemon.smtp_address()).unwrap());
    let content = format!("Subject: one\r\n\r\n{body}\r\n.");
    let mut reply = String::new();
    let dialogue =
        ["HELO client.test", "MAIL FROM:<alice@home.test>", "RCPT TO:<bob@example.test>", "DATA", &content];
    stream.read_line(&mut reply).unwrap();
    for line in dialogue {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        reply.clear();
        stream.read_line(&mut reply).unwrap();
    }
    reply.trim_end().strip_prefix("250 2.0.0 Ok: queued as ").unwrap().to_owned()
}

/// Flips an octet of this body where it is stored.
fn damage(daemon: &Daemon, body: &str) {
    let holds = |path: &PathBuf| {
        let octets = fs::read(path).unwrap();
        octets.windows(body.len()).position(|part| part == body.as_bytes()).map(|at| (octets, at))
    };
    let journal = fs::read_dir(daemon.dir().join("spool/journal")).unwrap();
    let mut segments = journal.map(|entry| entry.unwrap().path());
    let (path, (mut octets, at)) = segments.find_map(|path| holds(&path).map(|found| (path, found))).unwrap();
    octets[at] ^= 1;
    fs::write(path, octets).unwrap();
}

/// Every file below a directory, with its content.
fn tree(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            let content = fs::read(&path).unwrap();
            files.push((path, content));
        }
    }
    files.sort();
    files
}

fn verify(path: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_empath"));
    command.args(["spool", "verify", "--path"]).arg(path).args(more).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_spool_at_rest_is_checked_and_not_changed() {
    let (mut daemon, ids) = daemon(&["the first body", "the second body"]);
    daemon.kill();
    let spool = daemon.dir().join("spool");
    let clean = verify(&spool, &["--json"]);
    assert_eq!(clean.status.code(), Some(0));
    let summary = &lines(&clean)[0];
    assert_eq!((&summary["kind"], &summary["clean"]), (&"summary".into(), &true.into()));

    damage(&daemon, "the first body");
    let before = tree(&spool);
    let damaged = verify(&spool, &["--json"]);
    assert_eq!(damaged.status.code(), Some(1));
    let found = lines(&damaged);
    let (finding, summary) = (&found[0], &found[1]);
    assert_eq!(finding["kind"], "damage");
    assert_eq!(finding["messages"], serde_json::json!([ids[0]]));
    assert_eq!((&summary["clean"], &summary["damaged"]), (&false.into(), &1.into()));
    let text = String::from_utf8(verify(&spool, &[]).stdout).unwrap();
    assert!(text.contains(&ids[0]) && text.contains("1 damaged ranges"), "{text}");
    assert_eq!(tree(&spool), before);
}

#[test]
fn a_spool_in_use_and_what_is_no_spool_are_not_checked() {
    let (daemon, _) = daemon(&[]);
    let output = verify(&daemon.dir().join("spool"), &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains(&format!("process {}", daemon.pid())), "{said}");

    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("missing")] {
        let output = verify(&path, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("is not a spool"), "{said}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn damage_is_found_listed_exported_and_discarded() {
    let (mut daemon, ids) = daemon(&["the first body", "the second body"]);
    assert_eq!(daemon.ctl(&["spool", "verify"])[0]["clean"], true);
    damage(&daemon, "the first body");
    let found = daemon.ctl_output(&["spool", "verify"]);
    assert_eq!(found.status.code(), Some(1));
    let found = lines(&found);
    assert_eq!(found[0]["messages"], serde_json::json!([ids[0]]), "{found:?}");
    assert_eq!(found.last().unwrap()["clean"], false);

    daemon.restart();
    let kept = daemon.ctl(&["spool", "damaged"]);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["messages"], serde_json::json!([ids[0]]));
    let name = kept[0]["name"].as_str().unwrap();
    assert_eq!(daemon.ctl(&["spool", "stats"])[0]["damaged"], 1);

    let file = daemon.dir().join("exported");
    daemon.ctl(&["spool", "damaged", "export", name, "--output", file.to_str().unwrap()]);
    let exported = fs::read(&file).unwrap();
    assert_eq!(exported, fs::read(daemon.dir().join("spool/damaged").join(name)).unwrap());
    assert_eq!(kept[0]["octets"], exported.len());

    for wrong in ["../LOCK", "00000001-0000000000-0000000000000000.octets"] {
        for command in [&["export", wrong][..], &["discard", name, wrong]] {
            let refused = daemon.ctl_output(&[&["spool", "damaged"], command].concat());
            assert_eq!(refused.status.code(), Some(1));
            let error: Value = serde_json::from_slice(&refused.stderr).unwrap();
            assert_eq!(error["error"]["code"], "not_found", "{error}");
        }
    }
    assert_eq!(daemon.ctl(&["spool", "damaged", "list"]), kept);
    assert_eq!(daemon.ctl(&["spool", "damaged", "discard", name])[0]["discarded"], 1);
    assert_eq!(daemon.ctl(&["spool", "damaged", "list"]), Vec::<Value>::new());
    daemon.wait_for_line("control command", |line| {
        line["command"] == "spool.damaged.discard" && line["outcome"] == "ok"
    });
}

#[test]
fn what_somebody_put_beside_the_damage_breaks_no_command() {
    let (daemon, _) = daemon(&[]);
    let damaged = daemon.dir().join("spool/damaged");
    fs::create_dir(damaged.join("x.report")).unwrap();
    fs::write(damaged.join("notes"), b"mine").unwrap();
    let listed = daemon.ctl(&["spool", "damaged"]);
    let names: Vec<_> = listed.iter().map(|kept| kept["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["notes", "x.octets"]);
    assert!(listed.iter().all(|kept| kept["problem"].is_string()), "{listed:?}");
    let stats = &daemon.ctl(&["spool", "stats"])[0];
    assert_eq!((&stats["damaged"], &stats["kept"]), (&2.into(), &0.into()));
    assert!(stats["damaged_octets"].as_u64().unwrap() >= 4, "{stats}");
}

#[test]
fn statistics_count_what_is_stored() {
    let (daemon, _) = daemon(&["one", "two"]);
    let stats = &daemon.ctl(&["spool", "stats"])[0];
    let number = |name: &str| stats[name].as_u64().unwrap();
    assert_eq!((number("messages"), number("damaged")), (2, 0));
    assert!(number("live_octets") > 0 && number("journal_octets") > number("live_octets"), "{stats}");
    assert!(number("free_octets") > 0, "{stats}");
    assert_eq!((number("large_octets"), &stats["healthy"]), (0, &true.into()));
}
